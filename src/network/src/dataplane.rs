//! The dataplane of one cluster on this node: started, or adopted after a restart; gives pods their place.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use coracle_client::Informers;
use coracle_ebpf_common::{Frontend, Node};
use futures::{FutureExt, Stream, StreamExt};
use ipnet::IpNet;
use rtnetlink::MulticastGroup;
use tokio_util::sync::CancellationToken;

use crate::{
    AttachError, Attachment, Config, PodNetwork, PodRequest,
    kernel::{
        attach::{self, Style},
        object::{self, LoadError, Pins, Programs},
        tables::{TableError, Tables, address},
    },
    netlink::Netlink,
    node::{self, NodeError},
    pods::{
        book::{Book, Record},
        wire::{GATEWAY, WireError, Wiring},
    },
    services::{
        desired::{self, Desired},
        ledger::{Ledger, Owner},
        plan::Op,
        watch::{self, Sink},
    },
};

/// MTU of pods when no interface has the node's address.
const DEFAULT_MTU: u32 = 1500;
/// No packet is longer, whatever a loopback-like interface says of itself.
const MAX_MTU: u32 = 65_535;
/// Name of the pins of the programs on the uplink.
const UPLINK_PIN: &str = "uplink";

/// Why the dataplane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field of the configuration.
    #[error("network configuration: {0}")]
    Config(String),
    /// A step on the machine.
    #[error("{what}")]
    System {
        /// What was tried, on which link, path or address.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a program or map.
    #[error("the kernel does not take the dataplane ({what}); `coracle doctor` says what it lacks")]
    Object {
        /// Which program or map.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<NodeError> for StartError {
    fn from(error: NodeError) -> Self {
        StartError::System { what: error.what, source: error.source }
    }
}

impl From<LoadError> for StartError {
    fn from(error: LoadError) -> Self {
        StartError::Object { what: "programs".into(), source: Box::new(error) }
    }
}

impl From<TableError> for StartError {
    fn from(error: TableError) -> Self {
        StartError::Object { what: "maps".into(), source: Box::new(error) }
    }
}

/// The running user space of the dataplane. The kernel side is pinned, and serves on when this ends by whatever death.
#[derive(Clone, Debug)]
pub struct Dataplane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    wiring: Wiring,
    programs: Programs,
    /// Held for the length of an attachment: links are made one after the other (the kernel has one lock for them too).
    book: Mutex<Book>,
    /// Held for single writes, so that a backend that goes waits for nobody.
    maps: Mutex<Maps>,
}

#[derive(Debug)]
struct Maps {
    tables: Tables,
    ledger: Ledger,
}

impl Dataplane {
    /// Loads and pins the programs, or adopts those of an earlier process without a gap in traffic; then follows Services and EndpointSlices
    /// until `shutdown`. Does not wait for the API server: what is in the maps stays until both lists are known.
    pub async fn start(config: Config, informers: Informers, shutdown: CancellationToken) -> Result<Arc<Dataplane>, StartError> {
        let dataplane = Self::open(config).await?;
        let inner = &dataplane.inner;
        tokio::spawn(watch::run(informers, inner.config.node_name.clone(), Arc::clone(inner) as Arc<dyn Sink>, shutdown.clone()));
        // The handle is not kept: nothing is asked here, the kernel tells.
        let (connection, _, changes) = rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Ifaddr])
            .map_err(|source| StartError::System { what: "listen for changes of addresses".into(), source })?;
        tokio::spawn(follow_addresses(Arc::clone(inner), connection, changes, shutdown));
        Ok(Arc::new(dataplane))
    }

    /// Everything but what needs the API server: pods reach each other, and Services as an earlier process left them.
    async fn open(config: Config) -> Result<Dataplane, StartError> {
        let opened = blocking(move || Inner::open(config, style())).await;
        let inner = opened.map_err(|source| StartError::System { what: "start".into(), source })??;
        Ok(Dataplane { inner: Arc::new(inner) })
    }

    /// The node's address in its pod range; DNS and others that serve pods from the node listen on it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.wiring.node
    }
}

