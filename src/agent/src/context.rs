//! What all parts of the agent share.

use std::{path::PathBuf, sync::Arc};

use coracle_api::quantity::Quantity;
use coracle_client::{EventType, Recorder, events};
use coracle_network::PodNetwork;
use coracle_runtime::PodRuntime;
pub use coracle_runtime::causes as chain;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;

use crate::{
    config::Config,
    container::downward::Known,
    devices::Devices,
    eviction::signals::{self, Signals},
    images::Images,
    node::health::Health,
    objects::Objects,
    pod::spec,
    resources::{Amounts, ledger::Ledger},
    stats::{meters::Meters, probes::Counts, rate::Rates, volumes::Volumes},
    volume,
};

/// One agent's surroundings.
#[derive(Clone)]
pub struct Context {
    /// As started.
    pub config: Arc<Config>,
    /// The API.
    pub client: Client,
    /// Containers.
    pub runtime: Arc<dyn PodRuntime>,
    /// Pod network.
    pub network: Arc<dyn PodNetwork>,
    /// Events.
    pub recorder: Recorder,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// What opens registries, and who may use what is here.
    pub images: Arc<Images>,
    /// What keeps the node from being Ready.
    pub health: Arc<Health>,
    /// What pods were granted of it.
    pub ledger: Arc<Ledger>,
    /// What plugins bring.
    pub devices: Arc<Devices>,
    /// How often probes were asked.
    pub probes: Arc<Counts>,
    /// How fast CPU time grew when it was asked for last.
    pub rates: Arc<Rates>,
    /// What volumes took when it was asked for last.
    pub volumes: Arc<Volumes>,
    /// What is counted of the agent's own work.
    pub meters: Arc<Meters>,
    /// What pods may take of the node.
    pub allocatable: Arc<Amounts>,
    /// Bytes of memory that the node has.
    pub memory_bytes: i64,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("node", &self.config.node_name).finish_non_exhaustive()
    }
}

impl Context {
    /// Directory of a pod's volumes and files.
    pub fn pod_dir(&self, pod: &Pod) -> PathBuf {
        volume::pod_dir(&self.config.data_dir, spec::uid(pod))
    }

    /// Bytes of memory that pods may take of the node.
    pub fn node_memory(&self) -> i64 {
        self.allocatable.get("memory").map_or(self.memory_bytes, Quantity::units)
    }

    /// What is left of the node. A runtime that does not say where its images are has them where everything else is.
    pub async fn signals(&self) -> Signals {
        let images = self.runtime.image_filesystem().await.unwrap_or_default();
        signals::read(&self.config.data_dir, images.as_ref().map(|of| of.mountpoint.as_path()))
    }

    /// Directory of a pod's logs.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        self.config.log_root.join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
    }

    /// For the downward API.
    pub fn known(&self, addresses: &[std::net::IpAddr]) -> Known {
        Known { pod_ips: addresses.to_vec(), host_ips: self.config.node_ips.clone(), allocatable: (*self.allocatable).clone() }
    }

    /// Tells of the pod, or of one of its containers.
    pub fn tell(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, message: impl Into<String>) {
        let mut object = events::reference(pod);
        object.field_path = container.map(|name| field_path(pod, name));
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.recorder.event(&object, kind, reason, message.into());
    }
}

fn field_path(pod: &Pod, name: &str) -> String {
    let parts = spec::parts(pod);
    let list = match spec::part(&parts, name).map(|p| p.kind) {
        Some(spec::Kind::Init | spec::Kind::Sidecar) => "initContainers",
        Some(spec::Kind::Ephemeral) => "ephemeralContainers",
        _ => "containers",
    };
    format!("spec.{list}{{{name}}}")
}
