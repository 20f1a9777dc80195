//! TaintNodesByCondition: no pod is placed on a new node before its first Ready condition; the node lifecycle controller takes the taint off.

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, Say};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
#[derive(Debug)]
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, node: &mut Value) -> Result<(), Status> {
        if write.operation == Operation::Create && write.is("", "nodes") && write.info.subresource.is_empty() {
            add(&mut node["spec"]);
        }
        Ok(())
    }
}

fn add(spec: &mut Value) {
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    match spec["taints"].as_array_mut() {
        Some(taints) if taints.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]) => {}
        Some(taints) => taints.push(taint),
        None => spec["taints"] = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taint_is_there_once() {
        let mut spec = json!({"taints": [{"key": "a", "effect": "NoExecute"}]});
        add(&mut spec);
        add(&mut spec);
        assert_eq!(spec["taints"], json!([{"key": "a", "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}]));
        let mut spec = Value::Null;
        add(&mut spec);
        assert_eq!(spec["taints"].as_array().unwrap().len(), 1);
    }
}
