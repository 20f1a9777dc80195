//! Whether the node takes a pod that was bound to it: resources, ports, selectors, taints, sysctls, confinement.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint};

use super::{life::Refusal, spec, sysctls};
use crate::{
    container::apparmor,
    eviction::{pressure::Pressure, rank},
    resources::{
        self, Amounts,
        qos::{self, Qos},
    },
};

/// The node as admission sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What pods may take.
    pub allocatable: Amounts,
    /// Of what it is short.
    pub pressure: Pressure,
    /// Sysctls that are allowed beside the safe ones; `*` at the end is a pattern.
    pub allowed_sysctls: Vec<String>,
    /// Whether it can confine pods by AppArmor.
    pub apparmor: bool,
}

/// Judges `pod` beside the pods that the node has taken. `None`: it is taken.
pub fn refuse<'a>(pod: &Pod, others: impl Iterator<Item = &'a Pod> + Clone, node: &NodeFacts) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    short(pod, node)
        .or_else(|| system(pod, spec))
        .or_else(|| sysctls(spec, node))
        .or_else(|| selectors(spec, node))
        .or_else(|| taints(spec, node))
        .or_else(|| {
            let others = others.filter(|o| !is_over(o) && spec::uid(o) != spec::uid(pod));
            ports(spec, others.clone()).or_else(|| amounts(spec, others, node))
        })
        .or_else(|| confinement(pod, node))
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn refusal(reason: &str, message: String) -> Option<Refusal> {
    Some(Refusal { reason: reason.to_owned(), message })
}

/// A node that is short of something takes only what it must. Short of memory alone, it takes pods that have asked for some.
fn short(pod: &Pod, node: &NodeFacts) -> Option<Refusal> {
    let Pressure { memory, disk, pids } = node.pressure;
    let names = [(memory, "MemoryPressure"), (disk, "DiskPressure"), (pids, "PIDPressure")];
    let names: Vec<&str> = names.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    if names.is_empty() || rank::is_critical(pod) {
        return None;
    }
    if names == ["MemoryPressure"] {
        let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
        let mut keys = tolerations.filter(|t| t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoSchedule"));
        let tolerated = keys.any(|t| t.key.as_deref().is_none_or(|k| k.is_empty() || k == "node.kubernetes.io/memory-pressure"));
        if tolerated || qos::class(pod.spec.as_ref()) != Qos::BestEffort {
            return None;
        }
    }
    refusal("Evicted", format!("The node had condition: [{}]. ", names.join(" ")))
}

fn system(pod: &Pod, spec: &PodSpec) -> Option<Refusal> {
    let labelled = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os")).filter(|os| *os != "linux");
    if let Some(os) = labelled {
        let message = format!("the pod's label kubernetes.io/os says {os}, this node runs linux");
        return refusal("PodOSSelectorNodeLabelDoesNotMatch", message);
    }
    let os = &spec.os.as_ref()?.name;
    if os == "linux" { None } else { refusal("PodOSNotSupported", format!("the pod is for {os}, this node runs linux")) }
}

fn sysctls(spec: &PodSpec, node: &NodeFacts) -> Option<Refusal> {
    let message = sysctls::refuse(spec, &node.allowed_sysctls)?;
    refusal("SysctlForbidden", message)
}

/// A pod that asks to be confined does not run unconfined.
fn confinement(pod: &Pod, node: &NodeFacts) -> Option<Refusal> {
    if node.apparmor || !apparmor::is_required(pod) {
        return None;
    }
    refusal("AppArmor", "Cannot enforce AppArmor: it is not enabled on this node".to_owned())
}

fn selectors(spec: &PodSpec, node: &NodeFacts) -> Option<Refusal> {
    let simple = spec.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let fits = terms.is_none_or(|s| s.node_selector_terms.iter().any(|t| term(t, node)));
    if simple && fits {
        return None;
    }
    refusal("NodeAffinity", "the pod's node affinity or selector does not fit this node's labels".to_owned())
}

fn term(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |name: &str| (name == "metadata.name").then(|| node.name.clone());
    // A term without requirements fits no node.
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| requirement(r, node.labels.get(&r.key)))
        && fields.iter().all(|r| requirement(r, field(&r.key).as_ref()))
}

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values.first().and_then(|v| number(v));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(|v| number(v)).zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => value.and_then(|v| number(v)).zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

