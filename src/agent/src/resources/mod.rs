//! Requests and limits: quality of service, cgroups, and what of the node is still free.

pub mod classes;
pub mod ledger;
pub mod limits;
pub mod qos;

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};

/// Quantities by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a list of quantities; what is no quantity counts as none (the API has validated it).
pub fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.0.parse().ok()?))).collect()
}

/// Whether a resource is none of Kubernetes' own, but one that somebody brought to the cluster.
pub fn is_extended(name: &str) -> bool {
    let native = |domain: &str| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    name.split_once('/').is_some_and(|(domain, _)| !native(domain))
}

/// A container's requests.
pub fn requests(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// A container's limits.
pub fn limits_of(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// What a pod takes of a node: the larger of what its containers (with sidecars) take together, and what any init container takes
/// while it runs beside the sidecars that stand before it; plus overhead. `of` picks requests or limits.
pub fn of_pod(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            most(&mut peak, &sidecars);
        } else {
            let mut now = sidecars.clone();
            add(&mut now, &own);
            most(&mut peak, &now);
        }
    }
    most(&mut sum, &peak);
    add(&mut sum, &amounts(spec.overhead.as_ref()));
    sum
}

/// What a pod asks of a node: its own requests where it has some of its own, else those of its containers; plus overhead.
pub fn asked_by(spec: &PodSpec) -> Amounts {
    asked_as(spec, requests)
}

/// The same, where `of` says what each container asks for.
pub fn asked_as(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    with_own(spec, of_pod(spec, of), spec.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// What a pod may take: its own limits where it has some of its own, else those of its containers; plus overhead.
pub fn limits_of_pod(spec: &PodSpec) -> Amounts {
    limits_as(spec, limits_of)
}

/// The same, where `of` says what each container may take.
pub fn limits_as(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    with_own(spec, of_pod(spec, of), spec.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// As the API has them; none for none.
pub fn texts(amounts: &Amounts) -> Option<BTreeMap<String, Text>> {
    (!amounts.is_empty()).then(|| amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))).collect())
}

/// The pod's own amounts count instead of its containers'.
fn with_own(spec: &PodSpec, mut sum: Amounts, own: Option<&BTreeMap<String, Text>>) -> Amounts {
    let overhead = amounts(spec.overhead.as_ref());
    for (name, amount) in amounts(own) {
        let more = overhead.get(&name).copied().unwrap_or(Quantity::from_units(0));
        sum.insert(name, amount.plus(more));
    }
    sum
}

/// Adds up.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::from_units(0));
        *entry = entry.plus(*amount);
    }
}

fn most(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = sum.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_own_amounts_count_before_those_of_its_containers() {
        let container = |cpu: &str| json!({ "name": "a", "resources": { "requests": { "cpu": cpu, "memory": "1Mi" } } });
        let spec = |own: serde_json::Value| -> PodSpec {
            let spec = json!({ "containers": [container("1"), container("2")], "overhead": { "cpu": "100m" }, "resources": own });
            serde_json::from_value(spec).expect("a pod spec")
        };
        let check = |own: serde_json::Value, cpu: &str, memory: &str| {
            let asked = asked_by(&spec(own));
            assert_eq!((asked["cpu"], asked["memory"]), (cpu.parse().expect("cpu"), memory.parse().expect("memory")));
        };
        check(json!(null), "3100m", "2Mi");
        check(json!({ "requests": { "cpu": "5" } }), "5100m", "2Mi");
        check(json!({ "requests": { "memory": "9Mi" } }), "3100m", "9Mi");
    }
}