impl Inner {
    fn open(config: Config, style: Style) -> Result<Inner, StartError> {
        let gateway = config.check().map_err(StartError::Config)?;
        let system = |what: String| move |source| StartError::System { what, source };
        let pins = Pins::of(&config.cluster_id);
        let programs = object::load(&pins)?;
        let mut tables = Tables::open(&pins.maps)?;
        let book = Book::open(&config.state_dir, config.pod_cidr).map_err(system(format!("open {}", config.state_dir.display())))?;
        let mut netlink = Netlink::open().map_err(system("open netlink".into()))?;
        tables.set_node(this_node(&mut netlink, &config).map_err(system("read the node's network namespace".into()))?)?;
        node::prepare(&mut netlink, &config, gateway)?;
        tables.set_node_addresses(&node::addresses(&mut netlink)?)?;
        let uplink = node::uplink(&mut netlink, config.node_ip)?;
        let cgroup = node::cgroup(&config)?;
        attach::to_cgroup(&pins, &programs, &cgroup).map_err(system(format!("attach socket hooks to {}", cgroup.display())))?;
        if let Some(uplink) = uplink.as_ref().filter(|_| config.root_hooks) {
            attach::to_link(&mut netlink, &pins, style, &programs, attach::OF_UPLINK, UPLINK_PIN, uplink.index)
                .map_err(system(format!("attach to the interface of {}", config.node_ip)))?;
        }
        let mtu = uplink.map_or(DEFAULT_MTU, |uplink| uplink.mtu.min(MAX_MTU));
        let wiring = Wiring { cluster_id: config.cluster_id.clone(), pins, node: gateway, mtu };
        let mut maps = Maps { ledger: Ledger::default(), tables };
        maps.adopt(&book)?;
        let dataplane = Self { config, wiring, programs, book: Mutex::new(book), maps: Mutex::new(maps) };
        dataplane.renew_links()?;
        Ok(dataplane)
    }

    /// Links of pods that an older build left get this build's programs, then the older ones go.
    fn renew_links(&self) -> Result<(), StartError> {
        if self.programs.fresh {
            for record in self.book().records() {
                self.wiring
                    .renew(&self.programs, &record.sandbox)
                    .map_err(|error| wire_failure(error, |what, source| StartError::System { what, source }))?;
            }
        }
        let what = format!("remove other builds' programs in {}", self.wiring.pins.root.display());
        object::remove_others(&self.wiring.pins).map_err(|source| StartError::System { what, source })
    }

    fn attach(&self, request: &PodRequest) -> Result<Attachment, AttachError> {
        let mut book = self.book();
        let record = book.enter(request)?;
        self.wire(&record, &book)?;
        Ok(book.attachment(&record))
    }

    fn wire(&self, record: &Record, book: &Book) -> Result<(), AttachError> {
        let system = |what, source| AttachError::System { what, source };
        let Some(ip) = record.addresses.first().copied() else {
            return Err(system(format!("sandbox {} has no address", record.sandbox), io::ErrorKind::InvalidData.into()));
        };
        let netns = book.netns(&record.sandbox);
        let wired = self.wiring.connect(&self.programs, &record.sandbox, ip, &netns).map_err(|error| wire_failure(error, system))?;
        let mut maps = self.maps();
        let failed = |error: TableError| system(format!("write down sandbox {}", record.sandbox), error.into());
        maps.tables.put_pod(ip, wired.pod, wired.netns).map_err(failed)?;
        maps.set(&Owner::Sandbox(record.sandbox.clone()), desired::host_ports(&record.host_ports, ip)).map_err(failed)
    }

    fn detach(&self, sandbox: &str) -> Result<(), AttachError> {
        let system = |what, source| AttachError::System { what, source };
        let mut book = self.book();
        let Some(record) = book.get(sandbox).cloned() else { return Ok(()) };
        {
            let mut maps = self.maps();
            let failed = |error: TableError| system(format!("strike out sandbox {sandbox}"), error.into());
            maps.set(&Owner::Sandbox(sandbox.to_owned()), BTreeMap::new()).map_err(failed)?;
            for ip in &record.addresses {
                maps.tables.drop_pod(*ip).map_err(failed)?;
            }
        }
        self.wiring.disconnect(sandbox, &book.netns(sandbox)).map_err(|error| wire_failure(error, system))?;
        book.strike(sandbox).map_err(|source| system(format!("strike out sandbox {sandbox}"), source))
    }

    fn renew_addresses(&self) -> Result<(), StartError> {
        let mut netlink = Netlink::open().map_err(|source| StartError::System { what: "open netlink".into(), source })?;
        let addresses = node::addresses(&mut netlink)?;
        Ok(self.maps().tables.set_node_addresses(&addresses)?)
    }

