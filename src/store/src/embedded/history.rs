//! The recent past: what watchers that come back have missed, and what it takes to read an older revision.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::segment::Slot;

/// The bounds of the window. Beyond any of them the oldest changes are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Changes; some 200 bytes of memory each.
    pub events: usize,
    /// Bytes of the log that the changes keep readable, also in segments that are otherwise gone.
    pub log_bytes: u64,
    /// Bytes of values that are held in memory, newest first; older ones are read from the log.
    pub memory_bytes: usize,
    /// Age. Looked at with each write, so an idle store forgets nothing.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // etcd under Kubernetes keeps between 5 and 10 minutes. 8,192 changes are 10 minutes of 13 writes a second and 1.6 MB of memory.
        Bounds { events: 8192, log_bytes: 64 << 20, memory_bytes: 1 << 20, age: Duration::from_secs(600) }
    }
}

/// A change that happened.
#[derive(Clone, Debug)]
pub struct Past {
    /// The key.
    pub key: Arc<str>,
    /// Its state before; `None` if it did not exist.
    pub before: Option<Slot>,
    /// Its state after; `None` if it was deleted.
    pub after: Option<Slot>,
    /// The value after, while it is in memory.
    pub value: Option<Bytes>,
    /// When.
    pub at: Instant,
}

impl Past {
    fn log_bytes(&self) -> u64 {
        let len = |slot: &Option<Slot>| slot.as_ref().map_or(0, |slot| u64::from(slot.place.len));
        len(&self.before).max(len(&self.after))
    }
}

/// The window of changes after revision `oldest`, without a gap.
#[derive(Debug)]
pub struct History {
    bounds: Bounds,
    oldest: u64,
    changes: VecDeque<Past>,
    /// Changes before this index hold no value.
    shed: usize,
    log_bytes: u64,
    memory_bytes: usize,
}

impl History {
    /// An empty window: nothing before `revision` can be told.
    pub fn new(revision: u64, bounds: Bounds) -> Self {
        History { bounds, oldest: revision, changes: VecDeque::new(), shed: 0, log_bytes: 0, memory_bytes: 0 }
    }

    /// The oldest revision that can be read and watched from.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The newest revision.
    pub fn newest(&self) -> u64 {
        self.oldest + self.changes.len() as u64
    }

    /// Adds the change of the next revision.
    pub fn push(&mut self, past: Past) {
        let now = past.at;
        self.log_bytes += past.log_bytes();
        self.memory_bytes += past.value.as_ref().map_or(0, Bytes::len);
        self.changes.push_back(past);
        while self.changes.len() > self.bounds.events
            || self.log_bytes > self.bounds.log_bytes
            || self.changes.front().is_some_and(|oldest| now.saturating_duration_since(oldest.at) > self.bounds.age)
        {
            self.pop();
        }
        while self.memory_bytes > self.bounds.memory_bytes && self.shed < self.changes.len() {
            let value = self.changes[self.shed].value.take();
            self.memory_bytes -= value.map_or(0, |value| value.len());
            self.shed += 1;
        }
    }

    fn pop(&mut self) {
        if let Some(past) = self.changes.pop_front() {
            self.oldest += 1;
            self.shed = self.shed.saturating_sub(1);
            self.log_bytes -= past.log_bytes();
            self.memory_bytes -= past.value.map_or(0, |value| value.len());
        }
    }

    /// Forgets what is needed only for revisions before `revision`.
    pub fn compact(&mut self, revision: u64) {
        while self.oldest < revision && !self.changes.is_empty() {
            self.pop();
        }
    }

    /// The changes after `revision`, which must be at least `oldest`, with their revisions.
    pub fn after(&self, revision: u64) -> impl Iterator<Item = (u64, &Past)> {
        let skip = (revision.saturating_sub(self.oldest) as usize).min(self.changes.len());
        self.changes.range(skip..).zip(self.oldest + skip as u64 + 1..).map(|(past, revision)| (revision, past))
    }

    /// The states at `revision` of the keys that start with `prefix` and have changed since.
    pub fn undo(&self, revision: u64, prefix: &str) -> BTreeMap<Arc<str>, Option<Slot>> {
        let mut states = BTreeMap::new();
        for (_, past) in self.after(revision).filter(|(_, past)| past.key.starts_with(prefix)) {
            states.entry(past.key.clone()).or_insert_with(|| past.before.clone());
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(history: &mut History, key: &str, value: usize, at: Instant) {
        history.push(Past { key: key.into(), before: None, after: None, value: Some(Bytes::from(vec![0; value])), at });
    }

    fn bounds() -> Bounds {
        Bounds { events: 4, log_bytes: 1 << 20, memory_bytes: 100, age: Duration::from_secs(60) }
    }

    #[test]
    fn no_more_changes_than_the_bound() {
        let (mut history, now) = (History::new(10, bounds()), Instant::now());
        for _ in 0..9 {
            push(&mut history, "k", 1, now);
        }
        assert_eq!((history.oldest(), history.newest()), (15, 19));
        assert_eq!(history.after(17).map(|(revision, _)| revision).collect::<Vec<_>>(), [18, 19]);
    }

    #[test]
    fn no_more_values_in_memory_than_the_bound() {
        let (mut history, now) = (History::new(0, bounds()), Instant::now());
        for _ in 0..3 {
            push(&mut history, "k", 60, now);
        }
        assert_eq!(history.after(0).map(|(_, past)| past.value.is_some()).collect::<Vec<_>>(), [false, false, true]);
        push(&mut history, "k", 101, now);
        assert!(history.after(0).all(|(_, past)| past.value.is_none()));
        for _ in 0..20 {
            push(&mut history, "k", 30, now);
        }
        assert_eq!(history.after(history.oldest()).filter(|(_, past)| past.value.is_some()).count(), 3);
    }

    #[test]
    fn no_older_changes_than_the_bound() {
        let (mut history, now) = (History::new(0, bounds()), Instant::now());
        push(&mut history, "k", 1, now);
        push(&mut history, "k", 1, now + Duration::from_secs(30));
        push(&mut history, "k", 1, now + Duration::from_secs(61));
        assert_eq!((history.oldest(), history.newest()), (1, 3));
    }

    #[test]
    fn compaction_stops_at_the_present() {
        let (mut history, now) = (History::new(0, bounds()), Instant::now());
        push(&mut history, "k", 1, now);
        push(&mut history, "k", 1, now);
        history.compact(1);
        assert_eq!((history.oldest(), history.newest()), (1, 2));
        history.compact(99);
        assert_eq!((history.oldest(), history.newest()), (2, 2));
    }
}
