//! The same object under another group and version: what is stored once is shown in each.

use serde_json::{Map, Value, json};

use super::Resource;

/// Field names of an Event: in the core group, in `events.k8s.io`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];
/// What `autoscaling/v1` has no field for is carried in annotations.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Shows an object of `from` as one of `to`; both must have the same [`super::Storage`].
pub fn convert(from: &Resource, to: &Resource, mut object: Value) -> Value {
    if (&from.group, &from.version) == (&to.group, &to.version) {
        return object;
    }
    let Some(fields) = object.as_object_mut() else { return object };
    fields.insert("apiVersion".into(), to.api_version().into());
    match (to.group.as_str(), to.version.as_str(), to.plural.as_str()) {
        ("events.k8s.io", _, "events") => rename(fields, EVENT_FIELDS),
        ("", _, "events") => rename(fields, EVENT_FIELDS.map(|(core, new)| (new, core))),
        ("autoscaling", "v1", "horizontalpodautoscalers") => to_first(fields),
        ("autoscaling", "v2", "horizontalpodautoscalers") => to_second(fields),
        _ => {}
    }
    object
}

fn rename(fields: &mut Map<String, Value>, names: [(&str, &str); 7]) {
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn annotate(object: &mut Map<String, Value>, key: &str, value: &Value) {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata["annotations"].is_null() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][key] = value.to_string().into();
}

fn annotated(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    let empty = annotations.is_empty();
    if empty {
        object.get_mut("metadata")?.as_object_mut()?.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

/// An autoscaler of v2 as one of v1: the CPU target is a field, all else annotations.
fn to_first(object: &mut Map<String, Value>) {
    let mut take = |part: &str, field: &str| object.get_mut(part).and_then(Value::as_object_mut).and_then(|part| part.remove(field));
    let (metrics, behavior) = (take("spec", "metrics"), take("spec", "behavior"));
    let (current, conditions) = (take("status", "currentMetrics"), take("status", "conditions"));
    for (list, part, target, field, key) in [
        (metrics, "spec", "target", "targetCPUUtilizationPercentage", METRICS),
        (current, "status", "current", "currentCPUUtilizationPercentage", CURRENT_METRICS),
    ] {
        let Some(Value::Array(mut list)) = list else { continue };
        let at = list.iter().position(|m| is_cpu(m) && m["resource"][target]["averageUtilization"].is_i64());
        if let Some(cpu) = at.map(|at| list.remove(at)) {
            let part = object.entry(part).or_insert_with(|| json!({}));
            part[field] = cpu["resource"][target]["averageUtilization"].clone();
        }
        if !list.is_empty() {
            annotate(object, key, &Value::Array(list));
        }
    }
    for (value, key) in [(behavior, BEHAVIOR), (conditions, CONDITIONS)] {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            annotate(object, key, &value);
        }
    }
}

/// An autoscaler of v1 as one of v2.
fn to_second(object: &mut Map<String, Value>) {
    for (part, field, list, target, key) in [
        ("spec", "targetCPUUtilizationPercentage", "metrics", "target", METRICS),
        ("status", "currentCPUUtilizationPercentage", "currentMetrics", "current", CURRENT_METRICS),
    ] {
        let others = annotated(object, key);
        let Some(part) = object.get_mut(part).and_then(Value::as_object_mut) else { continue };
        let mut metrics: Vec<Value> = others.and_then(|value| value.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = part.remove(field).filter(Value::is_i64) {
            let mut measure = json!({"averageUtilization": percent});
            if target == "target" {
                measure["type"] = "Utilization".into();
            }
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", target: measure}}));
        }
        if !metrics.is_empty() {
            part.insert(list.into(), metrics.into());
        }
    }
    for (key, part, field) in [(BEHAVIOR, "spec", "behavior"), (CONDITIONS, "status", "conditions")] {
        if let Some(value) = annotated(object, key) {
            let part = object.entry(part).or_insert_with(|| json!({}));
            part[field] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::builtin;

    fn check(group: (&str, &str), other: (&str, &str), plural: &str, object: Value, want: Value) {
        let of = |(group, version): (&str, &str)| builtin().resource(group, version, plural).unwrap();
        let there = convert(of(group), of(other), object.clone());
        assert_eq!(there, want);
        assert_eq!(convert(of(other), of(group), there), object, "and back");
    }

    #[test]
    fn events_have_two_sets_of_names() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "m", "count": 2, "reason": "r"});
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"}, "note": "m", "deprecatedCount": 2, "reason": "r"});
        check(("", "v1"), ("events.k8s.io", "v1"), "events", core, new);
    }

    #[test]
    fn autoscalers_lose_nothing_in_the_old_version() {
        let memory =
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let second = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 5, "metrics": [cpu, memory]}});
        let first = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {METRICS: json!([memory]).to_string()}},
            "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 70}});
        check(("autoscaling", "v2"), ("autoscaling", "v1"), "horizontalpodautoscalers", second, first);
    }
}
