//! The dataplane's user space: IPAM, links, services; loads the eBPF object.

pub mod config;
pub mod dataplane;
mod kernel;
mod netlink;
mod node;
mod pods;
pub mod probe;
mod services;
mod teardown;

use std::{fmt, net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use config::Config;
pub use dataplane::{Dataplane, StartError};
pub use probe::{Finding, probe};
pub use teardown::{TeardownError, teardown};

/// What a pod needs of the network, known before its sandbox exists.
#[derive(Clone, Debug)]
pub struct PodRequest {
    /// The sandbox's id; names the attachment from now on.
    pub sandbox: String,
    /// Namespace, name and uid of the pod.
    pub namespace: String,
    /// Of the pod.
    pub name: String,
    /// Of the pod.
    pub uid: String,
    /// Host ports to open: (protocol `TCP`|`UDP`|`SCTP`, host address, host port, container port).
    pub host_ports: Vec<HostPort>,
}

/// A container port that is open on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Address on the node; unspecified is all.
    pub host_ip: IpAddr,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
}

/// A pod's place in the network.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The sandbox's id.
    pub sandbox: String,
    /// Uid of the pod.
    pub uid: String,
    /// The network namespace, bind-mounted here; the runtime joins it by this path.
    pub netns: PathBuf,
    /// Addresses, one per family; the first is `status.podIP`.
    pub addresses: Vec<IpAddr>,
}

/// Why a pod got no network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// no address is free in {0}
    #[error("no address is free in {0}")]
    Exhausted(String),
    /// host port {port}/{protocol} is taken by pod {by}
    #[error("host port {port}/{protocol} is taken by pod {by}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: String,
        /// Uid of its holder.
        by: String,
    },
    /// {what}
    #[error("{what}")]
    System {
        /// What was tried, on which link, path or address.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Gives pods their place in the network. All calls are idempotent; attachments survive restarts of the process.
#[async_trait]
pub trait PodNetwork: Send + Sync + fmt::Debug + 'static {
    /// Makes the namespace, the link, the address and the dataplane's entries; returns what is there already for a known sandbox.
    async fn attach(&self, pod: &PodRequest) -> Result<Attachment, AttachError>;
    /// Takes all of it down; an unknown sandbox is no error.
    async fn detach(&self, sandbox: &str) -> Result<(), AttachError>;
    /// All attachments of this node's cluster, also those made before a restart.
    async fn attachments(&self) -> Result<Vec<Attachment>, AttachError>;
}
