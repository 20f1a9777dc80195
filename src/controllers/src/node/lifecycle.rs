//! Node lifecycle: a node whose Lease is not renewed is unknown; its taints say what its conditions say.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;
use std::sync::Arc;

use coracle_client::{EventType, events::reference, pod::Pod};

use crate::{
    plan::{Patch, Plan, Target, Told, document},
    pods,
    waiting::Waiting,
};

/// Conditions that the node's agent posts; all of them become unknown with it.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Taint of a node that says itself that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that says nothing.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taints without execution: (condition, its status, taint).
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// Taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// When we last saw a sign of life that was new to us, by our own clock.
    pub alive_at: Timestamp,
    /// Silence after which the node is unknown.
    pub grace: SignedDuration,
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// The next step for the node; `Plan::default()` when it is well or known to be unwell.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    if seen.node.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let due = seen.alive_at.checked_add(seen.grace).unwrap_or(Timestamp::MAX);
    let silent = due <= seen.now;
    let before = seen.node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let after = if silent { unknown(&before, seen.now) } else { before.clone() };
    if after != before {
        plan.status = Some(Patch {
            subresource: Some("status"),
            ..Patch::merge(Target::of(seen.node), json!({"status": {"conditions": document(&after)}}))
        });
        plan.events.push(not_ready_event(seen.node));
    }
    if !silent {
        plan.look_again(Some(due));
    } else {
        plan.waiting.push(Waiting::Heartbeat { since: seen.alive_at });
    }
    let taints = taints(seen.node, &after, seen.now);
    if taints.as_slice() != seen.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default() {
        plan.patches.push(Patch::merge(Target::of(seen.node), json!({"spec": {"taints": document(&taints)}})));
    }
    if status_of(&after, "Ready") == Some("Unknown") {
        plan.patches.extend(seen.pods.iter().filter_map(|pod| unready(pod, seen.now)));
    }
    plan
}

fn not_ready_event(node: &Node) -> Told {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    Told {
        regarding: reference(node),
        kind: EventType::Normal,
        reason: "NodeNotReady",
        message: format!("Node {name} status is now: NodeNotReady"),
    }
}

fn status_of<'a>(conditions: &'a [NodeCondition], type_: &str) -> Option<&'a str> {
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str())
}

/// All posted conditions as Unknown; those that are so already keep their times.
fn unknown(before: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let mut after = before.to_vec();
    for type_ in POSTED {
        match after.iter_mut().find(|c| c.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            None => after.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: None,
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    after
}

/// The node's taints: others' as they are, ours as the conditions say. A taint that stays keeps its time, as evictions count from it.
fn taints(node: &Node, conditions: &[NodeCondition], now: Timestamp) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(type_, status, _)| status_of(conditions, type_) == Some(*status))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    match status_of(conditions, "Ready") {
        Some("False") => wanted.push((NOT_READY, "NoExecute")),
        Some("Unknown") => wanted.push((UNREACHABLE, "NoExecute")),
        _ => {}
    }
    let ours = |taint: &Taint| {
        let named = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
        match taint.effect.as_str() {
            "NoSchedule" => named,
            "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
            _ => false,
        }
    };
    // Without a Ready condition the node has not reported yet: what keeps pods away from it stays.
    let reported = status_of(conditions, "Ready").is_some();
    let mut taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    taints.retain(|t| !ours(t) || wanted.contains(&(t.key.as_str(), t.effect.as_str())) || (!reported && t.key == NOT_READY));
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = (effect == "NoExecute").then_some(Time(now));
            taints.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added });
        }
    }
    taints
}

/// Nobody can say that a pod of a silent node is ready.
fn unready(pod: &Pod, now: Timestamp) -> Option<Patch> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut conditions = pod.status.as_ref()?.conditions.clone()?;
    for condition in conditions.iter_mut().filter(|c| c.type_ == "Ready") {
        condition.status = "False".into();
        condition.last_transition_time = Some(Time(now));
    }
    let body = json!({"status": {"conditions": document(&conditions)}});
    Some(Patch { subresource: Some("status"), ..Patch::merge(Target::of(pod), body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(ready: &str, taints: &[(&str, &str)], cordoned: bool) -> Node {
        let other = if ready == "Unknown" { "Unknown" } else { "False" };
        let posted = |type_: &&str| json!({"type": type_, "status": if *type_ == "Ready" { ready } else { other }});
        let conditions: Vec<_> = if ready.is_empty() { vec![] } else { POSTED.iter().map(posted).collect() };
        let taints: Vec<_> = taints.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "spec": {"taints": taints, "unschedulable": cordoned}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    fn short(taints: &serde_json::Value) -> String {
        let words: Vec<String> = taints
            .as_array()
            .unwrap()
            .iter()
            .map(|t| format!("{}:{}", t["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/"), t["effect"].as_str().unwrap()))
            .collect();
        words.join(" ")
    }

    fn check(node: &Node, silence: i64, expected: &str) {
        let plan = plan(&Observed { node, pods: &[], alive_at: at(1_000 - silence), grace: SignedDuration::from_secs(50), now: at(1_000) });
        let mut words = Vec::new();
        if let Some(patch) = plan.patches.first() {
            words.push(format!("taints [{}]", short(&patch.body["spec"]["taints"])));
        }
        if let Some(status) = &plan.status {
            let ready = &status.body["status"]["conditions"][0];
            words.push(format!("{} {}", ready["status"].as_str().unwrap(), ready["reason"].as_str().unwrap()));
        }
        if let Some(at) = plan.requeue_at {
            words.push(format!("in {}", at.as_second() - 1_000));
        }
        assert_eq!(words.join(", "), expected);
    }

    #[test]
    fn silence_makes_unknown_and_taints_follow() {
        let both = "taints [unreachable:NoSchedule unreachable:NoExecute]";
        check(&node("True", &[], false), 10, "in 40");
        check(&node("True", &[], false), 50, &format!("{both}, Unknown NodeStatusUnknown"));
        check(&node("", &[], false), 50, &format!("{both}, Unknown NodeStatusNeverUpdated"));
        check(&node("Unknown", &[(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")], false), 900, "");
        check(&node("False", &[], false), 0, "taints [not-ready:NoSchedule not-ready:NoExecute], in 50");
        check(&node("True", &[(NOT_READY, "NoSchedule"), ("mine", "NoExecute")], false), 0, "taints [mine:NoExecute], in 50");
        check(&node("", &[(NOT_READY, "NoSchedule")], false), 0, "in 50");
        check(&node("True", &[], true), 0, "taints [unschedulable:NoSchedule], in 50");
        check(&node("True", &[(UNSCHEDULABLE, "NoSchedule")], false), 0, "taints [], in 50");
    }

    #[test]
    fn pods_of_a_silent_node_are_not_ready() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}}))
        .unwrap();
        let node = node("True", &[], false);
        let plan =
            plan(&Observed { node: &node, pods: &[Arc::new(pod)], alive_at: at(0), grace: SignedDuration::from_secs(50), now: at(99) });
        let conditions = &plan.patches[1].body["status"]["conditions"];
        assert_eq!((&conditions[0]["status"], &conditions[1]["status"]), (&json!("False"), &json!("True")));
    }
}