fn taints(spec: &PodSpec, node: &NodeFacts) -> Option<Refusal> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let tolerated = |taint: &Taint| {
        tolerations.iter().any(|t| {
            let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
            let key = t.key.as_deref().is_none_or(|k| k.is_empty() || k == taint.key);
            let exists = t.operator.as_deref() == Some("Exists");
            effect && key && (exists || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
        })
    };
    let bad = node.taints.iter().find(|t| t.effect == "NoExecute" && !tolerated(t))?;
    refusal("TaintToleration", format!("the pod does not tolerate the node's taint {}", bad.key))
}

fn ports<'a>(spec: &PodSpec, others: impl Iterator<Item = &'a Pod>) -> Option<Refusal> {
    let mine: Vec<_> = host_ports(spec).collect();
    if mine.is_empty() {
        return None;
    }
    let taken: Vec<_> = others.filter_map(|o| o.spec.as_ref()).flat_map(host_ports).collect();
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let clash =
        mine.iter().any(|(protocol, ip, port)| taken.iter().any(|(p, i, n)| p == protocol && n == port && (i == ip || any(i) || any(ip))));
    if clash { refusal("NodePorts", "a host port of the pod is taken".to_owned()) } else { None }
}

fn host_ports(spec: &PodSpec) -> impl Iterator<Item = (String, String, i32)> + '_ {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let port = p.host_port.filter(|p| *p > 0)?;
        Some((p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), p.host_ip.clone().unwrap_or_default(), port))
    })
}

fn amounts<'a>(spec: &PodSpec, others: impl Iterator<Item = &'a Pod>, node: &NodeFacts) -> Option<Refusal> {
    let (name, message) = shortage(spec, others, &node.allocatable)?;
    refusal(&format!("OutOf{name}"), message)
}

