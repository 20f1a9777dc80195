//! What containers get that ask for nothing.

use serde_json::{Map, Value, json};

/// Says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills in the defaults of a LimitRange, and tells of it in an annotation.
pub fn apply(range: &Value, pod: &mut Value) {
    let (mut limits, mut requests) = (Map::new(), Map::new());
    for item in range["spec"]["limits"].as_array().into_iter().flatten().filter(|item| item["type"] == "Container") {
        for (all, field) in [(&mut limits, "default"), (&mut requests, "defaultRequest")] {
            for (name, value) in item[field].as_object().into_iter().flatten() {
                all.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    let mut told = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (defaults, field, word) in [(&requests, "requests", "request"), (&limits, "limits", "limit")] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    told.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations = &mut pod["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[ANNOTATION] = text.into();
    }
}

/// Names of what was missing and is there now.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let missing: Vec<(&String, &Value)> =
        defaults.iter().filter(|(name, _)| container["resources"][field][name.as_str()].is_null()).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    for part in [&["resources"][..], &["resources", field][..]] {
        let mut at = &mut *container;
        for key in part {
            at = &mut at[*key];
        }
        if !at.is_object() {
            *at = json!({});
        }
    }
    let resources = &mut container["resources"][field];
    for (name, value) in &missing {
        resources[name.as_str()] = (*value).clone();
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}
