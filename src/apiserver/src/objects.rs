//! Objects as they stand in the watch cache, for those who decide by them: authorizers, token checks, admission plugins.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;

/// Reads without I/O. Namespaces are empty for cluster scope; in `list` an empty one means all.
pub trait Objects: Send + Sync + fmt::Debug {
    /// One object.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All of a kind.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
    /// A number that is another one after any object of the kind has changed.
    fn version(&self, group: &str, resource: &str) -> u64;
    /// Pods that are bound to a node, each with its revision; the pod itself is decoded on demand.
    fn pods_on(&self, node: &str, namespace: &str) -> Vec<PodRecord>;
}

/// A pod that is not decoded yet.
pub struct PodRecord {
    /// Of the pod.
    pub name: Arc<str>,
    /// Changes with the pod.
    pub revision: u64,
    /// Decodes it.
    pub decode: Box<dyn FnOnce() -> Option<Arc<Value>> + Send>,
}

impl fmt::Debug for PodRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodRecord").field("name", &self.name).field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// The way to the objects for those who exist before the registry does, since it is opened with them. Empty before and after its life.
#[derive(Clone, Debug, Default)]
pub struct Lookup(Arc<RwLock<Option<Arc<dyn Objects>>>>);

impl Lookup {
    /// From now on, look here (nowhere, at shutdown: the registry holds plugins that hold this).
    pub fn set(&self, objects: Option<Arc<dyn Objects>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = objects;
    }

    fn objects(&self) -> Option<Arc<dyn Objects>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Objects for Lookup {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects()?.get(group, resource, namespace, name)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.objects().map(|objects| objects.list(group, resource, namespace)).unwrap_or_default()
    }

    fn version(&self, group: &str, resource: &str) -> u64 {
        self.objects().map(|objects| objects.version(group, resource)).unwrap_or_default()
    }

    fn pods_on(&self, node: &str, namespace: &str) -> Vec<PodRecord> {
        self.objects().map(|objects| objects.pods_on(node, namespace)).unwrap_or_default()
    }
}
