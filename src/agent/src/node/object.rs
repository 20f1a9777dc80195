//! The Node object: as it is created, and its status. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use coracle_api::quantity::Quantity;
use coracle_runtime::{Handler, Image};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
        NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo, ObjectReference,
    },
    apimachinery::pkg::{
        api::resource::Quantity as Text,
        apis::meta::v1::{ObjectMeta, Time},
    },
};

use crate::{
    config::Config,
    eviction::pressure::{Pressure, Settings, Signal},
    node::machine::architecture,
    pod::admit::NodeFacts,
    resources,
    resources::Amounts,
};

/// Images that the status lists, the largest first: upstream's figure.
const IMAGES: usize = 50;
/// What the names of huge pages as a resource begin with.
const HUGE_PAGES: &str = "hugepages-";
/// Names of an image in that list.
const IMAGE_NAMES: usize = 5;

/// Features of pods that not every node of 1.36 has, and this one does.
const DECLARED: &[&str] = &["InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"];

/// The node as its Events name it: by its name, for its uid, as upstream.
pub fn reference(name: &str) -> ObjectReference {
    let name = name.to_owned();
    ObjectReference { kind: Some("Node".to_owned()), uid: Some(name.clone()), name: Some(name), ..ObjectReference::default() }
}

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
    /// Why the node is not ready, if it is not.
    pub troubles: &'a [String],
    /// What was pulled or imported.
    pub images: &'a [Image],
    /// What RuntimeClasses may name.
    pub handlers: &'a [Handler],
    /// Whether it can confine pods by AppArmor.
    pub apparmor: bool,
}

/// The status now; transition times come from the one before.
pub fn status(sight: &Sight<'_>, before: &NodeStatus, now: Timestamp) -> NodeStatus {
    let Pressure { memory, disk, pids } = sight.pressure;
    let conditions = [
        ("MemoryPressure", memory, if memory { "KubeletHasInsufficientMemory" } else { "KubeletHasSufficientMemory" }),
        ("DiskPressure", disk, if disk { "KubeletHasDiskPressure" } else { "KubeletHasNoDiskPressure" }),
        ("PIDPressure", pids, if pids { "KubeletHasInsufficientPID" } else { "KubeletHasSufficientPID" }),
        ("Ready", sight.troubles.is_empty(), if sight.troubles.is_empty() { "KubeletReady" } else { "KubeletNotReady" }),
    ];
    let mut conditions = conditions.map(|(kind, on, reason)| condition(kind, on, reason, before, now));
    if let (Some(ready), false) = (conditions.last_mut(), sight.troubles.is_empty()) {
        ready.message = Some(sight.troubles.join(", "));
    } else if let (Some(message), true) = (conditions.last_mut().and_then(|ready| ready.message.as_mut()), sight.apparmor) {
        // People look for it here.
        message.push_str(". AppArmor enabled");
    }
    let texts = |amounts: &Amounts| amounts.iter().map(|(k, v)| (k.clone(), Text(v.to_string()))).collect();
    NodeStatus {
        addresses: Some(addresses(&sight.config.node_ips, &sight.config.node_name)),
        capacity: Some(texts(sight.capacity)),
        allocatable: Some(texts(sight.allocatable)),
        conditions: Some(conditions.into()),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: sight.port.into() }) }),
        images: Some(images(sight.images)),
        node_info: Some(sight.info.clone()),
        declared_features: Some(DECLARED.iter().map(|name| (*name).to_owned()).collect()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        runtime_handlers: (!sight.handlers.is_empty()).then(|| sight.handlers.iter().map(handler).collect()),
        ..NodeStatus::default()
    }
}

fn handler(handler: &Handler) -> NodeRuntimeHandler {
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(handler.recursive_read_only),
        user_namespaces: Some(handler.user_namespaces),
    };
    NodeRuntimeHandler { name: Some(handler.name.clone()), features: Some(features) }
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

/// The reasons of the Events that tell of conditions which are another than before, or are told for the first time.
pub fn changes(before: &NodeStatus, now: &NodeStatus) -> Vec<&'static str> {
    let of = |status: &NodeStatus, kind: &str| {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status != "Unknown");
        found.map(|c| c.status == "True")
    };
    let told = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let news = told.into_iter().filter_map(|(kind, yes, no)| {
        let on = of(now, kind)?;
        (of(before, kind) != Some(on)).then_some(if on { yes } else { no })
    });
    news.collect()
}

