//! Pods that were to go and did not: the condition that said so is taken back, so that nobody counts on it.

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::PodCondition, apimachinery::pkg::apis::meta::v1::Time};
use serde_json::json;

use crate::{
    plan::{Patch, Plan, Target, document},
    pods::{condition, is_terminal},
    runner::{Controller, Past, Wakeups},
    waiting::Waiting,
    writer::Refused,
};

/// Who announced a deletion has this long to ask for it.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);
/// The condition.
const TARGET: &str = "DisruptionTarget";
/// A node agent may take its time: it has more to do first.
const BY_AGENT: &str = "TerminationByKubelet";

/// Serves pods with the condition.
#[derive(Debug)]
pub struct StaleTargets {
    pods: Lister<Pod>,
}

impl StaleTargets {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let pods = informers.of::<Pod>();
        wakeups.watch(&pods, |_, new| new.filter(|pod| since(pod).is_some()).map(Key::of).into_iter().collect());
        Self { pods: pods.lister() }
    }
}

/// Since when a pod that nobody deletes is said to go.
fn since(pod: &Pod) -> Option<Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() || is_terminal(pod) {
        return None;
    }
    let target = condition(pod, TARGET).filter(|c| c.status == "True" && c.reason.as_deref() != Some(BY_AGENT))?;
    Some(target.last_transition_time.as_ref().map_or(Timestamp::MIN, |at| at.0))
}

#[async_trait]
impl Controller for StaleTargets {
    fn name(&self) -> &'static str {
        "stale-disruption"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        Ok(self.pods.get(key).map_or_else(Plan::default, |pod| plan(&pod, now)))
    }

    fn keys(&self) -> Vec<Key> {
        self.pods.list().iter().filter(|pod| since(pod).is_some()).map(|pod| Key::of(&**pod)).collect()
    }
}

fn plan(pod: &Pod, now: Timestamp) -> Plan {
    let Some(since) = since(pod) else { return Plan::default() };
    let until = since.checked_add(PATIENCE).unwrap_or(Timestamp::MAX);
    if until > now {
        return Plan { requeue_at: Some(until), waiting: vec![Waiting::Time { until }], ..Plan::default() };
    }
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    for target in conditions.iter_mut().filter(|c| c.type_ == TARGET) {
        *target = PodCondition {
            type_: TARGET.into(),
            status: "False".into(),
            last_transition_time: Some(Time(now)),
            observed_generation: target.observed_generation,
            ..PodCondition::default()
        };
    }
    let patch = Patch::merge(Target::of(pod), json!({"status": {"conditions": document(&conditions)}}));
    Plan { status: Some(Patch { subresource: Some("status"), ..patch }), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_word_is_taken_back_after_two_minutes() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let check = |metadata: Value, phase: &str, reason: &str, at: &str, expected: &str| {
            let condition = json!({"type": TARGET, "status": "True", "reason": reason, "lastTransitionTime": at});
            let pod =
                json!({"metadata": metadata, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}, condition]}});
            let plan = plan(&serde_json::from_value(pod).unwrap(), now);
            let told = match (&plan.status, plan.requeue_at) {
                (Some(patch), _) => patch.body["status"]["conditions"][1]["status"].as_str().unwrap().to_owned(),
                (None, Some(at)) => at.to_string(),
                (None, None) => "nothing".into(),
            };
            assert_eq!(told, expected);
        };
        let (old, new) = ("2026-01-01T00:07:00Z", "2026-01-01T00:09:00Z");
        check(json!({"name": "a"}), "Running", "EvictionByEvictionAPI", old, "False");
        check(json!({"name": "a"}), "Running", "EvictionByEvictionAPI", new, "2026-01-01T00:11:00Z");
        check(json!({"name": "a"}), "Running", BY_AGENT, old, "nothing");
        check(json!({"name": "a"}), "Failed", "PreemptionByScheduler", old, "nothing");
        check(json!({"name": "a", "deletionTimestamp": old}), "Running", "DeletionByTaintManager", old, "nothing");
    }
}
