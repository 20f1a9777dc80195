//! The API server's life: start, address, readiness, shutdown.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use coracle_pki::authority::Authority;
use coracle_store::Store;

use crate::{local::Local, request::User};

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's authorities: made by `Authority::open(<data dir>/server/tls)`, and shared with the node's server.
    pub authority: Arc<Authority>,
    /// Where to listen.
    pub bind_address: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
    /// What pods reach the server by: the endpoint of the `kubernetes` Service.
    pub advertise_address: IpAddr,
    /// `10.43.0.0/16`.
    pub service_cidr: String,
    /// 30000 to 32767.
    pub node_ports: RangeInclusive<u16>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Further names and addresses of the serving certificate.
    pub tls_sans: Vec<String>,
    /// A bearer token with the rights of `system:masters`, if any.
    pub bootstrap_token: Option<String>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody listens.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {}

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl ApiServer {
    /// Opens the registry over the store, creates what every cluster has, and listens.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let _ = (config, store);
        todo!()
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server as this user sees it, without a socket.
    pub fn local(&self, user: User) -> Local {
        Local { shared: Arc::clone(&self.shared), user }
    }

    /// Whether `/readyz` says ok: the registry serves and the objects of every cluster exist.
    pub fn ready(&self) -> bool {
        false
    }

    /// Takes no new connections, ends watches, lets requests finish for a bounded time.
    pub async fn shutdown(self) {}
}
