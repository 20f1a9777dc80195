//! The patch that brings a pod's status in the API from what it is to what it should be. Pure.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

/// Fields of the status that are the agent's: absent means away.
const OWN: &[&str] = &[
    "phase",
    "reason",
    "message",
    "qosClass",
    "startTime",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "observedGeneration",
    "resources",
    "allocatedResources",
];
/// Conditions that are the agent's.
const OWN_CONDITIONS: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// A strategic merge patch of the status subresource, bound to the pod's uid. Conditions of others stay.
pub fn patch(pod: &Pod, want: &PodStatus) -> serde_json::Result<Value> {
    let old = serde_json::to_value(pod.status.clone().unwrap_or_default())?;
    let mut new = serde_json::to_value(want)?;
    let Some(fields) = new.as_object_mut() else { return Ok(new) };
    // Whatever the API had when it was seen last: it may have more by now, of a write that has not come back yet.
    for name in OWN {
        fields.entry(*name).or_insert(Value::Null);
    }
    // Lists by name are merged name by name.
    for name in ["resources", "allocatedResources"] {
        if let Some(new) = fields.get_mut(name) {
            forget(new, &old[name]);
        }
    }
    let mut conditions: Vec<Value> = fields.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |list: &[Value], kind: &str| list.iter().any(|c| c["type"] == kind);
    let stale: Vec<&&str> = OWN_CONDITIONS.iter().filter(|kind| !has(&conditions, kind)).collect();
    // A merged condition keeps fields that are not named.
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        for name in ["reason", "message"] {
            condition.entry(name).or_insert(Value::Null);
        }
    }
    conditions.extend(stale.into_iter().map(|kind| json!({ "$patch": "delete", "type": kind })));
    fields.insert("conditions".to_owned(), Value::Array(conditions));
    if let Some(Value::Array(ips)) = fields.get_mut("podIPs")
        && old.get("podIPs").is_some_and(|o| *o != Value::Array(ips.clone()))
    {
        ips.insert(0, json!({ "$patch": "replace" }));
    }
    Ok(json!({ "metadata": { "uid": pod.metadata.uid }, "status": new }))
}

/// Names in `new` as gone what `old` has and it has not.
fn forget(new: &mut Value, old: &Value) {
    let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) else { return };
    for (name, value) in old {
        forget(new.entry(name.clone()).or_insert(Value::Null), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_taken_away_and_what_is_others_stays() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "uid": "u" }, "spec": { "containers": [] }, "status": {
            "phase": "Pending", "reason": "x", "resources": { "limits": { "cpu": "1" }, "requests": { "cpu": "1", "memory": "1Gi" } }, "podIPs": [{ "ip": "10.0.0.1" }],
            "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "mine.example/gate", "status": "True" }] } }))
        .expect("a pod");
        let want: PodStatus = serde_json::from_value(
            json!({ "phase": "Running", "resources": { "requests": { "cpu": "2" } }, "podIPs": [{ "ip": "10.0.0.2" }],
            "conditions": [{ "type": "Ready", "status": "True" }] }),
        )
        .expect("a status");
        let status = patch(&pod, &want).expect("a patch")["status"].clone();
        assert_eq!(status["reason"], Value::Null);
        assert_eq!(status["resources"], json!({ "limits": null, "requests": { "cpu": "2", "memory": null } }));
        assert!(status.as_object().expect("an object").contains_key("reason"));
        assert_eq!(status["podIPs"], json!([{ "$patch": "replace" }, { "ip": "10.0.0.2" }]));
        let conditions = status["conditions"].as_array().expect("a list");
        assert_eq!(conditions[0], json!({ "type": "Ready", "status": "True", "reason": null, "message": null }));
        // What is not wanted goes whether it was seen or not; what is others' is not named.
        let gone: Vec<&str> = conditions[1..].iter().filter(|c| c["$patch"] == "delete").filter_map(|c| c["type"].as_str()).collect();
        let own = OWN_CONDITIONS.iter().copied().filter(|kind| *kind != "Ready");
        assert_eq!(gone, own.collect::<Vec<_>>());
    }
}
