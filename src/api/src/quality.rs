//! Quality of service of pods: how sure what they ask for is theirs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`: of CPU and memory of all containers, or of the pod where it states its own.
pub fn of_pod(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    if spec["resources"].is_object() {
        return class(std::iter::once(&spec["resources"]));
    }
    let lists = ["containers", "initContainers"];
    class(lists.iter().flat_map(|list| spec[*list].as_array().into_iter().flatten()).map(|container| &container["resources"]))
}

fn class<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut every_limit = true;
    for resources in all {
        let mut limited = 0;
        for (total, part) in [(&mut requests, "requests"), (&mut limits, "limits")] {
            for name in ["cpu", "memory"] {
                let Some(quantity) = resources[part][name].as_str().and_then(|text| text.parse::<Quantity>().ok()) else { continue };
                if quantity.signum() <= 0 {
                    continue;
                }
                let sum = total.get(name).map_or(quantity, |sum: &Quantity| sum.plus(quantity));
                total.insert(name, sum);
                limited += usize::from(part == "limits");
            }
        }
        every_limit &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let same = |name: &&str| requests.get(*name).map(Quantity::millis) == limits.get(*name).map(Quantity::millis);
    if every_limit && requests.len() == limits.len() && ["cpu", "memory"].iter().all(same) { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quality_follows_requests_and_limits() {
        let of = |requests: Value, limits: Value| json!({"name": "c", "resources": {"requests": requests, "limits": limits}});
        let full = || of(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1000m", "memory": "1024Mi"}));
        for (containers, want) in [
            (vec![json!({"name": "c"})], "BestEffort"),
            (vec![of(json!({"cpu": "0"}), json!({}))], "BestEffort"),
            (vec![of(json!({"cpu": "1m"}), json!({}))], "Burstable"),
            (vec![full()], "Guaranteed"),
            (vec![full(), json!({"name": "d"})], "Burstable"),
            (vec![of(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "2", "memory": "1Gi"}))], "Burstable"),
        ] {
            assert_eq!(of_pod(&json!({"spec": {"containers": containers}})), want, "{containers:?}");
        }
    }
}
