//! Pods that wait for a node: the most important first, and who found no place rests until the cluster changes.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use coracle_client::Key;
use jiff::Timestamp;
use tokio::time::Instant;

/// Rest after the first failure; doubles with each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, Timestamp, Key);

/// One entry per pod: bounded by the number of unbound pods.
#[derive(Debug, Default)]
pub struct Queue {
    ready: BTreeSet<Rank>,
    pods: HashMap<Key, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    rank: Rank,
    failures: u32,
    /// Not before; `None` with `parked`: until the cluster changes.
    rests_until: Option<Instant>,
    parked: bool,
}

impl Queue {
    /// A pod needs a node. One that is known keeps its place and its failures.
    pub fn push(&mut self, key: Key, priority: i32, since: Timestamp) {
        let rank = (Reverse(priority), since, key.clone());
        if self.pods.contains_key(&key) {
            return;
        }
        self.ready.insert(rank.clone());
        self.pods.insert(key, Waiting { rank, failures: 0, rests_until: None, parked: false });
    }

    /// The pod needs no node any more.
    pub fn remove(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.remove(key) {
            self.ready.remove(&waiting.rank);
        }
    }

    /// The pod that is next; it stays known until it is removed or has failed.
    pub fn pop(&mut self, now: Instant) -> Option<Key> {
        self.wake(now);
        self.ready.pop_first().map(|(_, _, key)| key)
    }

    /// No node took it: it rests until the cluster changes.
    pub fn park(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.rests_until = Some(now + rest(waiting.failures));
            waiting.failures = waiting.failures.saturating_add(1);
            waiting.parked = true;
        }
    }

    /// Its binding failed: it is tried again after a rest.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        self.park(key, now);
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.parked = false;
        }
    }

    /// Something changed that may give parked pods a place.
    pub fn cluster_changed(&mut self) {
        self.pods.values_mut().for_each(|w| w.parked = false);
    }

    /// When a resting pod may be tried; `None`: nobody rests by the clock alone.
    pub fn next_wake(&self) -> Option<Instant> {
        self.pods.values().filter(|w| !w.parked).filter_map(|w| w.rests_until).min()
    }

    fn wake(&mut self, now: Instant) {
        for waiting in self.pods.values_mut() {
            if !waiting.parked && waiting.rests_until.is_some_and(|until| until <= now) {
                waiting.rests_until = None;
                self.ready.insert(waiting.rank.clone());
            }
        }
    }
}

fn rest(failures: u32) -> Duration {
    FIRST_REST.saturating_mul(1 << failures.min(10)).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("d", name)
    }

    #[test]
    fn the_important_come_first_then_the_old() {
        let mut queue = Queue::default();
        let at = |s| Timestamp::from_second(s).expect("a time");
        queue.push(key("young"), 0, at(2));
        queue.push(key("old"), 0, at(1));
        queue.push(key("important"), 5, at(3));
        let now = Instant::now();
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(order, [key("important"), key("old"), key("young")]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_and_its_rest() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push(key("p"), 0, Timestamp::UNIX_EPOCH);
        assert!(queue.pop(now).is_some());
        queue.park(&key("p"), now);
        assert_eq!((queue.pop(now + LONGEST_REST), queue.next_wake()), (None, None));
        queue.cluster_changed();
        assert_eq!(queue.pop(now), None, "its rest is not over");
        assert_eq!(queue.next_wake(), Some(now + FIRST_REST));
        assert_eq!(queue.pop(now + FIRST_REST), Some(key("p")));
        queue.park(&key("p"), now);
        queue.cluster_changed();
        assert_eq!(queue.next_wake(), Some(now + FIRST_REST * 2), "the rest doubles");
        queue.remove(&key("p"));
        assert_eq!((queue.pop(now + LONGEST_REST), queue.next_wake()), (None, None));
    }
}
