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
pub mod volumes;

use std::sync::Arc;

use coracle_runtime::{ContainerState, ContainerStats, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{context::Context, pods::Pods, resources::limits};

/// A container that runs.
#[derive(Debug)]
pub struct ContainerUse {
    /// `spec.containers[].name`.
    pub name: String,
    /// What its runtime calls it.
    pub id: String,
    /// Its cgroup, as a path below the root of the hierarchies.
    pub cgroup: String,
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

/// What all of a pod runs in.
#[derive(Debug)]
pub struct SandboxUse {
    /// Its id.
    pub id: String,
    /// Its cgroup, as a path below the root of the hierarchies.
    pub cgroup: String,
    /// What it uses, with all that ran in it before; not every runtime says.
    pub stats: Option<ContainerStats>,
    /// When that was read.
    pub at: Timestamp,
}

/// A pod with what runs of it.
#[derive(Debug)]
pub struct PodUse {
    /// It.
    pub pod: Arc<Pod>,
    /// Its containers that run.
    pub containers: Vec<ContainerUse>,
    /// What they run in.
    pub sandbox: Option<SandboxUse>,
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
        let cgroup = limits::pod_cgroup(&ctx.config.cgroup_root, pod.spec.as_ref(), crate::pod::spec::uid(&pod));
        for (name, (id, ..)) in facts.runs.into_iter().filter(|(_, (.., alive))| *alive) {
            // One that ends meanwhile is not told of.
            let (Ok(status), Ok(stats)) = (ctx.runtime.container(&id).await, ctx.runtime.stats(&id).await) else { continue };
            let log_bytes = crate::logs::bytes(&ctx.log_dir(&pod).join(&name));
            let id = called(ctx, &id.id);
            containers.push(ContainerUse { cgroup: format!("{cgroup}/{id}"), name, id, status, stats, log_bytes, at: Timestamp::now() });
        }
        let inside = containers.iter().find_map(|c| c.status.pid).filter(|_| !crate::pod::spec::host_network(&pod));
        let sandbox = match facts.sandbox {
            Some(sandbox) => Some(SandboxUse {
                cgroup,
                stats: ctx.runtime.sandbox_stats(&sandbox.id).await.ok().flatten(),
                at: Timestamp::now(),
                id: sandbox.id,
            }),
            None => None,
        };
        out.push(PodUse { pod, network: inside.and_then(network::of_process), containers, sandbox });
    }
    out.sort_by_key(|p| (p.pod.metadata.namespace.clone(), p.pod.metadata.name.clone()));
    out
}

/// What the runtime itself calls a container of ours: its cgroup has that name, too.
fn called(ctx: &Context, id: &str) -> String {
    let shown = ctx.runtime.naming().map(|naming| naming.shown(id));
    shown.as_deref().and_then(|shown| Some(shown.split_once("://")?.1)).unwrap_or(id).to_owned()
}
