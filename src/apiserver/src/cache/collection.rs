//! The objects of one kind, now and at every revision of a bounded window, with the changes that lead from one to the other.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    object::{Action, Object},
    view::View,
};

/// How much of the past a collection remembers: what a watcher may fall behind, and how long a list can be continued.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Changes.
    pub changes: usize,
    /// Bytes of superseded objects that the changes keep alive.
    pub bytes: usize,
}

impl Default for Bounds {
    /// A burst of thousands of writes passes without a watcher that must list again; of large objects, fewer.
    fn default() -> Self {
        Self { changes: 8192, bytes: 16 << 20 }
    }
}

/// Changes older than this go, whatever the bounds allow: an idle cluster holds no history. Upstream's etcd keeps five minutes.
pub(super) const HISTORY_AGE: Duration = Duration::from_secs(300);

/// What it takes to tell one watcher, on the server's side and on the client's.
const TELLING: Duration = Duration::from_micros(20);
/// From so many watchers on, their rounds are kept apart: with fewer, one is over before a timer could tell.
const CROWD: usize = 100;
/// However many they are, they do not wait longer for the next round.
const LONGEST_ROUND: Duration = Duration::from_millis(100);
/// All changes may be told.
const ALL: u64 = u64::MAX;

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// The revision of the change.
    pub revision: u64,
    /// What happened.
    pub action: Action,
    /// The object afterwards; for a deletion its last state, at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before.
    pub previous: Option<Arc<Object>>,
    at: Instant,
}

impl Change {
    fn size(&self) -> usize {
        // The state afterwards is counted when it is superseded, or else it is live anyway.
        self.previous.as_ref().map_or(64, |object| object.size())
    }
}

/// The revision asked for is older than what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {wanted} ({oldest})")]
pub struct Expired {
    /// Asked for.
    pub wanted: u64,
    /// The oldest that can still be served.
    pub oldest: u64,
}

/// What a list saw.
#[derive(Debug)]
pub struct Snapshot {
    /// In key order.
    pub objects: Vec<Arc<Object>>,
    /// They are as of this revision.
    pub revision: u64,
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Collection {
    /// `pods`, `deployments.apps`.
    pub kind: Box<str>,
    bounds: Bounds,
    state: RwLock<State>,
    pub(super) changed: Notify,
    pub(super) watchers: AtomicUsize,
    /// Changes above this revision wait for the next round.
    told: AtomicU64,
}

/// Why the store's value of an object cannot be read, by the object's key.
pub(super) type Unreadable = BTreeMap<Box<str>, String>;

#[derive(Debug)]
struct State {
    view: Arc<View>,
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    unreadable: Unreadable,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Every change above this revision is in the history.
    floor: u64,
    /// Lists of revisions below this one are refused by their age: whether they could be made would hang on what nobody wrote.
    forgotten: u64,
    /// Of the last change.
    newest: u64,
    /// Until then the watchers are busy with the last round.
    round_ends: tokio::time::Instant,
}

impl Collection {
    pub(super) fn new(kind: &str, floor: u64, bounds: Bounds) -> Self {
        let state = State::new(Arc::new(View::of(kind)), BTreeMap::new(), Unreadable::new(), floor);
        Self {
            kind: kind.into(),
            bounds,
            state: RwLock::new(state),
            changed: Notify::new(),
            watchers: AtomicUsize::new(0),
            told: AtomicU64::new(ALL),
        }
    }

    /// How objects are shown.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.read().view)
    }

