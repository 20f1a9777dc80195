//! What ReplicaSets and ReplicationControllers differ in: where their specs and statuses say the same things.

use coracle_client::informer::Watched;
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
};
use kube::core::{Expression, Selector};

use crate::{
    owner::owning_selector,
    plan::{Patch, Target},
};

/// A kind that keeps a number of pods. Its status and conditions are spoken of in the words of ReplicaSet.
pub trait Replicated: Watched {
    /// The controller's name in records.
    const CONTROLLER: &'static str;

    /// What it wants, if it can be understood.
    fn wanted(&self) -> Option<Wanted<'_>>;

    /// The conditions that its status has.
    fn conditions(&self) -> Vec<ReplicaSetCondition>;

    /// The change that makes its status say this.
    fn tell(&self, status: ReplicaSetStatus) -> Option<Patch>;
}

/// What is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// So many pods.
    pub replicas: i32,
    /// With these labels; never all.
    pub selector: Selector,
    /// Made of this.
    pub template: Option<&'a PodTemplateSpec>,
    /// Available after this time without a break.
    pub min_ready_seconds: i32,
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";

    fn wanted(&self) -> Option<Wanted<'_>> {
        let spec = self.spec.as_ref()?;
        Some(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            selector: owning_selector(&spec.selector)?,
            template: spec.template.as_ref(),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        })
    }

    fn conditions(&self) -> Vec<ReplicaSetCondition> {
        self.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default()
    }

    fn tell(&self, status: ReplicaSetStatus) -> Option<Patch> {
        Patch::status(Target::of(self), self.status.as_ref(), &status)
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";

    fn wanted(&self) -> Option<Wanted<'_>> {
        let spec = self.spec.as_ref()?;
        let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
        let selector = labels.iter().map(|(name, value)| Expression::Equal(name.clone(), value.clone())).collect();
        Some(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            selector,
            template: spec.template.as_ref(),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        })
    }

    fn conditions(&self) -> Vec<ReplicaSetCondition> {
        let conditions = self.status.iter().flat_map(|s| s.conditions.iter().flatten()).cloned();
        conditions
            .map(|c| ReplicaSetCondition {
                last_transition_time: c.last_transition_time,
                message: c.message,
                reason: c.reason,
                status: c.status,
                type_: c.type_,
            })
            .collect()
    }

    fn tell(&self, status: ReplicaSetStatus) -> Option<Patch> {
        let conditions = status.conditions.into_iter().flatten().map(|c| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        });
        let conditions: Vec<_> = conditions.collect();
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: Some(conditions).filter(|c| !c.is_empty()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Patch::status(Target::of(self), self.status.as_ref(), &status)
    }
}
