//! Taints and tolerations (core/v1 Taint, Toleration).

use coracle_client::pod::Pod;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use super::Reason;

/// Refuses a node with a NoSchedule or NoExecute taint that the pod does not tolerate.
pub fn filter(pod: &Pod, node: &Node) -> Option<Reason> {
    intolerable(pod, node).map(|_| "node(s) had untolerated taint(s)".into())
}

/// The first taint that keeps the pod away.
pub fn intolerable<'a>(pod: &Pod, node: &'a Node) -> Option<&'a Taint> {
    taints(node).find(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerates(pod, t))
}

/// How many PreferNoSchedule taints the pod does not tolerate.
pub fn unloved(pod: &Pod, node: &Node) -> usize {
    taints(node).filter(|t| t.effect == "PreferNoSchedule" && !tolerates(pod, t)).count()
}

/// Whether the pod tolerates the taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten()).any(|t| covers(t, taint))
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten())
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let (key, effect, operator) = (text(&toleration.key), text(&toleration.effect), text(&toleration.operator));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (want, have) = (text(&toleration.value), taint.value.clone().unwrap_or_default());
    let numbers = || Some((want.parse::<i64>().ok()?, have.parse::<i64>().ok()?));
    match operator.as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && want == have,
        "Gt" => numbers().is_some_and(|(want, have)| have > want),
        "Lt" => numbers().is_some_and(|(want, have)| have < want),
        _ => false,
    }
}
