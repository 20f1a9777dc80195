//! What every controller planned, newest last, bounded: the answer to `coracle why`.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use coracle_client::Key;
use jiff::Timestamp;

/// Plans that are kept; at a few hundred bytes each, under a megabyte.
const KEPT_PLANS: usize = 2_048;

/// One plan and how its execution ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it was planned.
    pub at: Timestamp,
    /// By which controller.
    pub controller: &'static str,
    /// For which object.
    pub key: Key,
    /// What was done, one line per action.
    pub actions: Vec<String>,
    /// What it waits for, in words.
    pub waiting: Vec<String>,
    /// Why the execution stopped short, if it did.
    pub failure: Option<String>,
}

/// The ring of records. Clones share it.
#[derive(Clone, Default)]
pub struct Records {
    ring: Arc<Mutex<VecDeque<Record>>>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Adds a record; the oldest goes when the ring is full. A plan that says the same as the controller's last one of this key, and does
    /// nothing, is not kept again.
    pub fn push(&self, record: Record) {
        let mut ring = self.lock();
        if record.actions.is_empty() && record.failure.is_none() {
            let last = ring.iter().rev().find(|r| r.controller == record.controller && r.key == record.key);
            if last.map_or(record.waiting.is_empty(), |last| last.waiting == record.waiting && last.failure.is_none()) {
                return;
            }
        }
        if ring.len() == KEPT_PLANS {
            ring.pop_front();
        }
        ring.push_back(record);
    }

    /// The records of an object, oldest first; of all controllers.
    pub fn of(&self, key: &Key) -> Vec<Record> {
        self.lock().iter().filter(|r| r.key == *key).cloned().collect()
    }

    /// All records, oldest first.
    pub fn all(&self) -> Vec<Record> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Record>> {
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, actions: &[&str], waiting: &[&str]) -> Record {
        Record {
            at: Timestamp::UNIX_EPOCH,
            controller: "c",
            key: Key::new("d", name),
            actions: actions.iter().map(|a| (*a).into()).collect(),
            waiting: waiting.iter().map(|w| (*w).into()).collect(),
            failure: None,
        }
    }

    #[test]
    fn what_says_nothing_new_is_not_kept() {
        let records = Records::default();
        records.push(record("a", &[], &[]));
        records.push(record("a", &["create"], &["pods"]));
        records.push(record("a", &[], &["pods"]));
        records.push(record("b", &[], &["pods"]));
        records.push(record("a", &[], &[]));
        assert_eq!(records.of(&Key::new("d", "a")).len(), 2);
        assert_eq!(records.all().len(), 3);
    }

    #[test]
    fn the_ring_is_bounded_and_forgets_the_oldest() {
        let records = Records::default();
        for i in 0..KEPT_PLANS + 5 {
            records.push(record(&i.to_string(), &["create"], &[]));
        }
        assert_eq!(records.all().len(), KEPT_PLANS);
        assert_eq!(records.all()[0].key.name.as_ref(), "5");
    }
}
