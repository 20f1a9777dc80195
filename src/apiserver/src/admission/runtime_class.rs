//! RuntimeClass: pods of a class carry its overhead and go to the nodes that have it.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{quantity::Quantity, status::Status};
use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::objects::Objects;

/// The plugin.
#[derive(Debug)]
pub struct RuntimeClass {
    /// Where classes are looked up.
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !write.is("", "pods") || write.operation != Operation::Create || !write.info.subresource.is_empty() {
            return Ok(());
        }
        let spec = &mut pod["spec"];
        let name = spec["runtimeClassName"].as_str().unwrap_or_default();
        if name.is_empty() {
            let has_overhead = spec["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty());
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return if has_overhead { Err(refuse(write, why)) } else { Ok(()) };
        }
        let class = self.objects.get("node.k8s.io", "runtimeclasses", "", name);
        let class = class.ok_or_else(|| refuse(write, &format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
        settle(spec, &class).map_err(|why| refuse(write, &why))
    }
}

/// Fills in what the class says; the error is where the pod says something else.
fn settle(spec: &mut Value, class: &Value) -> Result<(), String> {
    let fixed = &class["overhead"]["podFixed"];
    if fixed.as_object().is_some_and(|fixed| !fixed.is_empty()) || spec["overhead"].is_object() {
        if spec["overhead"].is_object() && !same_amounts(&spec["overhead"], fixed) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        if fixed.is_object() {
            spec["overhead"] = fixed.clone();
        }
    }
    let scheduling = &class["scheduling"];
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &spec["nodeSelector"][key.as_str()];
        if !own.is_null() && own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default()
            ));
        }
    }
    if let Some(wanted) = scheduling["nodeSelector"].as_object() {
        let mut selector = spec["nodeSelector"].as_object().cloned().unwrap_or_else(Map::new);
        selector.extend(wanted.clone());
        spec["nodeSelector"] = selector.into();
    }
    let wanted = scheduling["tolerations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in wanted {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        spec["tolerations"] = tolerations.into();
    }
    Ok(())
}

/// Whether two maps of quantities say the same, however they are written.
fn same_amounts(a: &Value, b: &Value) -> bool {
    let read = |map: &Value| -> Map<String, Value> {
        let entries = map.as_object().into_iter().flatten();
        let canonical = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok()).map(|q| q.millis());
        entries.map(|(name, value)| (name.clone(), canonical(value).into())).collect()
    };
    read(a) == read(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_becomes_what_its_class_says() {
        let class = json!({"overhead": {"podFixed": {"cpu": "100m"}},
            "scheduling": {"nodeSelector": {"rt": "x"}, "tolerations": [{"key": "rt", "operator": "Exists"}]}});
        let mut spec = json!({"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a"}]});
        settle(&mut spec, &class).unwrap();
        let full = json!({"overhead": {"cpu": "100m"}, "nodeSelector": {"disk": "ssd", "rt": "x"},
            "tolerations": [{"key": "a"}, {"key": "rt", "operator": "Exists"}]});
        assert_eq!(spec, full);
        settle(&mut spec, &class).unwrap();
        assert_eq!(spec, full);
        assert!(settle(&mut json!({"overhead": {"cpu": "0.1"}}), &class).is_ok());
        for bad in [json!({"overhead": {"cpu": "5"}}), json!({"nodeSelector": {"rt": "y"}})] {
            assert!(settle(&mut bad.clone(), &class).is_err(), "{bad}");
        }
        let mut plain = json!({"containers": []});
        settle(&mut plain, &json!({"handler": "h"})).unwrap();
        assert_eq!(plain["overhead"], Value::Null);
    }
}
