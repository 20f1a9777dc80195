//! Owners and dependents by uid, and what a namespace holds. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use coracle_client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::ApiResource;

use crate::plan::Target;

/// Finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";
/// Finalizer of an owner whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";

/// An object by its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its kind, shared by all objects of it.
    pub kind: Arc<ApiResource>,
    /// Its name.
    pub key: Key,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its resourceVersion.
    pub revision: u64,
    /// Its owners.
    pub owners: Box<[OwnerReference]>,
    /// Its finalizers.
    pub finalizers: Box<[String]>,
    /// Whether it has a deletionTimestamp.
    pub deleting: bool,
}

impl Node {
    /// What the inventory keeps of an object.
    pub fn of(kind: &Arc<ApiResource>, meta: ObjectMeta) -> Self {
        Self {
            kind: kind.clone(),
            key: Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: meta.uid.unwrap_or_default().into(),
            revision: meta.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0),
            owners: meta.owner_references.unwrap_or_default().into(),
            finalizers: meta.finalizers.unwrap_or_default().into(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// The object as a target of writes.
    pub fn target(&self) -> Target {
        Target {
            kind: (*self.kind).clone(),
            key: self.key.clone(),
            uid: self.uid.to_string(),
            revision: if self.revision == 0 { String::new() } else { self.revision.to_string() },
        }
    }

    /// Whether it has this finalizer.
    pub fn held_by(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Whether it waits for its dependents to go first.
    pub fn deletes_dependents(&self) -> bool {
        self.deleting && self.held_by(FOREGROUND)
    }

    /// Whether it waits for its dependents to be let go.
    pub fn orphans_dependents(&self) -> bool {
        self.deleting && self.held_by(ORPHAN)
    }

    /// Whether its deletion has to come before that of the owner `uid`.
    pub fn blocks(&self, uid: &str) -> bool {
        self.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
    }
}

/// An object changed, came or went.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Before; `None`: it is new to us.
    pub old: Option<Arc<Node>>,
    /// After; `None`: it is gone.
    pub new: Option<Arc<Node>>,
    /// At this revision; 0 when not known.
    pub revision: u64,
}

/// All objects.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Arc<str>, Arc<Node>>,
    dependents: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    spaces: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl Graph {
    /// The object of this uid.
    pub fn node(&self, uid: &str) -> Option<&Arc<Node>> {
        self.nodes.get(uid)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<Arc<Node>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid).cloned()).collect()
    }

    /// The objects in a namespace.
    pub fn namespace(&self, name: &str) -> Vec<Arc<Node>> {
        self.spaces.get(name).into_iter().flatten().filter_map(|uid| self.nodes.get(uid).cloned()).collect()
    }

    /// How many objects of each kind, by group and plural, are in a namespace.
    pub fn count(&self, namespace: &str) -> HashMap<(String, String), usize> {
        let mut by_kind: HashMap<*const ApiResource, (&ApiResource, usize)> = HashMap::new();
        for node in self.spaces.get(namespace).into_iter().flatten().filter_map(|uid| self.nodes.get(uid)) {
            by_kind.entry(Arc::as_ptr(&node.kind)).or_insert((&node.kind, 0)).1 += 1;
        }
        let mut counts = HashMap::new();
        for (kind, count) in by_kind.into_values() {
            *counts.entry((kind.group.clone(), kind.plural.clone())).or_insert(0) += count;
        }
        counts
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = Arc<Node>> + '_ {
        self.nodes.values().cloned()
    }

    /// The uids of all objects that have an owner or wait for dependents.
    pub fn related(&self) -> Vec<Arc<str>> {
        let related = |n: &&Arc<Node>| !n.owners.is_empty() || n.deletes_dependents() || n.orphans_dependents();
        self.nodes.values().filter(related).map(|n| n.uid.clone()).collect()
    }

    /// Takes the change in.
    pub fn apply(&mut self, change: &Change) {
        if let Some(old) = change.old.as_ref().and_then(|old| self.nodes.remove(&old.uid)) {
            for owner in &old.owners {
                forget(&mut self.dependents, &owner.uid, &old.uid);
            }
            if let Some(space) = self.spaces.get_mut(&old.key.namespace) {
                space.remove(&old.uid);
                if space.is_empty() {
                    self.spaces.remove(&old.key.namespace);
                }
            }
        }
        let Some(new) = &change.new else { return };
        for owner in &new.owners {
            self.dependents.entry(owner.uid.as_str().into()).or_default().insert(new.uid.clone());
        }
        if !new.key.namespace.is_empty() {
            self.spaces.entry(new.key.namespace.clone()).or_default().insert(new.uid.clone());
        }
        self.nodes.insert(new.uid.clone(), new.clone());
    }

    /// The uids that have to be looked at after this change, for the garbage collector.
    pub fn touched(&self, change: &Change) -> Vec<Arc<str>> {
        let mut touched: Vec<Arc<str>> = Vec::new();
        let dependents = |uid: &str| self.dependents.get(uid).into_iter().flatten().cloned().collect::<Vec<_>>();
        match (&change.old, &change.new) {
            (_, Some(new)) => {
                let waits = new.deletes_dependents() || new.orphans_dependents();
                let was = change.old.as_ref().is_some_and(|old| old.deletes_dependents() || old.orphans_dependents());
                let moved = change.old.as_ref().is_none_or(|old| old.owners != new.owners || old.deleting != new.deleting);
                if waits || (moved && !new.owners.is_empty()) {
                    touched.push(new.uid.clone());
                }
                if waits && !was {
                    touched.extend(dependents(&new.uid));
                }
            }
            (Some(old), None) => touched.extend(dependents(&old.uid)),
            (None, None) => {}
        }
        // Owners that wait for this one.
        let owners = [&change.old, &change.new].into_iter().flatten().flat_map(|n| n.owners.iter());
        for owner in owners.filter_map(|o| self.nodes.get(o.uid.as_str())).filter(|o| o.deletes_dependents() || o.orphans_dependents()) {
            touched.push(owner.uid.clone());
        }
        touched
    }
}

fn forget(map: &mut HashMap<Arc<str>, BTreeSet<Arc<str>>>, at: &str, uid: &Arc<str>) {
    if let Some(set) = map.get_mut(at) {
        set.remove(uid);
        if set.is_empty() {
            map.remove(at);
        }
    }
}
