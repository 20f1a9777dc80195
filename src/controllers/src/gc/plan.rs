//! Garbage collection of one object: it goes when none of its owners is left, waits for what has to go first, or lets its dependents go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use serde_json::json;

use crate::{
    inventory::graph::{FOREGROUND, Node, ORPHAN},
    plan::{Delete, Patch, Plan, document},
    waiting::Waiting,
};

/// Dependents that are let go in one plan; the rest follows when these are seen.
const BURST_DEPENDENTS: usize = 500;

/// What has become of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It exists.
    Solid,
    /// It exists no more, or never did.
    Absent,
    /// It is being deleted and waits for its dependents.
    Leaving,
}

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The object.
    pub node: &'a Node,
    /// What has become of each of its owners, in their order.
    pub owners: &'a [Owner],
    /// The objects that name it as an owner.
    pub dependents: &'a [Arc<Node>],
}

/// The next step; `Plan::default()` when the object stays as it is.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let node = seen.node;
    if node.orphans_dependents() {
        return let_go(seen);
    }
    if node.deletes_dependents() {
        return wait_for_dependents(seen);
    }
    if node.deleting || node.owners.is_empty() {
        return Plan::default();
    }
    let has = |state: Owner| seen.owners.contains(&state);
    if has(Owner::Solid) {
        // One owner is enough to stay; those that are gone or going are struck from the list.
        if !has(Owner::Absent) && !has(Owner::Leaving) {
            return Plan::default();
        }
        let kept: Vec<&OwnerReference> =
            node.owners.iter().zip(seen.owners).filter(|(_, state)| **state == Owner::Solid).map(|(owner, _)| owner).collect();
        return Plan { patches: vec![set_owners(node, &kept)], ..Plan::default() };
    }
    let mut plan = Plan::default();
    let mut propagation = PropagationPolicy::Background;
    if has(Owner::Leaving) && !seen.dependents.is_empty() {
        // Its own dependents go first, too. A circle of waiting would never end: it is opened here.
        if seen.dependents.iter().any(|d| d.deletes_dependents()) {
            let open: Vec<_> = node.owners.iter().map(|o| OwnerReference { block_owner_deletion: Some(false), ..o.clone() }).collect();
            if node.owners.iter().any(|o| o.block_owner_deletion == Some(true)) {
                plan.patches.push(set_owners(node, &open.iter().collect::<Vec<_>>()));
            }
        }
        propagation = PropagationPolicy::Foreground;
    } else if node.held_by(ORPHAN) {
        propagation = PropagationPolicy::Orphan;
    } else if node.held_by(FOREGROUND) {
        propagation = PropagationPolicy::Foreground;
    }
    plan.deletes.push(Delete { propagation: Some(propagation), ..Delete::one(node.target()) });
    plan
}

/// Takes the object out of its dependents' owners, then the finalizer off the object.
fn let_go(seen: &Observed<'_>) -> Plan {
    let node = seen.node;
    if seen.dependents.is_empty() {
        return Plan { patches: vec![without_finalizer(node, ORPHAN)], ..Plan::default() };
    }
    let patches = seen.dependents.iter().take(BURST_DEPENDENTS).map(|dependent| {
        let kept: Vec<&OwnerReference> = dependent.owners.iter().filter(|o| *o.uid != *node.uid).collect();
        set_owners(dependent, &kept)
    });
    Plan { patches: patches.collect(), waiting: vec![Waiting::DependentsGone { left: seen.dependents.len() }], ..Plan::default() }
}

/// Takes the finalizer off once nothing blocks the deletion any more; the dependents' own keys delete them.
fn wait_for_dependents(seen: &Observed<'_>) -> Plan {
    let left = seen.dependents.iter().filter(|d| d.blocks(&seen.node.uid)).count();
    if left > 0 {
        return Plan { waiting: vec![Waiting::DependentsGone { left }], ..Plan::default() };
    }
    Plan { patches: vec![without_finalizer(seen.node, FOREGROUND)], ..Plan::default() }
}

fn set_owners(node: &Node, owners: &[&OwnerReference]) -> Patch {
    Patch::merge(node.target(), json!({"metadata": {"ownerReferences": document(&owners)}}))
}

fn without_finalizer(node: &Node, finalizer: &str) -> Patch {
    let rest: Vec<&String> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
    Patch::merge(node.target(), json!({"metadata": {"finalizers": rest}}))
}

#[cfg(test)]
mod tests;
