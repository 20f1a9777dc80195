//! How much of each resource a container, a pod or a claim asks for.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use serde_json::Value;

/// By the name of the resource.
type Map = BTreeMap<String, Quantity>;

/// Requests and limits.
#[derive(Debug, Default)]
pub struct Amounts {
    requests: Map,
    limits: Map,
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

fn read(map: &Value) -> Map {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

fn add(sum: &mut Map, more: &Map) {
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

/// Of a whole pod: its containers together, or the largest moment of its start, or what it says itself.
pub fn of_pod(spec: &Value) -> Amounts {
    let mut out = Amounts::default();
    for (total, field) in [(&mut out.requests, "requests"), (&mut out.limits, "limits")] {
        let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
        for container in list("containers") {
            add(total, &read(&container["resources"][field]));
        }
        // Sidecars stay; other init containers run one after the other, beside the sidecars before them.
        let (mut sidecars, mut start) = (Map::new(), Map::new());
        for container in list("initContainers") {
            let own = read(&container["resources"][field]);
            let mut now = sidecars.clone();
            add(&mut now, &own);
            at_least(&mut start, &now);
            if container["restartPolicy"] == "Always" {
                add(&mut sidecars, &own);
            }
        }
        add(total, &sidecars);
        at_least(total, &start);
        for (name, amount) in read(&spec["resources"][field]) {
            total.insert(name, amount);
        }
        // What is not asked for is not limited by it.
        let has_limits = field == "requests" || !total.is_empty();
        if has_limits {
            add(total, &read(&spec["overhead"]));
        }
    }
    out
}
