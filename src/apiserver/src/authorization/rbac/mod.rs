//! RBAC: what roles and bindings allow, evaluated from the watch cache.

mod rules;
mod snapshot;

use std::sync::{Arc, Mutex, PoisonError};

pub use rules::{Rule, covers};
pub use snapshot::Snapshot;
pub(crate) use snapshot::rules_of;

use super::{Decision, Question};
use crate::objects::Objects;

/// The four kinds that RBAC is made of.
const KINDS: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];
/// Their group.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Answers from a snapshot that is made anew after any role or binding has changed.
#[derive(Debug)]
pub struct RbacAuthorizer {
    objects: Arc<dyn Objects>,
    current: Mutex<([u64; KINDS.len()], Arc<Snapshot>)>,
}

impl RbacAuthorizer {
    /// Over these objects.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, current: Mutex::new(([u64::MAX; KINDS.len()], Arc::default())) }
    }

    /// Roles and bindings as they stand.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let versions = KINDS.map(|kind| self.objects.version(GROUP, kind));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != versions {
            let [cluster_roles, cluster_bindings, roles, bindings] = KINDS.map(|kind| self.objects.list(GROUP, kind, ""));
            *current = (versions, Arc::new(Snapshot::new(&cluster_roles, &cluster_bindings, &roles, &bindings)));
        }
        Arc::clone(&current.1)
    }

    /// Allows what a rule allows; denies nothing.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        self.snapshot().decide(question)
    }
}

#[cfg(test)]
mod tests;
