//! The node agent: pod lifecycle state machine, probes, volumes, logs, exec and port-forward server.
//!
//! It talks to the API only through `kube::Client`, to containers only through `PodRuntime`, to the network only through `PodNetwork`.
//! Stopping it stops no pod: the next agent on the same data directory adopts what runs.

pub mod certificate;
pub mod config;
pub mod container;
pub mod context;
pub mod devices;
pub mod eviction;
pub mod images;
pub mod logs;
pub mod node;
pub mod objects;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod resources;
pub mod server;
pub mod shutdown;
pub mod statics;
pub mod stats;
pub mod volume;

use std::{net::SocketAddr, sync::Arc};

use coracle_api::quantity::Quantity;
use coracle_client::{EventType, Recorder};
use coracle_network::PodNetwork;
use coracle_runtime::PodRuntime;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::Config;

use context::Context;
use eviction::pressure::Pressure;
use node::run::NodeTask;
use pod::admit::NodeFacts;
use pods::{Pods, Remains};
use resources::limits;
use shutdown::Shutdown;
use statics::directory::Directory;

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// cannot listen
    #[error("cannot listen for the API server on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// cannot make a directory
    #[error("cannot make {path}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// the runtime does not tell what runs
    #[error("the container runtime does not tell what runs")]
    Runtime(#[source] coracle_runtime::RuntimeError),
    /// images cannot be brought
    #[error("images cannot be brought to the node")]
    Images(#[source] images::OpenError),
    /// the network does not tell what is attached
    #[error("the pod network does not tell what is attached")]
    Network(#[source] coracle_network::AttachError),
}

/// A running node agent.
#[derive(Debug)]
pub struct Agent {
    address: SocketAddr,
    tasks: TaskTracker,
}

impl Agent {
    /// Adopts what runs, registers the node and serves it until `shutdown`. Returns when the node's server listens; the node becomes
    /// Ready in the background (the API may not be there yet).
    pub async fn start(
        config: Config,
        client: kube::Client,
        runtime: Arc<dyn PodRuntime>,
        network: Arc<dyn PodNetwork>,
        shutdown: CancellationToken,
    ) -> Result<Agent, StartError> {
        for path in [config.data_dir.join("agent/pods"), config.log_root.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| StartError::Directory { path, source })?;
        }
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let remains = Remains::new(
            runtime.sandboxes().await.map_err(StartError::Runtime)?,
            network.attachments().await.map_err(StartError::Network)?,
        );
        let images = images::Images::open(&config.images, &config.data_dir.join("agent"), &*runtime).await.map_err(StartError::Images)?;
        let machine = node::machine::read(&config.data_dir);
        let mut capacity = machine.capacity.clone();
        capacity.insert("pods".to_owned(), Quantity::from_units(config.max_pods.into()));
        let node_pids = eviction::signals::read(&config.data_dir, None).pids.capacity;
        let of_pods = limits::of_all_pods(&capacity, &config.reserved, Some(node_pids).filter(|n| *n > 0));
        let enforced = match coracle_runtime::group::limit(&limits::pods_cgroup(&config.cgroup_root), of_pods.as_ref()) {
            Ok(()) => (EventType::Normal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods".to_owned()),
            Err(error) => {
                tracing::warn!(%error, "what is reserved is not kept from pods by the kernel");
                (EventType::Warning, "FailedNodeAllocatableEnforcement", format!("Failed to update Node Allocatable Limits: {error}"))
            }
        };
        let meters = Arc::<stats::meters::Meters>::default();
        let runtime = Arc::new(stats::measured::Measured { runtime, meters: meters.clone() });
        let allocatable = node::object::allocatable(&capacity, &config.reserved, &config.eviction);
        let config = Arc::new(config);
        let devices = Arc::new(devices::Devices::open(&config.root_dir, jiff::Timestamp::now()).counted(meters.clone()));
        let ctx = Context {
            recorder: Recorder::new(client.clone(), "kubelet", config.node_name.as_str()),
            objects: objects::Objects::new(client.clone()),
            images: Arc::new(images),
            health: Arc::default(),
            ledger: Arc::default(),
            devices: devices.clone(),
            probes: Arc::default(),
            rates: Arc::default(),
            volumes: Arc::default(),
            meters,
            memory_bytes: machine.memory_bytes,
            allocatable: Arc::new(allocatable.clone()),
            config: config.clone(),
            client,
            runtime,
            network,
        };
        let (facts, node) = watch::channel(NodeFacts {
            name: config.node_name.clone(),
            labels: node::object::labels(&config),
            taints: Vec::new(),
            allocatable,
            pressure: Pressure::default(),
            allowed_sysctls: config.allowed_sysctls.clone(),
            apparmor: coracle_runtime::apparmor::is_enabled(),
        });
        let pods = Pods::new(ctx.clone(), node, shutdown.clone());
        let tasks = TaskTracker::new();
        let (pressed, pressure) = watch::channel(Pressure::default());
        let task =
            NodeTask { ctx: ctx.clone(), machine, capacity, port: address.port(), enforced, facts, pressure, stop: shutdown.clone() };
        tasks.spawn(task.run());
        let protects = ctx.config.memory_throttling_factor.is_some();
        tasks.spawn(resources::classes::keep(ctx.ledger.clone(), ctx.config.cgroup_root.clone(), protects, shutdown.clone()));
        tasks.spawn(pods.clone().run(remains, manifests(&ctx.config)));
        let watch = eviction::Watch { ctx: ctx.clone(), pods: pods.clone(), told: pressed, stop: shutdown.clone() };
        tasks.spawn(watch.run());
        if !ctx.config.shutdown.is_empty() {
            tasks.spawn(Shutdown { ctx: ctx.clone(), pods: pods.clone(), stop: shutdown.clone() }.run());
        }
        for certificate in ctx.config.certificates.clone() {
            tasks.spawn(certificate.keep(ctx.config.node_name.clone(), ctx.client.clone(), ctx.meters.clone(), shutdown.clone()));
        }
        tasks.spawn(eviction::oom::watch(ctx.recorder.clone(), ctx.config.node_name.clone(), shutdown.clone()));
        tasks.spawn(devices.clone().serve(shutdown.clone()));
        tasks.spawn(devices::podresources::serve(ctx.config.root_dir.clone(), devices, pods.clone(), shutdown.clone()));
        tasks.spawn(server::serve(ctx, pods, listener, shutdown));
        tasks.close();
        Ok(Agent { address, tasks })
    }

    /// Where the node's own HTTPS server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the agent has ended after `shutdown`; its pods go on.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// The directory of manifests, if there is one. A node without it still runs the pods of the API.
fn manifests(config: &Config) -> Option<Directory> {
    let path = config.pod_manifest_path.clone()?;
    let opened = Directory::open(path.clone(), config.node_name.clone());
    opened.inspect_err(|error| tracing::error!(%error, path = %path.display(), "no static pods: the manifests cannot be watched")).ok()
}
