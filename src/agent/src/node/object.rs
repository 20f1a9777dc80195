//! The Node object: as it is created, and its status. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use coracle_api::quantity::Quantity;
use coracle_runtime::Image;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::{
        api::resource::Quantity as Text,
        apis::meta::v1::{ObjectMeta, Time},
    },
};

use crate::{
    config::Config, eviction::pressure::Pressure, node::machine::architecture, pod::admit::NodeFacts, resources, resources::Amounts,
};

/// Images that the status lists, the largest first: upstream's figure.
const IMAGES: usize = 50;
/// Names of an image in that list.
const IMAGE_NAMES: usize = 5;

/// Labels that every node has.
pub fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut out = config.labels.clone();
    for (key, value) in
        [("kubernetes.io/hostname", config.node_name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", architecture())]
    {
        out.insert(key.to_owned(), value.to_owned());
        out.insert(key.replace("kubernetes.io", "beta.kubernetes.io"), value.to_owned());
    }
    out.remove("beta.kubernetes.io/hostname");
    out
}

/// The object as it is created.
pub fn node(config: &Config) -> Node {
    Node {
        metadata: ObjectMeta { name: Some(config.node_name.clone()), labels: Some(labels(config)), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            pod_cidr: config.pod_cidr.clone(),
            pod_cidrs: config.pod_cidr.clone().map(|c| vec![c]),
            taints: Some(config.taints.clone()).filter(|t| !t.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// What the status is drawn from.
#[derive(Clone, Debug)]
pub struct Sight<'a> {
    /// As configured.
    pub config: &'a Config,
    /// Of the machine, with `pods`.
    pub capacity: &'a Amounts,
    /// What pods may take of it.
    pub allocatable: &'a Amounts,
    /// The machine.
    pub info: &'a NodeSystemInfo,
    /// Where the node's server listens.
    pub port: u16,
    /// What is short.
    pub pressure: Pressure,
    /// What was pulled or imported.
    pub images: &'a [Image],
}

/// The status now; transition times come from the one before.
pub fn status(sight: &Sight<'_>, before: &NodeStatus, now: Timestamp) -> NodeStatus {
    let Pressure { memory, disk, pids } = sight.pressure;
    let conditions = [
        ("MemoryPressure", memory, if memory { "KubeletHasInsufficientMemory" } else { "KubeletHasSufficientMemory" }),
        ("DiskPressure", disk, if disk { "KubeletHasDiskPressure" } else { "KubeletHasNoDiskPressure" }),
        ("PIDPressure", pids, if pids { "KubeletHasInsufficientPID" } else { "KubeletHasSufficientPID" }),
        ("Ready", true, "KubeletReady"),
    ];
    let conditions = conditions.map(|(kind, on, reason)| condition(kind, on, reason, before, now));
    let texts = |amounts: &Amounts| amounts.iter().map(|(k, v)| (k.clone(), Text(v.to_string()))).collect();
    NodeStatus {
        addresses: Some(addresses(&sight.config.node_ips, &sight.config.node_name)),
        capacity: Some(texts(sight.capacity)),
        allocatable: Some(texts(sight.allocatable)),
        conditions: Some(conditions.into()),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: sight.port.into() }) }),
        images: Some(images(sight.images)),
        node_info: Some(sight.info.clone()),
        ..NodeStatus::default()
    }
}

fn condition(kind: &str, on: bool, reason: &str, before: &NodeStatus, now: Timestamp) -> NodeCondition {
    let status = if on { "True" } else { "False" };
    let old = before.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == status);
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(if kind == "Ready" { "the node is ready to run pods".to_owned() } else { reason.to_owned() }),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: old.and_then(|o| o.last_transition_time.clone()).or(Some(Time(now))),
    }
}

/// Whether two statuses differ in more than heartbeats.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |s: &NodeStatus| {
        let mut s = s.clone();
        for condition in s.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        s
    };
    still(a) != still(b)
}

fn addresses(ips: &[IpAddr], name: &str) -> Vec<NodeAddress> {
    let internal = ips.iter().map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() });
    internal.chain([NodeAddress { type_: "Hostname".to_owned(), address: name.to_owned() }]).collect()
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let list = images.into_iter().take(IMAGES).map(|i| ContainerImage {
        names: Some(i.digests.iter().chain(&i.tags).take(IMAGE_NAMES).cloned().collect()),
        size_bytes: i64::try_from(i.size).ok(),
    });
    list.collect()
}

/// What admission goes by, as the node's object has it now; resources that others wrote into its status count beside the machine's `own`.
pub fn facts(node: &Node, own: &Amounts, before: &NodeFacts) -> NodeFacts {
    let written = resources::amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    let mut allocatable = own.clone();
    allocatable.extend(written.into_iter().filter(|(name, _)| resources::is_extended(name)));
    NodeFacts {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        taints: node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
        allocatable,
        ..before.clone()
    }
}

/// Capacity without what is reserved for others than pods.
pub fn allocatable(capacity: &Amounts, reserved: &BTreeMap<String, String>) -> Amounts {
    let mut out = capacity.clone();
    for (name, amount) in reserved {
        if let (Some(have), Ok(amount)) = (out.get_mut(name), amount.parse::<Quantity>()) {
            *have = have.minus(amount).max(Quantity::from_units(0));
        }
    }
    out
}
