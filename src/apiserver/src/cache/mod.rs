//! The watch cache: every object once, as bytes, fed by the store's own stream of changes. All reads of the API are answered from it.

pub mod collection;
mod feed;
pub mod fields;
pub mod object;
pub mod record;
#[cfg(test)]
mod tests;
pub mod view;
pub mod watcher;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use coracle_store::{ReadError, Store};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use collection::{Bounds, Collection, Snapshot};
use object::Object;
use watcher::Watcher;

/// Where objects live in the store: `/registry/<plural[.group]>/[namespace/]name`.
pub const PREFIX: &str = "/registry/";

/// Why the cache could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store does not answer.
    #[error("the store cannot be read")]
    Store(#[from] ReadError),
}

/// The cache; clones share it.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    _feed: Arc<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("applied", &self.shared.applied()).finish_non_exhaustive()
    }
}

/// What the feed and the readers share.
#[derive(Debug, Default)]
struct Shared {
    bounds: Bounds,
    collections: RwLock<HashMap<Box<str>, Arc<Collection>>>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// All changes up to here are in the collections.
    applied: u64,
    /// Who waits for which revision.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Shared {
    fn applied(&self) -> u64 {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).applied
    }

    fn advance(&self, revision: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.applied = progress.applied.max(revision);
        let later = progress.waiting.split_off(&(revision + 1));
        let due = std::mem::replace(&mut progress.waiting, later);
        drop(progress);
        for waiter in due.into_values().flatten() {
            // Who no longer waits needs no word.
            let _ = waiter.send(());
        }
    }

    /// The collection of a kind, made at the first mention.
    fn collection(&self, kind: &str) -> Arc<Collection> {
        if let Some(found) = self.collections.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            return Arc::clone(found);
        }
        let floor = self.applied();
        let mut all = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(kind.into()).or_insert_with(|| Arc::new(Collection::new(kind, floor, self.bounds))))
    }

    fn collections(&self) -> Vec<Arc<Collection>> {
        self.collections.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Cache {
    /// Reads the store and follows it from then on.
    pub async fn open(store: Arc<dyn Store>, bounds: Bounds) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared { bounds, ..Shared::default() });
        let changes = feed::load(&shared, &*store).await?;
        let feed = tokio::spawn(feed::run(Arc::clone(&shared), Arc::clone(&store), changes));
        Ok(Self { shared, store, _feed: Arc::new(AbortOnDropHandle::new(feed)) })
    }

    /// Every change up to this revision can be seen.
    pub fn revision(&self) -> u64 {
        self.shared.applied()
    }

    /// Waits until every change up to `revision` can be seen.
    pub async fn wait(&self, revision: u64) {
        let waiter = {
            let mut progress = self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.applied >= revision {
                return;
            }
            let (sender, waiter) = oneshot::channel();
            progress.waiting.entry(revision).or_default().push(sender);
            waiter
        };
        // The sender goes only when it has spoken or with the cache itself.
        let _ = waiter.await;
    }

    /// Waits until everything that the store has acknowledged can be seen.
    pub async fn catch_up(&self) {
        self.wait(self.store.revision()).await;
    }

    /// The collection of a stored kind (`pods`, `deployments.apps`).
    pub fn collection(&self, kind: &str) -> Arc<Collection> {
        self.shared.collection(kind)
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> Vec<(Box<str>, usize)> {
        let mut all: Vec<_> = self.shared.collections().iter().map(|collection| (collection.kind.clone(), collection.len())).collect();
        all.sort_unstable();
        all
    }

    /// Forgets an empty kind that is no more.
    pub(crate) fn forget(&self, kind: &str) {
        let mut all = self.shared.collections.write().unwrap_or_else(PoisonError::into_inner);
        if all.get(kind).is_some_and(|collection| collection.is_empty()) {
            all.remove(kind);
        }
    }

    /// One object; `namespace` is empty for cluster scope. Group and resource are the stored ones.
    pub fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let collection = self.collection(&stored(group, resource));
        if namespace.is_empty() { collection.get(name) } else { collection.get(&format!("{namespace}/{name}")) }
    }

    /// All objects of a kind, of one namespace unless it is empty.
    pub fn list(&self, group: &str, resource: &str, namespace: &str) -> Snapshot {
        self.collection(&stored(group, resource)).snapshot(&scope(namespace), self.revision())
    }

    /// The changes of a kind after `revision`.
    pub fn watch(&self, group: &str, resource: &str, after: u64) -> Watcher {
        Watcher::new(self.collection(&stored(group, resource)), Arc::clone(&self.shared), after)
    }

    /// The changes of a kind from now on. List after it: then no change is missed.
    pub fn subscribe(&self, group: &str, resource: &str) -> Watcher {
        self.watch(group, resource, self.revision())
    }
}

/// The name of a kind in the store and the cache.
pub fn stored(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// What the keys of a namespace start with.
pub fn scope(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!("{namespace}/") }
}
