//! One pure plan per controller, one runner that feeds, executes and records them.

pub mod backends;
pub mod config;
pub mod deployment;
pub mod endpointslice;
pub mod execute;
pub mod merge;
#[cfg(test)]
mod model;
pub mod owner;
pub mod plan;
pub mod pods;
pub mod queue;
pub mod record;
pub mod replicaset;
pub mod runner;
pub mod waiting;
pub mod writer;

pub use config::Config;

use std::sync::Arc;

use coracle_client::{Informers, Recorder};
use jiff::Timestamp;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use runner::{Controller, Runner, Wakeups};
use writer::ApiWriter;

/// Why the controllers cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// a controller ended by itself
    #[error("a controller ended by itself")]
    Ended(#[source] tokio::task::JoinError),
}

/// Runs all controllers until `shutdown`. The informers are shared with the other roles of the process.
pub async fn run(client: Client, informers: Informers, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let mut tasks = JoinSet::new();
    let house = House { client, informers, config, shutdown };
    house.start(&mut tasks, "replicaset-controller", replicaset::ReplicaSets::new);
    house.start(&mut tasks, "deployment-controller", deployment::Deployments::new);
    house.start(&mut tasks, "endpoint-slice-controller", endpointslice::EndpointSlices::new);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            house.shutdown.cancel();
            return Err(RunError::Ended(error));
        }
    }
    Ok(())
}

/// What all controllers share.
struct House {
    client: Client,
    informers: Informers,
    config: Config,
    shutdown: CancellationToken,
}

impl House {
    /// Starts a controller; `component` is its name in Events.
    fn start<C: Controller>(&self, tasks: &mut JoinSet<()>, component: &'static str, make: impl FnOnce(&Informers, &Wakeups) -> C) {
        let wakeups = Wakeups::default();
        let controller = Arc::new(make(&self.informers, &wakeups));
        let runner = Runner {
            controller,
            wakeups,
            writer: Arc::new(ApiWriter::new(self.client.clone())),
            tell: Arc::new(Recorder::new(self.client.clone(), component, "")),
            clock: Arc::new(Timestamp::now),
            records: self.config.records.clone(),
            resync: self.config.resync,
        };
        tasks.spawn(runner.run(self.shutdown.clone()));
    }
}
