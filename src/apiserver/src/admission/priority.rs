//! Priority: the number behind a pod's priority class, and at most one class for pods that name none.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::objects::Objects;

const GROUP: &str = "scheduling.k8s.io";
/// What pods do to lesser ones unless their class says otherwise.
const PREEMPT: &str = "PreemptLowerPriority";

/// The plugin.
#[derive(Debug)]
pub struct Priority {
    /// Where classes are looked up.
    pub objects: Arc<dyn Objects>,
}

/// What a pod's class makes of it.
#[derive(Debug, PartialEq, Eq)]
struct Resolved {
    class: String,
    value: i64,
    preemption: String,
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate, Say::Validate]
    }

    async fn mutate(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !write.is("", "pods") || !write.info.subresource.is_empty() {
            return Ok(());
        }
        let spec = &mut pod["spec"];
        if let (Operation::Update, Some(old)) = (write.operation, write.old) {
            // A client that does not know the number must not lose it.
            for field in ["priority", "preemptionPolicy"] {
                if spec[field].is_null() && !old["spec"][field].is_null() {
                    spec[field] = old["spec"][field].clone();
                }
            }
            return Ok(());
        }
        if write.operation != Operation::Create {
            return Ok(());
        }
        let wanted = spec["priorityClassName"].as_str().unwrap_or_default();
        let class = if wanted.is_empty() {
            default_class(&self.objects.list(GROUP, "priorityclasses", ""))
        } else {
            self.objects.get(GROUP, "priorityclasses", "", wanted)
        };
        if class.is_none() && !wanted.is_empty() {
            return Err(refuse(write, &format!("no PriorityClass with name {wanted} was found")));
        }
        let resolved = resolve(class.as_ref());
        if let Some(why) = contradiction(spec, &resolved) {
            return Err(refuse(write, &why));
        }
        if !resolved.class.is_empty() {
            spec["priorityClassName"] = resolved.class.into();
        }
        spec["priority"] = resolved.value.into();
        spec["preemptionPolicy"] = resolved.preemption.into();
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>, class: Option<&Value>) -> Result<(), Status> {
        let Some(class) = class.filter(|_| write.is(GROUP, "priorityclasses")) else { return Ok(()) };
        if class["globalDefault"] != true || write.operation == Operation::Delete {
            return Ok(());
        }
        let others = self.objects.list(GROUP, "priorityclasses", "");
        let name = |class: &Value| class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match others.iter().find(|other| other["globalDefault"] == true && name(other) != write.info.name) {
            Some(other) => {
                Err(refuse(write, &format!("PriorityClass {} is already marked as default. Only one default can exist", name(other))))
            }
            None => Ok(()),
        }
    }
}

/// The class of pods that name none: the lowest, should several claim to be it.
fn default_class(classes: &[Value]) -> Option<Value> {
    let claimed = classes.iter().filter(|class| class["globalDefault"] == true);
    claimed.min_by_key(|class| class["value"].as_i64().unwrap_or_default()).cloned()
}

fn resolve(class: Option<&Value>) -> Resolved {
    let Some(class) = class else { return Resolved { class: String::new(), value: 0, preemption: PREEMPT.into() } };
    Resolved {
        class: class["metadata"]["name"].as_str().unwrap_or_default().into(),
        value: class["value"].as_i64().unwrap_or_default(),
        preemption: class["preemptionPolicy"].as_str().unwrap_or(PREEMPT).into(),
    }
}

/// A pod may say the numbers itself only if they are the right ones.
fn contradiction(spec: &Value, resolved: &Resolved) -> Option<String> {
    if let Some(priority) = spec["priority"].as_i64().filter(|priority| *priority != resolved.value) {
        let value = resolved.value;
        return Some(format!(
            "the integer value of priority ({priority}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    let policy = spec["preemptionPolicy"].as_str().filter(|policy| *policy != resolved.preemption)?;
    let right = &resolved.preemption;
    Some(format!(
        "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission controller computed {right} from the given PriorityClass name"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_may_only_say_what_its_class_says() {
        let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
        let high = resolve(Some(&class));
        assert_eq!(high, Resolved { class: "high".into(), value: 1000, preemption: "Never".into() });
        for (spec, ok) in [
            (json!({}), true),
            (json!({"priority": 1000, "preemptionPolicy": "Never"}), true),
            (json!({"priority": 999}), false),
            (json!({"preemptionPolicy": "PreemptLowerPriority"}), false),
        ] {
            assert_eq!(contradiction(&spec, &high).is_none(), ok, "{spec}");
        }
        assert_eq!(contradiction(&json!({"priority": 0}), &resolve(None)), None);
    }

    #[test]
    fn the_lowest_of_several_defaults_counts() {
        let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
        let classes = [class("a", 5, true), class("b", 3, true), class("c", 1, false)];
        assert_eq!(default_class(&classes).unwrap()["metadata"]["name"], "b");
        assert_eq!(default_class(&classes[2..]), None);
    }
}