/// The resource of which there is too little for a pod beside others, and in words.
pub fn shortage<'a>(spec: &PodSpec, others: impl Iterator<Item = &'a Pod>, allocatable: &Amounts) -> Option<(String, String)> {
    let mut used = Amounts::from([("pods".to_owned(), Quantity::from_units(0))]);
    for other in others.filter_map(|o| o.spec.as_ref()) {
        resources::add(&mut used, &resources::asked_by(other));
        resources::add(&mut used, &Amounts::from([("pods".to_owned(), Quantity::from_units(1))]));
    }
    let mut wanted = resources::asked_by(spec);
    wanted.insert("pods".to_owned(), Quantity::from_units(1));
    // What the node knows nothing of is the cluster's to count.
    wanted.into_iter().filter(|(name, _)| allocatable.contains_key(name) || !resources::is_extended(name)).find_map(|(name, amount)| {
        let zero = Quantity::from_units(0);
        let (have, taken) = (allocatable.get(&name).copied().unwrap_or(zero), used.get(&name).copied().unwrap_or(zero));
        let short = amount.signum() > 0 && taken.plus(amount) > have;
        short.then(|| {
            let message = format!("Node didn't have enough resource: {name}, requested: {amount}, used: {taken}, capacity: {have}");
            (name, message)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": uid, "uid": uid }, "spec": spec })).expect("a pod")
    }

    fn node() -> NodeFacts {
        let of = |list: Value| resources::amounts(Some(&serde_json::from_value(list).expect("amounts")));
        NodeFacts {
            name: "n1".into(),
            labels: BTreeMap::from([("zone".into(), "a".into()), ("size".into(), "5".into())]),
            taints: vec![Taint { key: "gone".into(), effect: "NoExecute".into(), ..Default::default() }],
            allocatable: of(json!({ "cpu": "2", "memory": "1Gi", "pods": "2", "example.com/known": "2" })),
            pressure: Pressure::default(),
            allowed_sysctls: vec!["net.core.*".into()],
            apparmor: false,
        }
    }

    fn check(spec: Value, others: &[Pod], want: Option<&str>) {
        let mut spec = spec;
        if spec.get("tolerations").is_none() {
            spec["tolerations"] = json!([{ "operator": "Exists" }]);
        }
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "a" }]);
        }
        let got = refuse(&pod("me", spec.clone()), others.iter(), &node());
        assert_eq!(got.as_ref().map(|r| r.reason.as_str()), want, "{spec}");
    }

    #[test]
    fn a_node_that_is_short_takes_only_what_it_must() {
        let check = |pressure: Pressure, spec: Value, taken: bool| {
            let got = refuse(&pod("me", spec.clone()), std::iter::empty(), &NodeFacts { pressure, taints: vec![], ..node() });
            assert_eq!(got.as_ref().map(|r| r.reason.as_str()), (!taken).then_some("Evicted"), "{pressure:?} {spec}");
        };
        let (memory, disk) = (Pressure { memory: true, ..Pressure::default() }, Pressure { disk: true, ..Pressure::default() });
        let modest = json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1m" } } }] });
        let bare = json!({ "containers": [{ "name": "a" }] });
        let mut tolerant = bare.clone();
        tolerant["tolerations"] = json!([{ "key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule" }]);
        let mut critical = bare.clone();
        critical["priority"] = json!(2_000_000_000);
        check(Pressure::default(), bare.clone(), true);
        for (spec, with_memory, with_disk) in [(bare, false, false), (modest, true, false), (tolerant, true, false), (critical, true, true)]
        {
            check(memory, spec.clone(), with_memory);
            check(disk, spec.clone(), with_disk);
            check(Pressure { disk: true, ..memory }, spec, with_disk);
        }
    }

    #[test]
    fn refusals_as_upstream_names_them() {
        let cpu = |amount: &str| json!([{ "name": "a", "resources": { "requests": { "cpu": amount } } }]);
        let other = pod(
            "o",
            json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 1, "hostPort": 80 }],
            "resources": { "requests": { "cpu": "1500m" } } }] }),
        );
        check(json!({}), &[], None);
        check(json!({ "containers": cpu("9000") }), &[], Some("OutOfcpu"));
        check(json!({ "containers": cpu("500m") }), std::slice::from_ref(&other), None);
        check(json!({ "containers": cpu("501m") }), std::slice::from_ref(&other), Some("OutOfcpu"));
        check(json!({}), &[other.clone(), pod("p", json!({ "containers": [] }))], Some("OutOfpods"));
        let extended = |name: &str| json!([{ "name": "a", "resources": { "requests": { name: "3" } } }]);
        check(json!({ "containers": extended("example.com/known") }), &[], Some("OutOfexample.com/known"));
        check(json!({ "containers": extended("example.com/unknown") }), &[], None);
        check(json!({ "containers": extended("hugepages-2Mi") }), &[], Some("OutOfhugepages-2Mi"));
        check(json!({ "nodeSelector": { "zone": "b" } }), &[], Some("NodeAffinity"));
        check(json!({ "nodeSelector": { "zone": "a" } }), &[], None);
        let affine = |op: &str, values: &[&str]| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "size", "operator": op, "values": values }] }] } } } })
        };
        check(affine("Gt", &["4"]), &[], None);
        check(affine("Lt", &["4"]), &[], Some("NodeAffinity"));
        check(affine("DoesNotExist", &[]), &[], Some("NodeAffinity"));
        check(json!({ "tolerations": [] }), &[], Some("TaintToleration"));
        check(json!({ "os": { "name": "windows" } }), &[], Some("PodOSNotSupported"));
        let sysctl = |name: &str| json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        check(sysctl("kernel.msgmax"), &[], Some("SysctlForbidden"));
        check(sysctl("kernel.shm_rmid_forced"), &[], None);
        check(sysctl("net.core.somaxconn"), &[], None);
        let confined = |kind: &str| json!({ "securityContext": { "appArmorProfile": { "type": kind } } });
        check(confined("RuntimeDefault"), &[], Some("AppArmor"));
        check(confined("Localhost"), &[], Some("AppArmor"));
        check(confined("Unconfined"), &[], None);
        let port = json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 1, "hostPort": 80 }] }] });
        check(port.clone(), &[other], Some("NodePorts"));
        check(port, &[], None);
    }
}
