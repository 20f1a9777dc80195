//! ReplicaSet and ReplicationController: as many pods as its spec asks for, no more and no fewer.

use std::sync::Arc;

use coracle_client::{events::reference, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::{
    kind::{Replicated, Wanted},
    rank::surplus,
};
use crate::{
    execute::Failure,
    owner::{Claim, claim, controller_of, controller_ref},
    plan::{Announce, Create, Delete, Plan, Target, soonest},
    pods::{available_at, is_active, is_ready, is_terminating},
    waiting::Waiting,
};

/// Pods that are created or deleted in one plan; the rest follows when these are seen.
const BURST_PODS: usize = 500;

/// What the runner saw. Why it looked is not in here: the same sight gives the same plan.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a, K> {
    /// The set.
    pub set: &'a K,
    /// Its pods, and those of its namespace that nobody controls.
    pub pods: &'a [Arc<Pod>],
    /// Now, in whole seconds.
    pub now: Timestamp,
    /// The create or delete that was refused last time.
    pub failed: Option<&'a Failure>,
}

/// The next step towards `set.spec`; `Plan::default()` when there is none.
pub fn plan<K: Replicated>(seen: &Observed<'_, K>) -> Plan {
    let set = seen.set;
    let Some(spec) = set.wanted() else { return Plan::default() };
    let (mut ours, mut plan) = (Vec::new(), Plan::default());
    for pod in seen.pods.iter().filter(|pod| is_active(pod)) {
        match claim(set, &spec.selector, &**pod) {
            Claim::Ours => ours.push(pod.as_ref()),
            Claim::Adopt(patch) => {
                ours.push(pod);
                plan.patches.push(patch);
            }
            Claim::Release(patch) => plan.patches.push(patch),
            Claim::Foreign => {}
        }
    }
    let wanted = usize::try_from(spec.replicas).unwrap_or(0);
    let leaving = set.meta().deletion_timestamp.is_some();
    if !leaving {
        let missing = wanted.saturating_sub(ours.len()).min(BURST_PODS);
        if missing > 0 {
            plan.creates = vec![new_pod(set, spec.template); missing];
        }
        let doomed = surplus(&ours, ours.len().saturating_sub(wanted).min(BURST_PODS), seen.now);
        plan.deletes = doomed.into_iter().map(|pod| delete(set, pod)).collect();
    }
    let min_ready = spec.min_ready_seconds;
    let status = status(seen, &spec, &ours, wanted);
    let available = status.available_replicas.unwrap_or(0);
    if !leaving && available < spec.replicas {
        plan.waiting.push(Waiting::PodsAvailable { missing: spec.replicas - available, wanted: spec.replicas });
    }
    plan.status = set.tell(status);
    plan.requeue_at =
        ours.iter().filter_map(|pod| available_at(pod, min_ready)).filter(|at| *at > seen.now).fold(None, |a, b| soonest(a, Some(b)));
    plan
}

fn new_pod<K: Replicated>(set: &K, template: Option<&PodTemplateSpec>) -> Create {
    let template = template.cloned().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let pod = k8s_openapi::api::core::v1::Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.meta().name.as_deref().unwrap_or_default())),
            namespace: set.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_ref(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    Create::of(&pod).announced(Announce {
        regarding: reference(set),
        done: ("SuccessfulCreate", "Created pod: {name}".into()),
        failed: Some(("FailedCreate", "Error creating: ".into())),
    })
}

fn delete<K: Replicated>(set: &K, pod: &Pod) -> Delete {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Delete::one(Target::of(pod)).announced(Announce {
        regarding: reference(set),
        done: ("SuccessfulDelete", format!("Deleted pod: {name}")),
        failed: Some(("FailedDelete", "Error deleting: ".into())),
    })
}

fn status<K: Replicated>(seen: &Observed<'_, K>, spec: &Wanted<'_>, ours: &[&Pod], wanted: usize) -> ReplicaSetStatus {
    let min_ready = spec.min_ready_seconds;
    let template = spec.template.and_then(|t| t.metadata.as_ref());
    let labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
    let labelled = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels.iter().all(|(name, value)| own.is_some_and(|own| own.get(name) == Some(value)))
    };
    let terminating = seen.pods.iter().filter(|pod| {
        let owner = controller_of(&pod.metadata).map(|o| o.uid.as_str());
        is_terminating(pod) && owner.is_some() && owner == seen.set.meta().uid.as_deref()
    });
    let conditions = conditions(seen, ours.len(), wanted);
    ReplicaSetStatus {
        replicas: count(ours.len()),
        fully_labeled_replicas: some_count(ours.iter().filter(|pod| labelled(pod)).count()),
        ready_replicas: some_count(ours.iter().filter(|pod| is_ready(pod)).count()),
        available_replicas: some_count(ours.iter().filter(|p| available_at(p, min_ready).is_some_and(|at| at <= seen.now)).count()),
        terminating_replicas: Some(count(terminating.count())),
        observed_generation: seen.set.meta().generation,
        conditions: Some(conditions).filter(|c| !c.is_empty()),
    }
}

/// ReplicaFailure comes with a refusal, and goes when there is nothing left to create or delete.
fn conditions<K: Replicated>(seen: &Observed<'_, K>, have: usize, wanted: usize) -> Vec<ReplicaSetCondition> {
    let mut conditions = seen.set.conditions();
    if have == wanted {
        conditions.retain(|c| c.type_ != "ReplicaFailure");
    } else if let Some(failed) = seen.failed.filter(|f| !f.refused.is_conflict() && !f.refused.namespace_ends)
        && !conditions.iter().any(|c| c.type_ == "ReplicaFailure")
    {
        conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if failed.verb == "create" { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(failed.refused.message.clone()),
            last_transition_time: Some(Time(seen.now)),
        });
    }
    conditions
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Go drops these when they are zero.
fn some_count(n: usize) -> Option<i32> {
    Some(count(n)).filter(|n| *n > 0)
}

#[cfg(test)]
pub(crate) mod tests;
