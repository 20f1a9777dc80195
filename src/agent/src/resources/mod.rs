//! Requests and limits: quality of service, cgroups, and what of the node is still free.

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
