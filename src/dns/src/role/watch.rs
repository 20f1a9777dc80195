//! Follows what DNS must know in the cluster, and tells the resident. A wake-up says what to look at, and nothing else.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use coracle_client::{Informer, Informers, Key, pod::Pod};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use tokio::sync::Notify;

use super::{plan, process::Talk};
use crate::records::Change;

/// Index of EndpointSlices by their Service.
const BY_SERVICE: &str = "dns/service";
/// Index of pods by their addresses.
const BY_ADDRESS: &str = "dns/address";
/// Says which Service an EndpointSlice belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Service(Key),
    Namespace(Key),
    Pod(IpAddr),
}

/// Each thing waits at most once, so that they are no more than there are objects.
#[derive(Debug, Default)]
struct Wakeups {
    waiting: Mutex<BTreeSet<Wake>>,
    ring: Notify,
}

impl Wakeups {
    fn push(&self, wakes: impl IntoIterator<Item = Wake>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(wakes);
        self.ring.notify_one();
    }

    fn take(&self) -> BTreeSet<Wake> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The cluster as the informers see it, and the table made of it.
pub struct Sight {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    wakeups: Arc<Wakeups>,
    table: plan::Table,
}

impl Sight {
    /// Looks from now on.
    pub fn new(informers: &Informers) -> Self {
        let sight = Self {
            services: informers.of(),
            slices: informers.of(),
            namespaces: informers.of(),
            pods: informers.of(),
            wakeups: Arc::default(),
            table: plan::Table::default(),
        };
        sight.slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        sight.pods.index(BY_ADDRESS, |pod| plan::addresses(pod).iter().map(IpAddr::to_string).collect());
        let wakeups = sight.wakeups.clone();
        sight.services.observe(move |old, new| wakeups.push(new.or(old).map(|service| Wake::Service(Key::of(&**service)))));
        let wakeups = sight.wakeups.clone();
        sight.slices.observe(move |old, new| {
            wakeups.push([old, new].into_iter().flatten().filter_map(|slice| service_of(slice)).map(Wake::Service))
        });
        let wakeups = sight.wakeups.clone();
        sight.namespaces.observe(move |old, new| wakeups.push(new.or(old).map(|namespace| Wake::Namespace(Key::of(&**namespace)))));
        let wakeups = sight.wakeups.clone();
        sight.pods.observe(move |old, new| {
            let [old, new] = [old, new].map(|pod| pod.map(|pod| plan::addresses(pod)).unwrap_or_default());
            // Most changes of a pod leave its addresses alone.
            if old != new {
                wakeups.push(old.union(&new).copied().map(Wake::Pod));
            }
        });
        sight
    }

    /// Tells the resident everything, calls `told`, then tells each change. Until all lists are known nothing is told, so that what the
    /// resident knows from before stays in force.
    pub async fn tell(&mut self, resident: &mut Talk, told: impl FnOnce()) -> io::Result<Infallible> {
        tokio::join!(self.services.synced(), self.slices.synced(), self.namespaces.synced(), self.pods.synced());
        self.settle();
        resident.tell(vec![Change::All(Box::new(self.table.records().clone()))]).await?;
        told();
        loop {
            self.wakeups.ring.notified().await;
            let changes = self.settle();
            if !changes.is_empty() {
                resident.tell(changes).await?;
            }
        }
    }

    /// Brings the table up to date; returns the steps.
    fn settle(&mut self) -> Vec<Change> {
        self.wakeups.take().into_iter().filter_map(|wake| self.look(wake)).collect()
    }

    fn look(&mut self, wake: Wake) -> Option<Change> {
        match wake {
            Wake::Service(key) => {
                let service = self.services.lister().get(&key).map(|service| {
                    let slices = self.slices.lister().indexed(BY_SERVICE, &key.to_string());
                    plan::service(&service, slices.iter().map(AsRef::as_ref))
                });
                self.table.service(&key.namespace, &key.name, service)
            }
            Wake::Namespace(key) => self.table.namespace(&key.name, self.namespaces.lister().get(&key).is_some()),
            Wake::Pod(ip) => {
                let pods = self.pods.lister().indexed(BY_ADDRESS, &ip.to_string());
                self.table.pod(ip, plan::namespace(pods.iter().map(AsRef::as_ref)))
            }
        }
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, name.as_str()))
}
