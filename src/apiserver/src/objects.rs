//! Objects as they stand in the watch cache, for those who decide by them: authorizers, token checks, admission plugins.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::timeout;

use crate::cache::{Cache, object::Object, stored};

/// Reads without I/O. Namespaces are empty for cluster scope; in `list` an empty one means all.
#[async_trait]
pub trait Objects: Send + Sync + fmt::Debug {
    /// One object, decoded.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value>;
    /// One object, now or as soon as it is there, but no longer than `patience`.
    async fn appears(&self, group: &str, resource: &str, namespace: &str, name: &str, patience: Duration) -> Option<Value>;
    /// All of a kind, decoded.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value>;
    /// A number that is another one after any object of the kind has changed.
    fn version(&self, group: &str, resource: &str) -> u64;
    /// [`Self::version`] for who asks on every write: the way to the kind is looked up once. `None`: it is no shorter.
    fn counter(&self, _group: &str, _resource: &str) -> Option<Counter> {
        None
    }
    /// The pods of a namespace that are bound to a node, each with its revision; decoded on demand.
    fn pods_on(&self, node: &str, namespace: &str) -> Vec<PodRecord>;
}

/// A number that changes with the objects of a kind.
pub struct Counter(pub Box<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.0()).finish()
    }
}

/// A pod that is not decoded yet.
pub struct PodRecord {
    /// Of the pod.
    pub name: String,
    /// Another one after the pod has changed.
    pub revision: u64,
    /// Decodes it.
    pub decode: Box<dyn FnOnce() -> Value + Send>,
}

impl fmt::Debug for PodRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodRecord").field("name", &self.name).field("revision", &self.revision).finish_non_exhaustive()
    }
}

#[async_trait]
impl Objects for Cache {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        Self::get(self, group, resource, namespace, name).map(|object| object.value())
    }

    async fn appears(&self, group: &str, resource: &str, namespace: &str, name: &str, patience: Duration) -> Option<Value> {
        let look = || Objects::get(self, group, resource, namespace, name);
        if let Some(found) = look() {
            return Some(found);
        }
        let wait = async {
            let mut changes = self.subscribe(group, resource);
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                // Who falls behind the history looks at what is there now.
                if changes.next().await.is_err() {
                    changes = self.subscribe(group, resource);
                }
            }
        };
        timeout(patience, wait).await.ok().flatten()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
        Self::list(self, group, resource, namespace).objects.iter().map(|object| object.value()).collect()
    }

    fn version(&self, group: &str, resource: &str) -> u64 {
        self.collection(&stored(group, resource)).newest()
    }

    fn counter(&self, group: &str, resource: &str) -> Option<Counter> {
        let collection = self.collection(&stored(group, resource));
        Some(Counter(Box::new(move || collection.newest())))
    }

    fn pods_on(&self, node: &str, namespace: &str) -> Vec<PodRecord> {
        let Some(at) = self.collection("pods").view().fields.position("spec.nodeName") else { return Vec::new() };
        let here = |object: &Arc<Object>| object.fields().get(at).is_some_and(|name| **name == *node);
        let record = |object: Arc<Object>| PodRecord {
            name: object.name().to_owned(),
            revision: object.revision(),
            decode: Box::new(move || object.value()),
        };
        Self::list(self, "", "pods", namespace).objects.into_iter().filter(here).map(record).collect()
    }
}
