//! The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::sets::{actual, available, max_unavailable, replicas, spec_replicas};

/// Value of `progressDeadlineSeconds` that means none.
const NO_DEADLINE: i32 = i32::MAX;

/// Reasons of Progressing, upstream's.
pub mod reason {
    /// A new set was made.
    pub const CREATED: &str = "NewReplicaSetCreated";
    /// The new set was there already.
    pub const FOUND: &str = "FoundNewReplicaSet";
    /// The new set was refused.
    pub const REFUSED: &str = "ReplicaSetCreateError";
    /// Pods come or go.
    pub const UPDATED: &str = "ReplicaSetUpdated";
    /// The rollout is complete.
    pub const AVAILABLE: &str = "NewReplicaSetAvailable";
    /// The rollout stands still.
    pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
    /// `spec.paused` was set.
    pub const PAUSED: &str = "DeploymentPaused";
    /// `spec.paused` was taken away.
    pub const RESUMED: &str = "DeploymentResumed";
}

/// The deadline for progress, if there is one.
pub fn deadline(spec: &DeploymentSpec) -> Option<SignedDuration> {
    spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE).map(|s| SignedDuration::from_secs(s.into()))
}

/// Counts, and the condition Available. `new` is one of `all`.
pub fn counted(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|set| of(set)).sum::<i32>();
    let available = sum(&available);
    let before = deployment.status.clone().unwrap_or_default();
    let terminating: Option<Vec<i32>> = all.iter().map(|s| s.status.as_ref().map_or(Some(0), |s| s.terminating_replicas)).collect();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&actual)),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(sum(&|set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((sum(&spec_replicas) - available).max(0)),
        terminating_replicas: terminating.map(|t| t.into_iter().sum()),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let enough = available >= replicas(spec) - max_unavailable(spec);
    let (state, why, text) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, "Available", state, why, text.into(), now);
    status
}

/// Follows the rollout in the condition Progressing, and failing sets in ReplicaFailure.
pub fn progress(deployment: &Deployment, spec: &DeploymentSpec, status: &mut DeploymentStatus, new: Option<&ReplicaSet>, now: Timestamp) {
    let Some(deadline) = deadline(spec) else {
        remove(status, "Progressing");
        return;
    };
    let current = find(deployment.status.as_ref(), "Progressing").cloned();
    let finished = status.replicas == status.updated_replicas && current.as_ref().is_some_and(|c| is(c, reason::AVAILABLE));
    if finished {
        return;
    }
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, spec, status) {
        set(status, "Progressing", "True", reason::AVAILABLE, format!("{subject} has successfully progressed."), now);
    } else if progressed(deployment.status.as_ref(), status) {
        let since = current.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
        remove(status, "Progressing");
        set(status, "Progressing", "True", reason::UPDATED, format!("{subject} is progressing."), now);
        if let (Some(since), Some(condition)) = (since, status.conditions.iter_mut().flatten().find(|c| c.type_ == "Progressing")) {
            condition.last_transition_time = Some(since);
        }
    } else if timed_out(status, deadline, now) {
        set(status, "Progressing", "False", reason::TIMED_OUT, format!("{subject} has timed out progressing."), now);
    }
}

/// ReplicaFailure of the new set, else of any.
pub fn failures(status: &mut DeploymentStatus, new: Option<&ReplicaSet>, all: &[&ReplicaSet], now: Timestamp) {
    let failing = new
        .into_iter()
        .chain(all.iter().copied())
        .find_map(|set| set.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True"));
    match failing {
        None => remove(status, "ReplicaFailure"),
        Some(c) => {
            let (why, text) = (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
            set(status, "ReplicaFailure", "True", &why, text, now);
        }
    }
}

/// Every pod is of the newest revision and available.
pub fn is_complete(deployment: &Deployment, spec: &DeploymentSpec, status: &DeploymentStatus) -> bool {
    let wanted = some(replicas(spec));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// When the deadline passes, if the rollout is under way.
pub fn deadline_at(spec: &DeploymentSpec, status: &DeploymentStatus) -> Option<Timestamp> {
    let condition = find(Some(status), "Progressing").filter(|c| !is(c, reason::AVAILABLE) && !is(c, reason::TIMED_OUT))?;
    // A second more: it has to be past.
    condition.last_update_time.as_ref()?.0.checked_add(deadline(spec)?).ok()?.checked_add(SignedDuration::from_secs(1)).ok()
}

/// The condition of this type.
pub fn find<'a>(status: Option<&'a DeploymentStatus>, type_: &str) -> Option<&'a DeploymentCondition> {
    status?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Whether the condition has this reason.
pub fn is(condition: &DeploymentCondition, reason: &str) -> bool {
    condition.reason.as_deref() == Some(reason)
}

/// Sets a condition. Same status and reason: nothing changes, not even its text; same status: its transition time stays.
pub fn set(status: &mut DeploymentStatus, type_: &str, state: &str, reason: &str, message: String, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let current = conditions.iter().position(|c| c.type_ == type_);
    if current.is_some_and(|i| conditions[i].status == state && is(&conditions[i], reason)) {
        return;
    }
    let before = current.map(|i| conditions.remove(i)).filter(|c| c.status == state);
    conditions.push(DeploymentCondition {
        type_: type_.into(),
        status: state.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: before.and_then(|c| c.last_transition_time).or(Some(Time(now))),
    });
}

/// Takes a condition away.
pub fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
    }
}

fn progressed(before: Option<&DeploymentStatus>, after: &DeploymentStatus) -> bool {
    let of = |s: Option<&DeploymentStatus>, field: fn(&DeploymentStatus) -> Option<i32>| s.and_then(field).unwrap_or(0);
    let old_pods = |s: Option<&DeploymentStatus>| of(s, |s| s.replicas) - of(s, |s| s.updated_replicas);
    let after = Some(after);
    of(after, |s| s.updated_replicas) > of(before, |s| s.updated_replicas)
        || old_pods(after) < old_pods(before)
        || of(after, |s| s.ready_replicas) > of(before, |s| s.ready_replicas)
        || of(after, |s| s.available_replicas) > of(before, |s| s.available_replicas)
}

fn timed_out(status: &DeploymentStatus, deadline: SignedDuration, now: Timestamp) -> bool {
    find(Some(status), "Progressing").is_some_and(|condition| {
        if is(condition, reason::AVAILABLE) {
            return false;
        }
        let since = condition.last_update_time.as_ref().map_or(now, |t| t.0);
        is(condition, reason::TIMED_OUT) || since.checked_add(deadline).is_ok_and(|at| at < now)
    })
}

/// Go drops these when they are zero.
fn some(n: i32) -> Option<i32> {
    Some(n).filter(|n| *n != 0)
}
