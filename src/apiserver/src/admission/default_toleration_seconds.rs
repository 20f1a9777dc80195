//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise.

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, Say};

/// How long, in seconds; upstream's default.
const SECONDS: i64 = 300;
/// The taints of such nodes.
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
#[derive(Debug)]
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let writes = matches!(write.operation, Operation::Create | Operation::Update);
        if writes && write.is("", "pods") && write.info.subresource.is_empty() {
            add(&mut pod["spec"]);
        }
        Ok(())
    }
}

fn add(spec: &mut Value) {
    for taint in TAINTS {
        let tolerations = spec["tolerations"].as_array();
        if tolerations.is_some_and(|list| list.iter().any(|toleration| tolerates(toleration, taint))) {
            continue;
        }
        let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
        match spec["tolerations"].as_array_mut() {
            Some(list) => list.push(toleration),
            None => spec["tolerations"] = json!([toleration]),
        }
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_says_counts() {
        for (tolerations, total) in [
            (json!(null), 2),
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}]), 2),
            (json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}]), 3),
            (json!([{"key": "other", "operator": "Exists"}]), 3),
        ] {
            let mut spec = json!({"tolerations": tolerations});
            add(&mut spec);
            assert_eq!(spec["tolerations"].as_array().unwrap().len(), total, "{tolerations}");
        }
    }
}
