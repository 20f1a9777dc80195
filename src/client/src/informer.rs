//! Shared informers: one watch per kind and scope in this process, however many roles read it.
//!
//! Base: [`mod@crate::watch`]. On top of it: sharing, indexes, wake-ups that carry a key and nothing else, and [`Informer::seen`], by which a
//! controller knows that its own last write has come back.

use std::{
    any::{Any, TypeId},
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::StreamExt;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch as watched};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Key, Lister, Scope, Step, WatchError,
    lister::{Cache, IndexFn},
    watch::watch,
};

/// What an informer needs of a kind.
pub trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Watched for K {}

/// All informers of one client. Clones share them; the watches end when the last clone is gone.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    informers: Mutex<HashMap<(TypeId, Scope), Box<dyn Any + Send>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers").finish_non_exhaustive()
    }
}

impl Informers {
    /// Informers that watch with this client; none is started yet.
    pub fn new(client: Client) -> Self {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        Self { inner: Arc::new(Inner { client, informers: Mutex::default(), stop, _stop_on_drop: guard }) }
    }

    /// The client that they watch with.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The informer of all objects of `K`; the first call starts its watch. Needs a tokio runtime.
    pub fn of<K: Watched>(&self) -> Informer<K> {
        self.scoped(Scope::default())
    }

    /// The informer of a part of `K`; one watch per kind and scope.
    pub fn scoped<K: Watched>(&self, scope: Scope) -> Informer<K> {
        let mut informers = lock(&self.inner.informers);
        let entry = informers.entry((TypeId::of::<K>(), scope.clone())).or_insert_with(|| Box::new(self.start::<K>(&scope)));
        match entry.downcast_ref::<Informer<K>>() {
            Some(informer) => informer.clone(),
            None => self.start(&scope), // cannot be: the map's key is K's own TypeId
        }
    }

    fn start<K: Watched>(&self, scope: &Scope) -> Informer<K> {
        let informer = Informer { shared: Arc::<Shared<K>>::default() };
        let steps = watch::<K>(&self.inner.client, None, scope.clone());
        tokio::spawn(self.inner.stop.clone().run_until_cancelled_owned(follow(steps, informer.shared.clone())));
        informer
    }
}

/// One kind, watched once. Cheap to clone.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").finish_non_exhaustive()
    }
}

impl<K: Watched> Informer<K> {
    /// Reads what is known.
    pub fn lister(&self) -> Lister<K> {
        Lister { cache: self.shared.cache.clone() }
    }

    /// Adds an index for [`Lister::indexed`]; the first function under a name stays.
    pub fn index(&self, name: &'static str, values: IndexFn<K>) -> &Self {
        write(&self.shared.cache).index(name, values);
        self
    }

    /// The keys that change from now on, beginning with all that exist. A key that changes again before it was taken is given once,
    /// so that the queue is bounded by the number of objects.
    pub fn changes(&self) -> Changes {
        let queue = Arc::new(ChangeQueue::default());
        let weak: Weak<ChangeQueue> = Arc::downgrade(&queue);
        self.register(Box::new(move |old, new| {
            let Some(queue) = weak.upgrade() else { return false };
            if let Some(object) = new.or(old) {
                queue.push(Key::of(&**object));
            }
            true
        }));
        Changes { queue }
    }

    /// Calls `look(old, new)` for every change from now on, in order, beginning with all objects that exist (as new). The cache holds `new`
    /// already. For wake-ups that need both states (the owner before and after): quick, and it must not register observers itself.
    pub fn observe(&self, look: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.register(Box::new(move |old, new| {
            look(old, new);
            true
        }));
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `shared`, which we hold.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// The highest resourceVersion seen of this kind. Revisions are one sequence, so a write that returned `r` is in the cache when this is
    /// at least `r`.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Acquire)
    }

    fn register(&self, observer: Observer<K>) {
        let mut observers = lock(&self.shared.observers);
        let existing = read(&self.shared.cache).objects();
        if existing.iter().all(|object| observer(None, Some(object))) {
            observers.push(observer);
        }
    }
}

/// False: forget me.
type Observer<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) -> bool + Send + Sync>;

struct Shared<K> {
    cache: Arc<RwLock<Cache<K>>>,
    /// Held while a change is applied and told, so that an observer that joins misses none and sees none twice.
    observers: Mutex<Vec<Observer<K>>>,
    synced: watched::Sender<bool>,
    seen: AtomicU64,
}

impl<K> Default for Shared<K> {
    fn default() -> Self {
        Self { cache: Arc::default(), observers: Mutex::default(), synced: watched::Sender::new(false), seen: AtomicU64::new(0) }
    }
}

impl<K: Watched> Shared<K> {
    fn put(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let mut observers = lock(&self.observers);
        let revision = revision(&*object);
        let old = write(&self.cache).put(object.clone());
        self.seen.fetch_max(revision, Ordering::AcqRel);
        observers.retain(|tell| tell(old.as_ref(), Some(&object)));
    }

    fn delete(&self, key: &Key, at: u64) {
        let mut observers = lock(&self.observers);
        let old = write(&self.cache).take(key);
        self.seen.fetch_max(at, Ordering::AcqRel);
        if old.is_some() {
            observers.retain(|tell| tell(old.as_ref(), None));
        }
    }
}

/// Applies the watch to the cache until it is stopped. Errors are told once per outage.
async fn follow<K: Watched>(mut steps: impl futures::Stream<Item = Result<Step<K>, WatchError>> + Unpin, shared: Arc<Shared<K>>) {
    // Keys of the list under way: what it lacks at its end is gone.
    let mut listed: HashSet<Key> = HashSet::new();
    let mut failing = false;
    while let Some(step) = steps.next().await {
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "the watch failed, trying again");
                }
                continue;
            }
        };
        // A refused list comes right behind its beginning, which is no progress therefore.
        if failing && !matches!(step, Step::Begin) {
            tracing::info!(kind = %K::kind(&()), "watching again");
            failing = false;
        }
        match step {
            Step::Begin => listed.clear(),
            Step::Listed(object) => {
                listed.insert(Key::of(&object));
                shared.put(object);
            }
            Step::Complete => {
                let known = read(&shared.cache).keys();
                for key in known.iter().filter(|key| !listed.contains(key)) {
                    shared.delete(key, 0);
                }
                listed = HashSet::new();
                shared.synced.send_replace(true);
            }
            Step::Put(object) => shared.put(object),
            Step::Deleted(object) => shared.delete(&Key::of(&object), revision(&object)),
        }
    }
}

/// Keys of changed objects, each at most once until it is taken.
#[derive(Debug)]
pub struct Changes {
    queue: Arc<ChangeQueue>,
}

impl Changes {
    /// The next key; waits for one.
    pub async fn next(&mut self) -> Key {
        loop {
            if let Some(key) = self.try_next() {
                return key;
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next key, if one waits.
    pub fn try_next(&mut self) -> Option<Key> {
        let mut waiting = lock(&self.queue.waiting);
        let key = waiting.0.pop_front()?;
        waiting.1.remove(&key);
        Some(key)
    }
}

#[derive(Debug, Default)]
struct ChangeQueue {
    waiting: Mutex<(VecDeque<Key>, HashSet<Key>)>,
    arrived: Notify,
}

impl ChangeQueue {
    fn push(&self, key: Key) {
        let mut waiting = lock(&self.waiting);
        if waiting.1.insert(key.clone()) {
            waiting.0.push_back(key);
            self.arrived.notify_one();
        }
    }
}

/// The object's resourceVersion as a number; 0 when there is none.
pub fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
