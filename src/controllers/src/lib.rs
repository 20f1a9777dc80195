//! One pure plan per controller, one runner that feeds, executes and records them.

pub mod backends;
pub mod baseline;
pub mod bootstraptoken;
pub mod certificates;
pub mod clusterrole;
pub mod condition;
pub mod config;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod execute;
pub mod gc;
pub mod inventory;
pub mod merge;
#[cfg(test)]
mod model;
pub mod namespace;
pub mod node;
pub mod owner;
pub mod plan;
pub mod podgc;
pub mod pods;
pub mod policy;
pub mod protection;
pub mod queue;
pub mod record;
pub mod replicaset;
pub mod resourcequota;
pub mod runner;
pub mod servicecidr;
pub mod tokensecret;
pub mod waiting;
pub mod writer;

pub use config::Config;

use std::sync::Arc;

use coracle_client::{Informers, Recorder};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use inventory::Inventory;
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
    let inventory = Inventory::start(house.client.clone(), &house.shutdown);
    house.workloads(&mut tasks);
    house.nodes(&mut tasks);
    house.cluster(&mut tasks, &inventory);
    house.identities(&mut tasks);
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
    fn workloads(&self, tasks: &mut JoinSet<()>) {
        self.start(tasks, "replicaset-controller", replicaset::ReplicaSets::new);
        self.start(tasks, "replication-controller", replicaset::ReplicationControllers::new);
        self.start(tasks, "deployment-controller", deployment::Deployments::new);
        self.start(tasks, "endpoint-slice-controller", endpointslice::EndpointSlices::new);
        self.start(tasks, "endpoint-controller", endpoints::EndpointsOfServices::new);
        self.start(tasks, "endpoint-slice-mirroring-controller", endpointslicemirroring::Mirrors::new);
    }

    fn nodes(&self, tasks: &mut JoinSet<()>) {
        let grace = SignedDuration::try_from(self.config.node_grace).unwrap_or(SignedDuration::MAX);
        let prefix = |network: &IpNet| if network.addr().is_ipv4() { self.config.node_prefix_v4 } else { self.config.node_prefix_v6 };
        let networks: Vec<_> = self.config.cluster_cidrs.iter().map(|network| (*network, prefix(network))).collect();
        self.start(tasks, "node-controller", |informers, wakeups| node::run::Lifecycle::new(informers, wakeups, grace));
        self.start(tasks, "taint-eviction-controller", node::run::Evictions::new);
        self.start(tasks, "cidrAllocator", |informers, wakeups| node::run::Ipam::new(informers, wakeups, networks));
        let (client, threshold) = (self.client.clone(), self.config.terminated_pods);
        self.start(tasks, "pod-garbage-collector", |informers, wakeups| podgc::PodGc::new(client, informers, wakeups, threshold));
    }

    fn cluster(&self, tasks: &mut JoinSet<()>, inventory: &Inventory) {
        let bundle: Arc<str> = self.config.ca_bundle.as_str().into();
        self.start(tasks, "namespace-baseline", |informers, wakeups| baseline::Baseline::new(informers, wakeups, bundle));
        let (client, known) = (self.client.clone(), inventory.clone());
        self.start(tasks, "namespace-controller", |informers, wakeups| namespace::Namespaces::new(client, informers, known, wakeups));
        let client = self.client.clone();
        self.start(tasks, "validatingadmissionpolicy-status", |informers, wakeups| policy::Policies::new(client, informers, wakeups));
        let client = self.client.clone();
        self.start(tasks, "persistentvolumeclaim-protection-controller", |informers, wakeups| {
            protection::Protection::of_claims(client, informers, wakeups)
        });
        let client = self.client.clone();
        self.start(tasks, "persistentvolume-protection-controller", |informers, wakeups| {
            protection::Protection::of_volumes(client, informers, wakeups)
        });
        let client = self.client.clone();
        self.start(tasks, "volumeattributesclass-protection-controller", |informers, wakeups| {
            protection::Protection::of_classes(client, informers, wakeups)
        });
        self.start(tasks, "clusterrole-aggregation-controller", clusterrole::Aggregations::new);
        self.start(tasks, "service-cidr-controller", servicecidr::ServiceCidrs::new);
        let (client, known) = (self.client.clone(), inventory.clone());
        self.start(tasks, "disruption-controller", |informers, wakeups| disruption::Budgets::new(client, informers, known, wakeups));
        self.start(tasks, "disruption-controller", disruption::stale::StaleTargets::new);
        let (client, known) = (self.client.clone(), inventory.clone());
        self.start(tasks, "resourcequota-controller", |informers, wakeups| {
            resourcequota::ResourceQuotas::new(client, informers, known, wakeups)
        });
        let (client, known) = (self.client.clone(), inventory.clone());
        self.start(tasks, "garbage-collector-controller", |_, wakeups| gc::GarbageCollector::new(client, known, wakeups));
    }

    fn identities(&self, tasks: &mut JoinSet<()>) {
        let client = self.client.clone();
        self.start(tasks, "certificate-controller", |informers, wakeups| {
            certificates::CertificateRequests::new(client, informers, wakeups, &self.config)
        });
        if let Some(authority) = self.config.authority.clone() {
            let (client, bundle): (_, Arc<str>) = (self.client.clone(), self.config.ca_bundle.as_str().into());
            self.start(tasks, "service-account-token", |informers, wakeups| {
                tokensecret::TokenSecrets::new(client, informers, wakeups, authority, bundle)
            });
        }
        self.start(tasks, "token-cleaner", bootstraptoken::TokenCleaner::new);
        self.start(tasks, "bootstrap-signer", bootstraptoken::InfoSigner::new);
    }

    /// Starts a controller; `component` is its name in Events.
    fn start<C: Controller>(&self, tasks: &mut JoinSet<()>, component: &'static str, make: impl FnOnce(&Informers, &Wakeups) -> C) {
        let wakeups = Wakeups::default();
        let controller = Arc::new(make(&self.informers, &wakeups));
        wakeups.count(controller.name());
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