/// Whether the machine was started anew since the node's object was written last.
pub fn rebooted(before: &NodeStatus, boot_id: &str) -> bool {
    before.node_info.as_ref().is_some_and(|info| !info.boot_id.is_empty() && info.boot_id != boot_id)
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

/// Capacity without what is reserved for others than pods, what must be left of the node before pods are ended, and what is set aside
/// as huge pages.
pub fn allocatable(capacity: &Amounts, reserved: &BTreeMap<String, String>, least: &Settings) -> Amounts {
    let mut out = capacity.clone();
    let mut keep = |name: &str, amount: Quantity| {
        if let Some(have) = out.get_mut(name) {
            *have = have.minus(amount).max(Quantity::from_units(0));
        }
    };
    for (name, amount) in reserved {
        if let Ok(amount) = amount.parse::<Quantity>() {
            keep(name, amount);
        }
    }
    for (name, least) in [("memory", least.hard(Signal::Memory)), ("ephemeral-storage", least.hard(Signal::Disk))] {
        let Some(least) = least else { continue };
        let all = capacity.get(name).and_then(|q| u64::try_from(q.units()).ok()).unwrap_or(0);
        keep(name, Quantity::from_bytes(i64::try_from(least.amount(all)).unwrap_or(i64::MAX)));
    }
    for amount in capacity.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)).map(|(_, amount)| *amount) {
        keep("memory", amount);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_conditions_are_told_and_nothing_else() {
        let status = |conditions: &[(&str, &str)]| NodeStatus {
            conditions: Some(
                conditions
                    .iter()
                    .map(|(kind, status)| NodeCondition {
                        type_: (*kind).to_owned(),
                        status: (*status).to_owned(),
                        ..NodeCondition::default()
                    })
                    .collect(),
            ),
            ..NodeStatus::default()
        };
        let well = status(&[("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")]);
        let all = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(changes(&NodeStatus::default(), &well), all);
        assert_eq!(changes(&well, &well), [] as [&str; 0]);
        let ill = status(&[("MemoryPressure", "True"), ("DiskPressure", "True"), ("PIDPressure", "True"), ("Ready", "False")]);
        let ills = ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID", "NodeNotReady"];
        assert_eq!(changes(&well, &ill), ills);
        // The controllers have put Unknown while the node was not heard.
        assert_eq!(changes(&status(&[("Ready", "Unknown")]), &status(&[("Ready", "True")])), ["NodeReady"]);
    }

    #[test]
    fn another_boot_is_told_once_there_was_one() {
        let status = |boot_id: &str| NodeStatus {
            node_info: Some(NodeSystemInfo { boot_id: boot_id.to_owned(), ..NodeSystemInfo::default() }),
            ..NodeStatus::default()
        };
        for (before, want) in [(NodeStatus::default(), false), (status(""), false), (status("a"), false), (status("b"), true)] {
            assert_eq!(rebooted(&before, "a"), want, "{before:?}");
        }
    }

    #[test]
    fn what_is_kept_is_not_for_pods() {
        let amounts = |list: &[(&str, &str)]| -> Amounts {
            list.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().expect("a quantity"))).collect()
        };
        let capacity =
            amounts(&[("cpu", "2"), ("memory", "4Gi"), ("ephemeral-storage", "1000"), ("hugepages-2Mi", "1Gi"), ("pods", "110")]);
        let none = Settings { thresholds: Vec::new(), ..Settings::default() };
        let check = |reserved: &[(&str, &str)], least: &Settings, want: &[(&str, &str)]| {
            let reserved = reserved.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
            let mut all = capacity.clone();
            all.extend(amounts(want));
            assert_eq!(allocatable(&capacity, &reserved, least), all, "{reserved:?}");
        };
        check(&[], &none, &[("memory", "3Gi")]);
        check(&[], &Settings::default(), &[("memory", "2972Mi"), ("ephemeral-storage", "950")]);
        check(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "100")], &none, &[("cpu", "1500m"), ("memory", "2Gi")]);
        check(&[("cpu", "3"), ("memory", "5Gi")], &none, &[("cpu", "0"), ("memory", "0")]);
    }
}