    /// One object, by `namespace/name` or name.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    /// The revision of the last change.
    pub fn newest(&self) -> u64 {
        self.read().newest
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// How many follow its changes.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the object of this key, which the store has, is not here.
    pub fn unreadable(&self, key: &str) -> Option<String> {
        self.read().unreadable.get(key).cloned()
    }

    /// The same for all whose key starts with `prefix`; mostly none.
    pub fn unreadable_under(&self, prefix: &str) -> Vec<String> {
        let state = self.read();
        state.unreadable.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, why)| why.clone()).collect()
    }

    /// The objects whose key starts with `prefix` (`""` or `namespace/`); `applied` is what the whole cache has seen before this call.
    pub fn snapshot(&self, prefix: &str, applied: u64) -> Snapshot {
        let state = self.read();
        Snapshot {
            objects: within(&state.objects, prefix).map(|(_, object)| Arc::clone(object)).collect(),
            revision: applied.max(state.newest),
        }
    }

    /// The same at an earlier revision.
    pub fn snapshot_at(&self, prefix: &str, revision: u64) -> Result<Snapshot, Expired> {
        let state = self.read();
        let oldest = state.floor.max(state.forgotten);
        if revision < oldest {
            return Err(Expired { wanted: revision, oldest });
        }
        let mut then: HashMap<&str, Option<&Arc<Object>>> = HashMap::new();
        for change in state.since(revision) {
            then.entry(change.object.key()).or_insert(change.previous.as_ref());
        }
        let mut objects: Vec<Arc<Object>> =
            within(&state.objects, prefix).filter(|(key, _)| !then.contains_key(&***key)).map(|(_, object)| Arc::clone(object)).collect();
        if !then.is_empty() {
            objects.extend(then.into_values().flatten().filter(|object| object.key().starts_with(prefix)).cloned());
            objects.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        }
        Ok(Snapshot { objects, revision })
    }

    /// At most `limit` changes above `after`, in order.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Arc<Change>>, Expired> {
        let state = self.read();
        if after < state.floor {
            return Err(Expired { wanted: after, oldest: state.floor });
        }
        Ok(state.since(after).take(limit).cloned().collect())
    }

    /// The oldest revision that can be read.
    pub fn floor(&self) -> u64 {
        self.read().floor
    }

    /// Takes one change in; the object of a deletion is its last state. It was read for `view`.
    ///
    /// A crowd of watchers hears of it at once when it is not busy. Otherwise with all that comes before the instant that is given, when
    /// [`Self::tell`] is to be called: told one by one, a burst would cost each of them a wake, a TLS record and a system call a change.
    #[must_use]
    pub(super) fn apply(&self, object: Object, view: &Arc<View>, deleted: bool) -> Option<tokio::time::Instant> {
        let (key, revision): (Arc<str>, u64) = (object.key().into(), object.revision());
        let mut state = self.write();
        state.unreadable.remove(&*key);
        let object = Arc::new(if Arc::ptr_eq(view, &state.view) { object } else { object.seen_by(&state.view).unwrap_or(object) });
        let previous = if deleted { state.objects.remove(&key) } else { state.objects.insert(key, Arc::clone(&object)) };
        let action = match (&previous, deleted) {
            (_, true) => Action::Deleted,
            (None, false) => Action::Added,
            (Some(_), false) => Action::Modified,
        };
        let change = Arc::new(Change { revision, action, object, previous, at: Instant::now() });
        state.newest = revision;
        state.history_bytes += change.size();
        state.history.push_back(change);
        state.trim(Instant::now(), self.bounds);
        let watchers = self.watchers();
        if watchers >= CROWD {
            let (now, round_ends) = (tokio::time::Instant::now(), state.round_ends);
            if now < round_ends {
                // Who is first has the round told at its end.
                let first = self.told.fetch_min(revision - 1, Ordering::Relaxed) == ALL;
                return first.then_some(round_ends);
            }
            state.round_ends = now + round(watchers);
        }
        drop(state);
        self.changed.notify_waiters();
        None
    }

    /// Tells what was held back.
    pub(super) fn tell(&self) {
        let mut state = self.write();
        state.round_ends = tokio::time::Instant::now() + round(self.watchers());
        self.told.store(ALL, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether a watcher that has heard of everything up to `position` is to look for more now.
    pub(super) fn tells(&self, position: u64) -> bool {
        position < self.told.load(Ordering::Relaxed)
    }

    /// Takes in that the store's value of an object cannot be read; `None`: it is gone.
    pub(super) fn mark(&self, key: &str, unreadable: Option<String>) {
        let mut state = self.write();
        match unreadable {
            Some(why) => drop(state.unreadable.insert(key.into(), why)),
            None => drop(state.unreadable.remove(key)),
        }
    }

    /// Starts anew from what the store holds at `revision`; watchers of earlier revisions are told that they expired.
    pub(super) fn reset(&self, objects: BTreeMap<Arc<str>, Arc<Object>>, unreadable: Unreadable, revision: u64) {
        let mut state = self.write();
        *state = State::new(Arc::clone(&state.view), objects, unreadable, revision);
        self.told.store(ALL, Ordering::Relaxed);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Shows all objects in another way, without telling watchers: nobody wrote them.
    pub(crate) fn show(&self, view: View) {
        let view = Arc::new(view);
        let mut shown: HashMap<*const Object, Arc<Object>> = HashMap::new();
        let mut see = |object: &Arc<Object>| {
            let seen = || object.seen_by(&view).map_or_else(|| Arc::clone(object), Arc::new);
            Arc::clone(shown.entry(Arc::as_ptr(object)).or_insert_with(seen))
        };
        // Most of the work is done before the lock, on objects that these two keep alive.
        let objects: Vec<Arc<Object>> = self.read().objects.values().cloned().collect();
        let past: Vec<Arc<Change>> = self.read().history.iter().cloned().collect();
        objects
            .iter()
            .chain(past.iter().flat_map(|change| [Some(&change.object), change.previous.as_ref()]).flatten())
            .for_each(|object| drop(see(object)));
        let mut state = self.write();
        state.objects.values_mut().for_each(|object| *object = see(object));
        for change in &mut state.history {
            let Change { revision, action, at, .. } = **change;
            *change =
                Arc::new(Change { revision, action, object: see(&change.object), previous: change.previous.as_ref().map(&mut see), at });
        }
        state.history_bytes = state.history.iter().map(|change| change.size()).sum();
        state.view = view;
    }

    /// Drops changes that are too old, and the revisions before `forgotten`.
    pub(super) fn age(&self, now: Instant, forgotten: u64) {
        let mut state = self.write();
        state.trim(now, self.bounds);
        state.forgotten = forgotten;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(view: Arc<View>, objects: BTreeMap<Arc<str>, Arc<Object>>, unreadable: Unreadable, floor: u64) -> Self {
        let newest = objects.values().map(|object| object.revision()).max().unwrap_or(0);
        let round_ends = tokio::time::Instant::now();
        Self { view, objects, unreadable, history: VecDeque::new(), history_bytes: 0, floor, forgotten: 0, newest, round_ends }
    }

    fn since(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        self.history.range(self.history.partition_point(|change| change.revision <= revision)..)
    }

    fn trim(&mut self, now: Instant, bounds: Bounds) {
        while let Some(first) = self.history.front() {
            let old = now.saturating_duration_since(first.at) > HISTORY_AGE;
            if !old && self.history.len() <= bounds.changes && self.history_bytes <= bounds.bytes {
                return;
            }
            self.floor = first.revision;
            self.history_bytes -= first.size();
            self.history.pop_front();
        }
        self.history.shrink_to(64);
    }
}

/// How long so many are busy with what they were told.
fn round(watchers: usize) -> Duration {
    TELLING.saturating_mul(u32::try_from(watchers).unwrap_or(u32::MAX)).min(LONGEST_ROUND)
}

fn within<'m>(
    objects: &'m BTreeMap<Arc<str>, Arc<Object>>,
    prefix: &str,
) -> impl Iterator<Item = (&'m Arc<str>, &'m Arc<Object>)> + use<'m> {
    let prefix: Arc<str> = prefix.into();
    objects.range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(&*prefix))
}
