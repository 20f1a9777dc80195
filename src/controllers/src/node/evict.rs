//! Eviction by taint: a pod leaves its node when a NoExecute taint outlasts what the pod tolerates.

use std::sync::Arc;

use coracle_client::{events::reference, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, PodCondition, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;

use crate::{
    plan::{Announce, Delete, Patch, Plan, Target, document},
    pods::is_terminal,
    waiting::Waiting,
};

/// What the runner saw.
#[derive(Clone, Copy)]
pub struct Observed<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// When a taint without a time of its own was seen first.
    pub first_seen: &'a dyn Fn(&Taint) -> Timestamp,
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// Deletes the pods whose time is over.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let taints: Vec<&Taint> = seen.node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == "NoExecute").collect();
    if taints.is_empty() {
        return plan;
    }
    for pod in seen.pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none() && !is_terminal(p)) {
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let limits = taints.iter().filter_map(|taint| {
            let since = taint.time_added.as_ref().map_or_else(|| (seen.first_seen)(taint), |t| t.0);
            stays_until(taint, tolerations, since)
        });
        match limits.min() {
            Some(at) if at <= seen.now => {
                plan.patches.extend(disrupted(pod, seen.now));
                plan.deletes.push(Delete::one(Target::of(&**pod)).announced(Announce {
                    regarding: reference(&**pod),
                    done: ("TaintManagerEviction", format!("Marking for deletion Pod {}", coracle_client::Key::of(&**pod))),
                    failed: None,
                }));
            }
            Some(at) => {
                plan.look_again(Some(at));
                plan.waiting = vec![Waiting::Time { until: at }];
            }
            None => {}
        }
    }
    plan
}

/// When the pod has to leave because of this taint; `None`: never.
fn stays_until(taint: &Taint, tolerations: &[Toleration], since: Timestamp) -> Option<Timestamp> {
    let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
    if matching.is_empty() {
        return Some(since);
    }
    // The shortest of those that are limited; without any, for ever.
    let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
    Some(since.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX))
}

/// Whether the toleration is about this taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => !key.is_empty() && toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

/// The condition that tells why the pod is deleted, so that Jobs need not count it as a failure.
fn disrupted(pod: &Pod, now: Timestamp) -> Option<Patch> {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default().into_vec();
    if conditions.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True") {
        return None;
    }
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByTaintManager".into()),
        message: Some("Taint manager: deleting due to NoExecute taint".into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    let body = json!({"status": {"conditions": document(&conditions)}});
    Some(Patch { subresource: Some("status"), ..Patch::merge(Target::of(pod), body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// `now` when the pod leaves, `in N`, or nothing; the taint is a hundred seconds old.
    fn check(taints: serde_json::Value, tolerations: serde_json::Value, expected: &str) {
        let mut taints = taints;
        for taint in taints.as_array_mut().unwrap() {
            taint["timeAdded"] = json!("1970-01-01T00:15:00Z");
        }
        let node: Node = serde_json::from_value(json!({"spec": {"taints": taints}})).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations}})).unwrap();
        let plan = plan(&Observed { node: &node, pods: &[Arc::new(pod)], first_seen: &|_| at(0), now: at(1_000) });
        let words = match (plan.deletes.len(), plan.requeue_at) {
            (1, None) => "now".to_owned(),
            (0, Some(at)) => format!("in {}", at.as_second() - 1_000),
            (0, None) => String::new(),
            other => panic!("{other:?}"),
        };
        assert_eq!(words, expected);
    }

    #[test]
    fn a_pod_leaves_when_the_taint_outlasts_its_tolerations() {
        let unreachable = json!([{"key": "u", "effect": "NoExecute"}]);
        let for_seconds = |s: i64| json!([{"key": "u", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": s}]);
        check(json!([]), json!([]), "");
        check(json!([{"key": "u", "effect": "NoSchedule"}]), json!([]), "");
        check(unreachable.clone(), json!([]), "now");
        check(unreachable.clone(), for_seconds(300), "in 200");
        check(unreachable.clone(), for_seconds(100), "now");
        check(unreachable.clone(), for_seconds(-1), "now");
        check(unreachable.clone(), json!([{"operator": "Exists"}]), "");
        check(unreachable.clone(), json!([{"key": "u", "value": "x"}]), "now");
        check(unreachable.clone(), json!([{"key": "u", "operator": "Exists", "effect": "NoSchedule"}]), "now");
        check(unreachable, json!([{"operator": "Exists"}, {"key": "u", "operator": "Exists", "tolerationSeconds": 130}]), "in 30");
        check(json!([{"key": "u", "effect": "NoExecute"}, {"key": "v", "effect": "NoExecute"}]), for_seconds(300), "now");
    }
}
