//! Pods: phase and quality of service at birth, what updates and subresources may touch.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta;

/// A new pod is Pending, and held back while it has scheduling gates.
pub fn prepare_create(pod: &mut Value, now: Timestamp) {
    let mut status = json!({"phase": "Pending", "qosClass": quality(pod)});
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastTransitionTime": meta::time(now)}]);
    }
    pod["status"] = status;
}

/// The quality of service never changes after birth, and the status is not the main resource's.
pub fn prepare_update(new: &mut Value, old: &Value) {
    meta::keep(new, old, "status");
}

/// A status may not leave out the quality of service.
pub fn finish_status(new: &mut Value, old: &Value) {
    if let Some(class) = old["status"].get("qosClass") {
        new["status"]["qosClass"] = class.clone();
    }
}

/// `pods/ephemeralcontainers`: nothing else of the pod changes.
pub fn only_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = new["spec"].get("ephemeralContainers").cloned();
    *new = old.clone();
    meta::put(meta::map(new, "spec"), "ephemeralContainers", containers);
    count(new, old);
}

/// `pods/resize`: resources and resize policies of the containers that are there.
pub fn only_resources(new: &mut Value, old: &Value) {
    let asked = new["spec"].clone();
    *new = old.clone();
    for list in ["containers", "initContainers"] {
        let Some(containers) = new.get_mut("spec").and_then(|spec| spec.get_mut(list)?.as_array_mut()) else { continue };
        for container in containers {
            let wanted = asked[list].as_array().into_iter().flatten().find(|c| c["name"] == container["name"]);
            for field in ["resources", "resizePolicy"] {
                if let Some(value) = wanted.and_then(|c| c.get(field)) {
                    container[field] = value.clone();
                }
            }
        }
    }
    count(new, old);
}

fn count(new: &mut Value, old: &Value) {
    if new["spec"] != old["spec"] {
        meta::of(new).insert("generation".into(), (meta::generation(old) + 1).into());
    }
}

/// Guaranteed, Burstable or BestEffort, of CPU and memory of all containers, or of the pod where it states its own.
fn quality(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    if spec["resources"]["requests"].is_object() || spec["resources"]["limits"].is_object() {
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
            assert_eq!(quality(&json!({"spec": {"containers": containers}})), want, "{containers:?}");
        }
    }
}
