//! Pod garbage collection: pods of nodes that are gone, pods that were deleted before they had a node, the oldest of too many finished ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client};
use serde_json::json;

use crate::{
    node::run::{BY_NODE, index_pods},
    plan::{Delete, Patch, Plan, Target, document},
    pods::is_terminal,
    runner::{Controller, Past, Wakeups},
    waiting::Waiting,
    writer::{Refused, refused},
};

/// A node that is gone may come back under its name within this time (an agent that registers anew), with its pods.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Index of pods that have finished.
const FINISHED: &str = "finished pods";
/// The key that stands for all finished pods together.
const ALL_FINISHED: &str = "finished";

/// Serves pods.
pub struct PodGc {
    client: Client,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    threshold: usize,
    /// When each missing node was first seen missing.
    missing: Mutex<HashMap<String, Timestamp>>,
}

impl PodGc {
    /// Subscribes to what it needs.
    pub fn new(client: Client, informers: &Informers, wakeups: &Wakeups, threshold: usize) -> Self {
        index_pods(informers);
        let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
        pods.index(FINISHED, |pod| if is_terminal(pod) { vec![String::new()] } else { Vec::new() });
        let lister = nodes.lister();
        wakeups.watch(&pods, move |old, new| {
            let mut keys = Vec::new();
            if let Some(pod) = new {
                let missing = node_of(pod).is_some_and(|node| lister.get(&Key::cluster(node)).is_none());
                if missing || is_stuck(pod) {
                    keys.push(Key::of(pod));
                }
            }
            if [old, new].into_iter().flatten().any(is_terminal) {
                keys.push(Key::cluster(ALL_FINISHED));
            }
            keys
        });
        let lister = pods.lister();
        wakeups.watch(&nodes, move |old, new| match (old, new) {
            (Some(node), None) | (None, Some(node)) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                lister.indexed(BY_NODE, name).iter().map(|pod| Key::of(&**pod)).collect()
            }
            _ => Vec::new(),
        });
        Self { client, nodes: nodes.lister(), pods: pods.lister(), threshold, missing: Mutex::default() }
    }

    fn missing_since(&self, node: &str, now: Timestamp) -> Option<Timestamp> {
        let mut missing = self.missing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.nodes.get(&Key::cluster(node)).is_some() {
            missing.remove(node);
            return None;
        }
        Some(*missing.entry(node.to_owned()).or_insert(now))
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// Being deleted gracefully, with no agent that could end it.
fn is_stuck(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    meta.deletion_timestamp.is_some() && node_of(pod).is_none() && meta.deletion_grace_period_seconds != Some(0)
}

#[async_trait]
impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        if key.namespace.is_empty() {
            return Ok(too_many(&self.pods.indexed(FINISHED, ""), self.threshold));
        }
        let Some(pod) = self.pods.get(key) else { return Ok(Plan::default()) };
        let Some(node) = node_of(&pod) else { return Ok(if is_stuck(&pod) { end(&pod, None) } else { Plan::default() }) };
        let since = self.missing_since(node, now);
        let due = since.map(|at| at + QUARANTINE);
        if due.is_some_and(|at| at <= now) {
            // The informer may be wrong; the API is not.
            let nodes: Api<Node> = Api::all(self.client.clone());
            if nodes.get_metadata_opt(node).await.map_err(|e| refused(&e))?.is_some() {
                return Ok(Plan::default());
            }
        }
        Ok(orphaned(&pod, due, now))
    }

    fn keys(&self) -> Vec<Key> {
        let gone = |pod: &Arc<Pod>| node_of(pod).is_none_or(|node| self.nodes.get(&Key::cluster(node)).is_none());
        let pods = self.pods.list().into_iter().filter(gone).map(|pod| Key::of(&*pod));
        pods.chain([Key::cluster(ALL_FINISHED)]).collect()
    }
}

/// A pod whose node is missing, to be ended at `due`.
fn orphaned(pod: &Pod, due: Option<Timestamp>, now: Timestamp) -> Plan {
    match due {
        None => Plan::default(),
        Some(at) if at > now => Plan { requeue_at: Some(at), waiting: vec![Waiting::Time { until: at }], ..Plan::default() },
        Some(_) => end(pod, Some(now)),
    }
}

/// Deletes the pod at once; with `failed_at`, its last word is that it failed.
fn end(pod: &Pod, failed_at: Option<Timestamp>) -> Plan {
    let mut plan = Plan::default();
    if let Some(now) = failed_at.filter(|_| !is_terminal(pod)) {
        let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default().into_vec();
        conditions.retain(|c| c.type_ != "DisruptionTarget");
        conditions.push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("DeletionByPodGC".into()),
            message: Some("PodGC: node no longer exists".into()),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        });
        let body = json!({"status": {"phase": "Failed", "conditions": document(&conditions)}});
        plan.patches.push(Patch { subresource: Some("status"), ..Patch::merge(Target::of(pod), body) });
    }
    plan.deletes.push(Delete { grace_seconds: Some(0), ..Delete::one(Target::of(pod)) });
    plan
}

/// The oldest finished pods beyond the threshold.
fn too_many(finished: &[Arc<Pod>], threshold: usize) -> Plan {
    let surplus = if threshold == 0 { 0 } else { finished.len().saturating_sub(threshold) };
    let mut oldest: Vec<&Arc<Pod>> = finished.iter().collect();
    oldest.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|t| t.0), pod.metadata.name.clone()));
    Plan { deletes: oldest.into_iter().take(surplus).flat_map(|pod| end(pod, None).deletes).collect(), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, json: serde_json::Value) -> Arc<Pod> {
        let mut json = json;
        json["metadata"]["name"] = name.into();
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_pod_of_a_missing_node_fails_and_goes_after_the_quarantine() {
        let running = pod("a", json!({"status": {"phase": "Running"}}));
        assert_eq!(orphaned(&running, None, at(9)), Plan::default());
        assert_eq!(orphaned(&running, Some(at(40)), at(9)).requeue_at, Some(at(40)));
        let plan = orphaned(&running, Some(at(40)), at(40));
        assert_eq!(plan.patches[0].body["status"]["phase"], "Failed");
        assert_eq!(plan.deletes[0].grace_seconds, Some(0));
        let done = pod("a", json!({"status": {"phase": "Succeeded"}}));
        assert!(orphaned(&done, Some(at(40)), at(40)).patches.is_empty());
    }

    #[test]
    fn a_deleted_pod_without_a_node_is_stuck_until_its_grace_is_zero() {
        let leaving = |grace: i64, node: &str| {
            pod(
                "a",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}, "spec": {"nodeName": node, "containers": []}}),
            )
        };
        assert!(is_stuck(&leaving(30, "")));
        assert!(!is_stuck(&leaving(0, "")));
        assert!(!is_stuck(&leaving(30, "n")));
        assert!(!is_stuck(&pod("a", json!({}))));
    }

    #[test]
    fn the_oldest_finished_pods_go_beyond_the_threshold() {
        let pods: Vec<_> = [3, 1, 2]
            .iter()
            .map(|age| pod(&age.to_string(), json!({"metadata": {"creationTimestamp": format!("2026-01-0{age}T00:00:00Z")}})))
            .collect();
        let names = |threshold| too_many(&pods, threshold).deletes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(1), ["delete Pod 1", "delete Pod 2"]);
        assert_eq!(names(3), [""; 0]);
        assert_eq!(names(0), [""; 0]);
    }
}
