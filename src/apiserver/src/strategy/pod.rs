//! Pods: phase and quality of service at birth, what updates and subresources may touch.

use coracle_api::quality;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta;

/// A new pod is Pending, and held back while it has scheduling gates.
pub fn prepare_create(pod: &mut Value, now: Timestamp) {
    select_by_own_labels(pod);
    let mut status = json!({"phase": "Pending", "qosClass": quality::of_pod(pod)});
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

/// A status may leave out the quality of service, and say one of `podIP` and `podIPs`.
pub fn finish_status(new: &mut Value, old: &Value) {
    let status = meta::map(new, "status");
    if status.get("qosClass").and_then(Value::as_str).is_none_or(str::is_empty) {
        meta::put(status, "qosClass", old["status"].get("qosClass").cloned());
    }
    let single = status.get("podIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = status.get("podIPs").and_then(|list| list[0]["ip"].as_str()).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        status.insert("podIP".into(), first.into());
    } else if single != first {
        // Who knows only the older field changes both.
        status.insert("podIPs".into(), json!([{"ip": single}]));
    }
}

/// `pods/ephemeralcontainers`: nothing else of the pod changes.
pub fn only_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = new["spec"].get("ephemeralContainers").cloned();
    *new = old.clone();
    meta::put(meta::map(new, "spec"), "ephemeralContainers", containers);
    count(new, old);
}

/// `pods/resize`: resources of the pod as a whole, resources and resize policies of the containers that are there. Containers that are others, or in
/// another order, stay as they were sent: validation refuses them.
pub fn only_resources(new: &mut Value, old: &Value) {
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    fn of<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
        pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default()
    }
    if LISTS.iter().any(|list| of(new, list).len() != of(old, list).len()) {
        return;
    }
    let asked = std::mem::replace(new, old.clone());
    meta::keep(&mut new["spec"], &asked["spec"], "resources");
    for list in LISTS.into_iter().filter(|list| !of(&asked, list).is_empty()) {
        let (wanted, known) = (of(&asked, list), of(old, list));
        let same = wanted.iter().zip(known).all(|(a, b)| a["name"] == b["name"]);
        new["spec"][list] = if same { wanted.iter().zip(known).map(resized).collect() } else { wanted.into() };
    }
    count(new, old);
}

/// The known container with what is asked of the other.
fn resized((wanted, known): (&Value, &Value)) -> Value {
    let mut container = known.clone();
    for field in ["resources", "resizePolicy"] {
        meta::keep(&mut container, wanted, field);
    }
    container
}

fn count(new: &mut Value, old: &Value) {
    if new["spec"] != old["spec"] {
        meta::of(new).insert("generation".into(), (meta::generation(old) + 1).into());
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements with the values of the pod's own labels (KEP-3243, KEP-3633).
fn select_by_own_labels(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    for constraint in list(spec, "/topologySpreadConstraints") {
        require(constraint, &labels);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for term in list(spec, &format!("/affinity/{kind}/requiredDuringSchedulingIgnoredDuringExecution")) {
            require(term, &labels);
        }
        for preferred in list(spec, &format!("/affinity/{kind}/preferredDuringSchedulingIgnoredDuringExecution")) {
            if let Some(term) = preferred.get_mut("podAffinityTerm") {
                require(term, &labels);
            }
        }
    }
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> &'a mut [Value] {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

fn require(term: &mut Value, labels: &Value) {
    // Without a selector nothing is selected, whatever the keys say.
    if !term["labelSelector"].is_object() {
        return;
    }
    let mut requirements = Vec::new();
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term[keys].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(value) = labels[key].as_str() {
                requirements.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if !requirements.is_empty() {
        match &mut term["labelSelector"]["matchExpressions"] {
            Value::Array(given) => given.extend(requirements),
            other => *other = requirements.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_select_by_the_pods_own_labels() {
        let term = json!({"labelSelector": {"matchLabels": {"a": "b"}}, "matchLabelKeys": ["tier", "none"], "mismatchLabelKeys": ["team"]});
        let mut pod = json!({"metadata": {"labels": {"tier": "back", "team": "x"}}, "spec": {
            "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["tier"]}, {"matchLabelKeys": ["tier"]}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]}}}});
        select_by_own_labels(&mut pod);
        let tier = json!({"key": "tier", "operator": "In", "values": ["back"]});
        let spec = &pod["spec"];
        assert_eq!(spec["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"], json!([tier]));
        assert_eq!(spec["topologySpreadConstraints"][1]["labelSelector"], Value::Null);
        let term = &spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
        let team = json!({"key": "team", "operator": "NotIn", "values": ["x"]});
        assert_eq!(term["labelSelector"]["matchExpressions"], json!([tier, team]));
    }

    #[test]
    fn a_status_says_addresses_in_both_ways() {
        let old = json!({"status": {"qosClass": "Burstable"}});
        let finish = |status: Value| {
            let mut new = json!({"status": status});
            finish_status(&mut new, &old);
            new["status"].clone()
        };
        let both = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "Burstable"});
        assert_eq!(finish(json!({"podIP": "10.0.0.1"})), both);
        assert_eq!(finish(json!({"podIPs": [{"ip": "10.0.0.1"}]})), both);
        assert_eq!(finish(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]})), both);
        assert_eq!(finish(json!({"qosClass": "Guaranteed"}))["qosClass"], "Guaranteed");
    }
}