    // A panic elsewhere leaves book and maps as their files and kernel maps are; nothing is half done in memory.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    /// Begins with what the maps hold, mended; forgets pods that are in no book.
    fn adopt(&mut self, book: &Book) -> Result<(), TableError> {
        self.reread()?;
        for record in book.records() {
            if let Some(ip) = record.addresses.first() {
                self.set(&Owner::Sandbox(record.sandbox.clone()), desired::host_ports(&record.host_ports, *ip))?;
            }
        }
        let known: Vec<_> = book.records().flat_map(|record| record.addresses.iter().map(|ip| (address(*ip), *ip))).collect();
        for stale in self.tables.pods()?.into_iter().filter(|pod| !known.iter().any(|(address, _)| address == pod)) {
            self.tables.drop_pod(IpAddr::V4(Ipv4Addr::from(stale[3].to_ne_bytes())))?;
        }
        Ok(())
    }

    fn set(&mut self, owner: &Owner, wanted: BTreeMap<Frontend, Desired>) -> Result<(), TableError> {
        let ops = self.ledger.set(owner, wanted);
        self.apply(&ops)
    }

    fn apply(&mut self, ops: &[Op]) -> Result<(), TableError> {
        let result = ops.iter().try_for_each(|op| self.tables.apply(op));
        if result.is_err() {
            // The memory is ahead of the maps: go back to what they say.
            self.reread()?;
        }
        result
    }

    fn reread(&mut self) -> Result<(), TableError> {
        let dump = self.tables.dump()?;
        let mend = self.ledger.adopt(&dump);
        mend.iter().try_for_each(|op| self.tables.apply(op))
    }
}

impl Sink for Inner {
    fn set(&self, owner: &Owner, wanted: BTreeMap<Frontend, Desired>) -> Result<(), TableError> {
        self.maps().set(owner, wanted)
    }

    fn complete(&self) -> Result<(), TableError> {
        let mut maps = self.maps();
        let ops = maps.ledger.prune();
        maps.apply(&ops)
    }
}

#[async_trait]
impl PodNetwork for Dataplane {
    async fn attach(&self, pod: &PodRequest) -> Result<Attachment, AttachError> {
        let (inner, pod) = (Arc::clone(&self.inner), pod.clone());
        blocking(move || inner.attach(&pod)).await.map_err(|source| AttachError::System { what: "attach".into(), source })?
    }

    async fn detach(&self, sandbox: &str) -> Result<(), AttachError> {
        let (inner, sandbox) = (Arc::clone(&self.inner), sandbox.to_owned());
        blocking(move || inner.detach(&sandbox)).await.map_err(|source| AttachError::System { what: "detach".into(), source })?
    }

    async fn attachments(&self) -> Result<Vec<Attachment>, AttachError> {
        let inner = Arc::clone(&self.inner);
        // The book may be held for as long as an attachment takes.
        let list = move || {
            let book = inner.book();
            book.records().map(|record| book.attachment(record)).collect()
        };
        blocking(list).await.map_err(|source| AttachError::System { what: "list attachments".into(), source })
    }
}

/// Nothing is read of what the kernel tells: a look at the whole follows, also when it says that something was lost. While that look lasts the
/// connection rests, so that what waits is bounded by its socket's buffer.
async fn follow_addresses<M>(
    inner: Arc<Inner>,
    mut connection: impl Future<Output = ()> + Unpin,
    mut changes: impl Stream<Item = M> + Unpin,
    shutdown: CancellationToken,
) {
    loop {
        // The first time too: an address may have come since the start looked.
        let inner = Arc::clone(&inner);
        match blocking(move || inner.renew_addresses()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the node's addresses changed, and the dataplane does not know them all"
                );
            }
            Err(_) => return,
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = &mut connection => {
                tracing::error!("the kernel no longer tells of changed addresses: node ports on new ones are not served until a restart");
                return;
            }
            Some(_) = changes.next() => while changes.next().now_or_never().flatten().is_some() {},
        }
    }
}

fn this_node(netlink: &mut Netlink, config: &Config) -> io::Result<Node> {
    let mut services_mask = [u32::MAX; 4];
    if let IpNet::V4(services) = config.service_cidr {
        services_mask[3] = u32::from(services.netmask()).to_be();
    }
    Ok(Node {
        netns: netlink.netns_cookie()?,
        services: address(config.service_cidr.network()),
        services_mask,
        hairpin: address(GATEWAY.into()),
    })
}

/// How programs get onto the uplink, which others use too: TCX where the kernel has it.
fn style() -> Style {
    match aya::util::KernelVersion::current() {
        Ok(version) if version >= aya::util::KernelVersion::new(6, 6, 0) => Style::Tcx,
        _ => Style::Clsact,
    }
}

fn wire_failure<E>(error: WireError, make: impl FnOnce(String, io::Error) -> E) -> E {
    let what = error.to_string();
    make(what, error.source)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
