//! The node agent: pod lifecycle state machine, probes, volumes, logs, exec and port-forward server.
//!
//! It talks to the API only through `kube::Client`, to containers only through `PodRuntime`, to the network only through `PodNetwork`.
//! Stopping it stops no pod: the next agent on the same data directory adopts what runs.

pub mod config;
pub mod container;
pub mod context;
pub mod eviction;
pub mod logs;
pub mod node;
pub mod objects;
pub mod pod;
pub mod pods;
pub mod probe;
mod pull_secrets;
pub mod resources;
pub mod server;
pub mod stats;
pub mod volume;

use std::{net::SocketAddr, sync::Arc};

use coracle_api::quantity::Quantity;
use coracle_client::Recorder;
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
        let machine = node::machine::read(&config.data_dir);
        let mut capacity = machine.capacity.clone();
        capacity.insert("pods".to_owned(), Quantity::from_units(config.max_pods.into()));
        let allocatable = node::object::allocatable(&capacity, &config.reserved);
        let config = Arc::new(config);
        let ctx = Context {
            recorder: Recorder::new(client.clone(), "kubelet", config.node_name.as_str()),
            objects: objects::Objects::new(client.clone()),
            ledger: Arc::default(),
            probes: Arc::default(),
            rates: Arc::default(),
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
        });
        let pods = Pods::new(ctx.clone(), node, shutdown.clone());
        let tasks = TaskTracker::new();
        let (pressed, pressure) = watch::channel(Pressure::default());
        let task = NodeTask { ctx: ctx.clone(), machine, capacity, port: address.port(), facts, pressure, stop: shutdown.clone() };
        tasks.spawn(task.run());
        tasks.spawn(pods.clone().run(remains));
        let watch = eviction::Watch { ctx: ctx.clone(), pods: pods.clone(), told: pressed, stop: shutdown.clone() };
        tasks.spawn(watch.run());
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
