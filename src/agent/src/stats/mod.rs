//! What the node's pods use, for those who ask the node's server: the summary API and the texts that Prometheus reads.

pub mod cadvisor;
pub mod measured;
pub mod meters;
pub mod network;
pub mod node;
pub mod probes;
pub mod rate;
pub mod resource;
pub mod summary;
pub mod text;

use std::sync::Arc;

use coracle_runtime::{ContainerState, ContainerStats, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{context::Context, pods::Pods};

/// A container that runs.
#[derive(Debug)]
pub struct ContainerUse {
    /// `spec.containers[].name`.
    pub name: String,
    /// As the runtime has it.
    pub status: ContainerStatus,
    /// What it uses.
    pub stats: ContainerStats,
    /// Bytes of its logs.
    pub log_bytes: u64,
    /// When that was read.
    pub at: Timestamp,
}

impl ContainerUse {
    /// When it began.
    pub fn started_at(&self) -> Timestamp {
        match self.status.state {
            ContainerState::Running { started_at } => started_at,
            _ => self.status.created_at,
        }
    }
}

/// A pod with what runs of it.
#[derive(Debug)]
pub struct PodUse {
    /// It.
    pub pod: Arc<Pod>,
    /// Its containers that run.
    pub containers: Vec<ContainerUse>,
    /// What went over its interface; nothing is known of one in the node's network.
    pub network: Option<network::Traffic>,
}

impl PodUse {
    /// All containers together.
    pub fn sum(&self) -> ContainerStats {
        self.containers.iter().fold(ContainerStats::default(), |mut sum, c| {
            sum.cpu_nanoseconds += c.stats.cpu_nanoseconds;
            sum.memory_working_set += c.stats.memory_working_set;
            sum.memory_usage += c.stats.memory_usage;
            sum.memory_rss += c.stats.memory_rss;
            sum.pids += c.stats.pids;
            sum.rootfs_bytes += c.stats.rootfs_bytes;
            sum
        })
    }
}

/// Reads what all pods use.
pub async fn read(ctx: &Context, pods: &Pods) -> Vec<PodUse> {
    let mut out = Vec::new();
    for (pod, facts) in pods.list() {
        let mut containers = Vec::new();
        for (name, (id, ..)) in facts.runs.into_iter().filter(|(_, (.., alive))| *alive) {
            // One that ends meanwhile is not told of.
            let (Ok(status), Ok(stats)) = (ctx.runtime.container(&id).await, ctx.runtime.stats(&id).await) else { continue };
            let log_bytes = crate::logs::bytes(&ctx.log_dir(&pod).join(&name));
            containers.push(ContainerUse { name, status, stats, log_bytes, at: Timestamp::now() });
        }
        let inside = containers.iter().find_map(|c| c.status.pid).filter(|_| !crate::pod::spec::host_network(&pod));
        out.push(PodUse { pod, network: inside.and_then(network::of_process), containers });
    }
    out.sort_by_key(|p| (p.pod.metadata.namespace.clone(), p.pod.metadata.name.clone()));
    out
}
