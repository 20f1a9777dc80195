//! How much of each resource a container, a pod or a claim asks for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// By the name of the resource.
pub type Map = BTreeMap<String, Quantity>;

/// Requests and limits.
#[derive(Debug, Default)]
pub struct Amounts {
    /// What is asked for at least.
    pub requests: Map,
    /// What is taken at most.
    pub limits: Map,
}

impl Amounts {
    /// What is asked for at least.
    pub fn request(&self, name: &str) -> Option<Quantity> {
        self.requests.get(name).copied()
    }

    /// What is taken at most.
    pub fn limit(&self, name: &str) -> Option<Quantity> {
        self.limits.get(name).copied()
    }
}

/// The quantities of a map; what is none is left out.
pub fn read(map: &Value) -> Map {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// Adds up, resource by resource.
pub fn add(sum: &mut Map, more: &Map) {
    for (name, amount) in more {
        let total = sum.get(name).map_or(*amount, |own| own.plus(*amount));
        sum.insert(name.clone(), total);
    }
}

/// The larger of each.
fn at_least(own: &mut Map, other: &Map) {
    for (name, amount) in other {
        if own.get(name).is_none_or(|own| own < amount) {
            own.insert(name.clone(), *amount);
        }
    }
}

/// Of one container.
pub fn of_container(container: &Value) -> Amounts {
    let resources = &container["resources"];
    Amounts { requests: read(&resources["requests"]), limits: read(&resources["limits"]) }
}

/// Of a claim for a volume.
pub fn of_claim(spec: &Value) -> Amounts {
    of_container(spec)
}

/// Of a whole pod as its spec asks: its containers together, or the largest moment of its start, or what it says itself.
pub fn of_pod(spec: &Value) -> Amounts {
    sum(spec, &|container, field| read(&container["resources"][field]))
}

/// Of the containers of a pod together, whatever the pod says itself.
pub fn of_containers(spec: &Value) -> Amounts {
    together(spec, &|container, field| read(&container["resources"][field]))
}

/// Of a whole pod as it runs: while it is resized, it and each container count with the larger of what is asked for and what is still had.
pub fn of_running_pod(pod: &Value) -> Amounts {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let refused = conditions.into_iter().any(|c| c["type"] == "PodResizePending" && c["status"] == "True" && c["reason"] == "Infeasible");
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let has = |container: &Value| {
        let all = statuses.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
        all.into_iter().find(|status| status["name"] == container["name"] && status["resources"].is_object())
    };
    let mut out = together(&pod["spec"], &|container, field| {
        let asked = read(&container["resources"][field]);
        let Some(status) = has(container) else { return asked };
        let mut own = read(&status["resources"][field]);
        if field == "requests" {
            at_least(&mut own, &read(&status["allocatedResources"]));
        }
        if !refused {
            at_least(&mut own, &asked);
        }
        own
    });
    with_own(&mut out, &pod["spec"], &|field| {
        let asked = read(&pod["spec"]["resources"][field]);
        let status = &pod["status"];
        if asked.is_empty() || !status["resources"].is_object() {
            return asked;
        }
        // The status counts the overhead in.
        let overhead = read(&pod["spec"]["overhead"]);
        let had = |list: &Value| -> Map {
            let of_pod = read(list).into_iter().filter(|(name, _)| asked.contains_key(name));
            of_pod.map(|(name, amount)| (name.clone(), overhead.get(&name).map_or(amount, |more| amount.minus(*more)))).collect()
        };
        let mut own = had(&status["resources"][field]);
        if field == "requests" {
            at_least(&mut own, &had(&status["allocatedResources"]));
        }
        for (name, amount) in &asked {
            if !own.contains_key(name) {
                own.insert(name.clone(), *amount);
            }
        }
        if !refused {
            at_least(&mut own, &asked);
        }
        own
    });
    out
}

fn sum(spec: &Value, of: &dyn Fn(&Value, &str) -> Map) -> Amounts {
    let mut out = together(spec, of);
    with_own(&mut out, spec, &|field| read(&spec["resources"][field]));
    out
}

/// What the pod says of itself (`of`) counts before what its containers say, and its overhead on top.
fn with_own(out: &mut Amounts, spec: &Value, of: &dyn Fn(&str) -> Map) {
    for (total, field) in [(&mut out.requests, "requests"), (&mut out.limits, "limits")] {
        total.extend(of(field));
        // What is not asked for is not limited by it.
        let has_limits = field == "requests" || !total.is_empty();
        if has_limits {
            add(total, &read(&spec["overhead"]));
        }
    }
}

fn together(spec: &Value, of: &dyn Fn(&Value, &str) -> Map) -> Amounts {
    let mut out = Amounts::default();
    for (total, field) in [(&mut out.requests, "requests"), (&mut out.limits, "limits")] {
        let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
        for container in list("containers") {
            add(total, &of(container, field));
        }
        // Sidecars stay; other init containers run one after the other, beside the sidecars before them.
        let (mut sidecars, mut start) = (Map::new(), Map::new());
        for container in list("initContainers") {
            let own = of(container, field);
            let mut now = sidecars.clone();
            add(&mut now, &own);
            at_least(&mut start, &now);
            if container["restartPolicy"] == "Always" {
                add(&mut sidecars, &own);
            }
        }
        add(total, &sidecars);
        at_least(total, &start);
    }
    out
}
