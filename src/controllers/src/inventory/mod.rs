//! The inventory of the cluster: who owns whom, what is being deleted, what is in a namespace; of every kind, by metadata alone.
//!
//! One metadata watch per listable kind, found by discovery and found anew when a CRD or an APIService changes. An object costs some
//! hundred bytes here, whatever its size. The garbage collector and the namespace controller decide on it.

mod discover;
pub mod graph;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::future::BoxFuture;
use kube::{Client, core::ApiResource};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    execute::{Expected, KindName, kind_name},
    runner::{Sight, Wakeups},
};
use graph::{Change, Graph, Node};

/// A kind whose objects can be listed and deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// How to reach it.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether deletecollection works on it.
    pub sweepable: bool,
    /// Whether the inventory knows its objects. Events own nothing, are owned by nothing, and there are many.
    pub watched: bool,
}

/// The inventory. Clones share it.
#[derive(Clone)]
pub struct Inventory {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Rung when a kind has been listed for the first time, or discovery has ended.
    progress: Notify,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Default)]
struct State {
    graph: Graph,
    kinds: HashMap<KindName, Watched>,
    discovered: bool,
}

struct Watched {
    kind: Kind,
    synced: bool,
    seen: u64,
    stop: CancellationToken,
}

/// Hears of every change; called in order, outside of the graph's lock.
type Listener = Box<dyn Fn(&Inventory, &Change) + Send + Sync>;

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inventory").finish_non_exhaustive()
    }
}

impl Inventory {
    /// Starts to discover and to watch; ends with `shutdown`.
    pub fn start(client: Client, shutdown: &CancellationToken) -> Self {
        let inner = Inner { state: Mutex::default(), progress: Notify::new(), listeners: Mutex::default() };
        let inventory = Self { inner: Arc::new(inner) };
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(discover::follow(inventory.clone(), client, shutdown.clone())));
        inventory
    }

    /// Wakes the keys that `keys` names at every change, and lets the keys of these wake-ups rest until the inventory shows their writes.
    pub fn wake(&self, wakeups: &Wakeups, keys: impl Fn(&Graph, &Change) -> Vec<coracle_client::Key> + Send + Sync + 'static) {
        wakeups.watch_all(Arc::new(self.clone()));
        let bell = wakeups.clone();
        lock(&self.inner.listeners).push(Box::new(move |inventory, change| {
            let keys = keys(&lock(&inventory.inner.state).graph, change);
            bell.wake(keys);
        }));
    }

    /// Looks at the graph. Quick: the watches wait for it.
    pub fn read<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&lock(&self.inner.state).graph)
    }

    /// The kind of this group and name, if there is one.
    pub fn kind(&self, name: &KindName) -> Option<Kind> {
        lock(&self.inner.state).kinds.get(name).map(|w| w.kind.clone())
    }

    /// All kinds that live in namespaces.
    pub fn namespaced_kinds(&self) -> Vec<Kind> {
        let state = lock(&self.inner.state);
        let mut kinds: Vec<Kind> = state.kinds.values().map(|w| w.kind.clone()).filter(|k| k.namespaced).collect();
        kinds.sort_by_key(|kind| kind_name(&kind.resource));
        kinds
    }

    fn apply(&self, kind: &KindName, change: Change) {
        {
            let mut state = lock(&self.inner.state);
            if let Some(watched) = state.kinds.get_mut(kind) {
                watched.seen = watched.seen.max(change.revision);
            }
            state.graph.apply(&change);
        }
        for listener in lock(&self.inner.listeners).iter() {
            listener(self, &change);
        }
    }

    fn node_of(&self, uid: &str) -> Option<Arc<Node>> {
        lock(&self.inner.state).graph.node(uid).cloned()
    }

    async fn all_synced(&self) {
        loop {
            let progress = self.inner.progress.notified();
            {
                let state = lock(&self.inner.state);
                if state.discovered && state.kinds.values().all(|w| w.synced) {
                    return;
                }
            }
            progress.await;
        }
    }
}

impl Sight for Inventory {
    fn shows(&self, expected: &Expected) -> bool {
        let state = lock(&self.inner.state);
        match expected {
            Expected::Revision { kind, revision } => state.kinds.get(kind).is_none_or(|w| w.seen >= *revision),
            Expected::Leaving { uid, .. } => state.graph.node(uid).is_none_or(|node| node.deleting),
        }
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        let inventory = self.clone();
        Box::pin(async move { inventory.all_synced().await })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
