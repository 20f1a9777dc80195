//! The dataplane of one cluster on this node: started, adopted after a restart, torn down.

use std::{io, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{AttachError, Attachment, Config, PodNetwork, PodRequest};

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
    #[error("the kernel does not take the eBPF object ({what}); `coracle doctor` says what it lacks")]
    Object {
        /// Which program or map.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// A step on the machine.
    #[error("{what}")]
    System {
        /// What was tried, on which link, path or address.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The running user space of the dataplane. The kernel side is pinned, and serves on when this ends by whatever death.
#[derive(Debug)]
pub struct Dataplane {}

impl Dataplane {
    /// Loads and pins the programs, or adopts those of an earlier process without a gap in traffic; then follows Services and EndpointSlices
    /// until `shutdown`. Does not wait for the API server: what is in the maps stays until both lists are known.
    pub async fn start(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<Arc<Dataplane>, StartError> {
        let _ = (config, client, shutdown);
        Err(StartError::Config("the dataplane is still being built".into()))
    }
}

#[async_trait]
impl PodNetwork for Dataplane {
    async fn attach(&self, _pod: &PodRequest) -> Result<Attachment, AttachError> {
        Err(AttachError::Exhausted("nothing".into()))
    }

    async fn detach(&self, _sandbox: &str) -> Result<(), AttachError> {
        Ok(())
    }

    async fn attachments(&self) -> Result<Vec<Attachment>, AttachError> {
        Ok(Vec::new())
    }
}

/// Removes all that a cluster's dataplane put on this machine: pins, links, routes, namespaces, the nftables table, `state_dir`. Works with
/// nothing running, and on a machine where there is nothing.
pub fn teardown(cluster_id: &str, state_dir: &Path) -> Result<(), TeardownError> {
    let _ = (cluster_id, state_dir);
    Ok(())
}
