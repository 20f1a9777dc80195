//! Feeds the cache from the store: everything once, then every change in the order of revisions.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_store::{Change, Entry, Event, Range, ReadError, Store};
use futures::{StreamExt as _, stream::BoxStream};
use tracing::{error, warn};

use super::{
    OpenError, PREFIX, Shared,
    collection::{Collection, HISTORY_AGE, Unreadable},
    object::{Action, Object, ObjectError},
};

/// Entries read from the store at a time while loading.
const PAGE_ENTRIES: usize = 2000;
/// Between two tries to read a store that does not answer.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks for changes that are too old to keep.
const AGING: Duration = Duration::from_secs(60);

/// What the feed reads after a load.
pub(super) type Changes = BoxStream<'static, Result<Event, ReadError>>;

/// The objects of a kind, and those that cannot be read.
type Found = (BTreeMap<Arc<str>, Arc<Object>>, Unreadable);

/// Reads the whole store into the cache and returns the stream of what comes after.
pub(super) async fn load(shared: &Shared, store: &dyn Store) -> Result<Changes, OpenError> {
    let mut found: HashMap<String, Found> = HashMap::new();
    let mut range = Range { prefix: PREFIX.into(), after: None, limit: PAGE_ENTRIES, at: None };
    loop {
        let page = store.range(range.clone()).await?;
        range.at = Some(page.revision);
        for entry in &page.entries {
            let Some((kind, key)) = split(&entry.key) else { continue };
            let collection = shared.collection(kind);
            let (objects, unreadable) = found.entry(kind.to_owned()).or_default();
            match Object::take_in(entry, key, entry.modified, Action::Added, &collection.view()) {
                Ok(object) => drop(objects.insert(key.into(), Arc::new(object))),
                // One object's trouble is not the others'.
                Err(error) => drop(unreadable.insert(key.into(), told(&error))),
            }
        }
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { break };
        range.after = Some(last.key.to_string());
    }
    let revision = range.at.unwrap_or_default();
    let changes = store.watch(PREFIX, revision).await?;
    for collection in shared.collections() {
        let (objects, unreadable) = found.remove(&*collection.kind).unwrap_or_default();
        collection.reset(objects, unreadable, revision);
    }
    shared.advance(revision);
    Ok(changes)
}

/// Applies changes, for ever.
pub(super) async fn run(shared: Arc<Shared>, store: Arc<dyn Store>, mut changes: Changes) {
    let mut aging = tokio::time::interval(AGING);
    aging.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ages = Ages::default();
    let mut rounds = Vec::new();
    loop {
        let next = tokio::select! {
            next = changes.next() => next,
            () = due(&rounds) => {
                let now = tokio::time::Instant::now();
                rounds.extract_if(.., |(at, _)| *at <= now).for_each(|(_, collection): (_, Arc<Collection>)| collection.tell());
                continue;
            }
            _ = aging.tick() => {
                let now = Instant::now();
                let forgotten = ages.forgotten(now, shared.applied());
                shared.collections().iter().for_each(|collection| collection.age(now, forgotten));
                continue;
            }
        };
        match next {
            Some(Ok(event)) => rounds.extend(apply(&shared, &event)),
            lost => {
                if let Some(Err(error)) = lost {
                    warn!(%error, "the cache lost its place in the store and reads it anew");
                }
                changes = again(&shared, &*store).await;
            }
        }
    }
}

/// Waits for the first of the rounds that changes are held back for; for ever when there is none.
async fn due(rounds: &[(tokio::time::Instant, Arc<Collection>)]) {
    match rounds.iter().map(|(at, _)| *at).min() {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// When which revision was the newest, one for each look of the last [`HISTORY_AGE`].
#[derive(Debug, Default)]
struct Ages {
    seen: VecDeque<(Instant, u64)>,
    forgotten: u64,
}

impl Ages {
    /// What was the newest revision [`HISTORY_AGE`] ago.
    fn forgotten(&mut self, now: Instant, newest: u64) -> u64 {
        while let Some((_, revision)) = self.seen.pop_front_if(|(at, _)| now.saturating_duration_since(*at) > HISTORY_AGE) {
            self.forgotten = revision;
        }
        self.seen.push_back((now, newest));
        self.forgotten
    }
}

/// Loads until that succeeds.
async fn again(shared: &Shared, store: &dyn Store) -> Changes {
    loop {
        tokio::time::sleep(RETRY).await;
        match load(shared, store).await {
            Ok(changes) => return changes,
            Err(error) => error!(error = &error as &dyn std::error::Error, "the cache cannot read the store"),
        }
    }
}

/// Takes an event in; gives the collection whose watchers are to be told later, and when.
fn apply(shared: &Shared, event: &Event) -> Option<(tokio::time::Instant, Arc<Collection>)> {
    let (entry, action): (&Entry, Action) = match &event.change {
        Change::Put(entry) if entry.created == entry.modified => (entry, Action::Added),
        Change::Put(entry) => (entry, Action::Modified),
        Change::Delete(entry) => (entry, Action::Deleted),
    };
    let mut later = None;
    if let Some((kind, key)) = split(&entry.key) {
        let collection = shared.collection(kind);
        let view = collection.view();
        match Object::take_in(entry, key, event.revision, action, &view) {
            Ok(object) => later = collection.apply(object, &view, action == Action::Deleted).map(|at| (at, collection)),
            Err(_) if action == Action::Deleted => collection.mark(key, None),
            Err(error) => collection.mark(key, Some(told(&error))),
        }
    }
    shared.advance(event.revision);
    later
}

/// Why an object is left out: the log has it, and who asks for the object hears it.
fn told(error: &ObjectError) -> String {
    error!(error = error as &dyn std::error::Error, "an object is left out");
    error.to_string()
}

/// `/registry/pods/default/web` is `pods` and `default/web`.
fn split(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.split_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_forgotten_by_their_age() {
        let (start, mut ages) = (Instant::now(), Ages::default());
        for (seconds, newest, forgotten) in [(0, 7, 0), (60, 9, 0), (300, 9, 0), (301, 12, 7), (400, 15, 9), (9000, 15, 15)] {
            assert_eq!(ages.forgotten(start + Duration::from_secs(seconds), newest), forgotten, "{seconds} s");
        }
    }
}
