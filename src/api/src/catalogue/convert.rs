//! The same object under another group and version: what is stored once is shown in each.

use serde_json::{Map, Value, json};

use super::Resource;
use crate::structural;

/// Fields of events by their names in the core group and in events.k8s.io.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Annotations in which autoscaling/v1 carries what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Shows an object of `from` as one of `to`; both must have the same [`super::Storage`]. What is stored wants its own defaults afterwards.
pub fn convert(from: &Resource, to: &Resource, mut object: Value) -> Value {
    if (&from.group, &from.version) == (&to.group, &to.version) {
        return object;
    }
    if let Some(fields) = object.as_object_mut() {
        match (from.plural.as_str(), to.group.as_str(), to.version.as_str()) {
            ("events", "", _) => rename(fields, |(core, other)| (other, core)),
            ("events", ..) => rename(fields, |(core, other)| (core, other)),
            ("horizontalpodautoscalers", _, "v2") => autoscaler_to_v2(fields),
            ("horizontalpodautoscalers", _, "v1") => autoscaler_to_v1(fields),
            _ => {}
        }
        fields.insert("apiVersion".into(), to.api_version().into());
        // The target's schema knows everything that the conversion made, so that nothing is lost here.
        let _ = structural::prune(&to.schema, &mut object);
    }
    object
}

fn rename(fields: &mut Map<String, Value>, direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    for pair in EVENT_FIELDS {
        let (old, new) = direction(pair);
        if let Some(value) = fields.remove(old) {
            fields.insert(new.to_owned(), value);
        }
    }
}

fn member<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    fields.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn is_cpu(metric: &Value, part: &str) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && !metric["resource"][part]["averageUtilization"].is_null()
}

fn autoscaler_to_v2(fields: &mut Map<String, Value>) {
    let mut carried = |name: &str| -> Option<Value> {
        let annotations = fields.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        serde_json::from_str(annotations.remove(name)?.as_str()?).ok()
    };
    let (metrics, behavior) = (carried(METRICS), carried(BEHAVIOR));
    let (current, conditions) = (carried(CURRENT_METRICS), carried(CONDITIONS));
    if let Some(spec) = member(fields, "spec") {
        let mut all = Vec::new();
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage") {
            all.push(
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}),
            );
        }
        all.extend(metrics.and_then(|m| m.as_array().cloned()).into_iter().flatten());
        if !all.is_empty() {
            spec.insert("metrics".into(), all.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = member(fields, "status") {
        let mut all = Vec::new();
        if let Some(now) = status.remove("currentCPUUtilizationPercentage") {
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}));
        }
        all.extend(current.and_then(|m| m.as_array().cloned()).into_iter().flatten());
        if !all.is_empty() {
            status.insert("currentMetrics".into(), all.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
}

fn autoscaler_to_v1(fields: &mut Map<String, Value>) {
    let mut carried: Vec<(&str, Value)> = Vec::new();
    for (owner, list, part, field, annotation) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", METRICS),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", CURRENT_METRICS),
    ] {
        let Some(owner) = member(fields, owner) else { continue };
        let Some(Value::Array(mut metrics)) = owner.remove(list) else { continue };
        if let Some(cpu) = metrics.iter().position(|m| is_cpu(m, part)) {
            let metric = metrics.remove(cpu);
            owner.insert(field.into(), metric["resource"][part]["averageUtilization"].clone());
        }
        if !metrics.is_empty() {
            carried.push((annotation, metrics.into()));
        }
    }
    for (owner, field, annotation) in [("spec", "behavior", BEHAVIOR), ("status", "conditions", CONDITIONS)] {
        if let Some(value) = member(fields, owner).and_then(|o| o.remove(field)).filter(|v| !v.is_null()) {
            carried.push((annotation, value));
        }
    }
    if carried.is_empty() {
        return;
    }
    if let Some(annotations) = member(fields, "metadata").and_then(|m| member(m, "annotations")) {
        annotations.extend(carried.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::builtin;

    fn there_and_back(a: [&str; 3], b: [&str; 3], mut object: Value) -> Value {
        let [a, b] = [a, b].map(|[g, v, p]| builtin().resource(g, v, p).unwrap());
        assert_eq!(a.storage, b.storage);
        structural::prune(&a.schema, &mut object).unwrap();
        let shown = convert(a, b, object.clone());
        assert_eq!(convert(b, a, shown.clone()), object);
        shown
    }

    #[test]
    fn events_have_two_names_for_their_fields() {
        let event = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2,
            "source": {"component": "kubelet"}, "firstTimestamp": "2026-01-01T00:00:00Z", "reportingComponent": "kubelet"});
        let shown = there_and_back(["", "v1", "events"], ["events.k8s.io", "v1", "events"], event);
        assert_eq!((&shown["note"], &shown["regarding"]["name"], &shown["deprecatedCount"]), (&json!("m"), &json!("p"), &json!(2)));
        assert_eq!(shown["apiVersion"], "events.k8s.io/v1");
    }

    #[test]
    fn the_older_autoscaler_carries_the_rest_in_annotations() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "metrics": [cpu, memory]}});
        let [v1, v2] = ["v1", "v2"].map(|v| ["autoscaling", v, "horizontalpodautoscalers"]);
        let shown = there_and_back(v2, v1, object);
        assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 70);
        assert!(shown["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"));
    }
}
