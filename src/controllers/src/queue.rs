//! The work queue of one controller: keys alone, each at most once, resting after its own writes, backing off after failures. Pure: the
//! clock is given.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use coracle_client::{Key, metrics};
use tokio::time::Instant;

/// Delay after the first failure; doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// The longest delay after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// How long a key rests at most: by then an informer that has not shown our write is broken, and acting on what it has is the lesser evil.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Keys that wait for their turn. `E` is what a resting key has to see first.
#[derive(Debug)]
pub struct WorkQueue<E> {
    /// With the time from which on they wait.
    ready: VecDeque<(Key, Instant)>,
    /// Those in `ready`.
    queued: HashSet<Key>,
    running: HashSet<Key>,
    /// Woken while running: another turn follows.
    woken: HashSet<Key>,
    resting: HashMap<Key, (Vec<E>, Instant)>,
    timers: BTreeSet<(Instant, Key)>,
    timer_of: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
    counts: Arc<metrics::Queue>,
}

impl<E> Default for WorkQueue<E> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            woken: HashSet::new(),
            resting: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            failures: HashMap::new(),
            counts: Arc::default(),
        }
    }
}

/// How a turn ended.
#[derive(Debug)]
pub struct Turn<E> {
    /// What the key's informers have to show before its next turn.
    pub rest: Vec<E>,
    /// Whether something failed: the next turn comes by backoff.
    pub failed: bool,
    /// When the key wants to be looked at though nothing happened.
    pub again: Option<Instant>,
}

impl<E> WorkQueue<E> {
    /// From now on its doings are told of there.
    pub fn count(&mut self, counts: Arc<metrics::Queue>) {
        self.ready.iter().for_each(|_| counts.added());
        counts.holds(self.ready.len());
        self.counts = counts;
    }

    /// Where its doings are told of.
    pub fn counts(&self) -> &Arc<metrics::Queue> {
        &self.counts
    }

    /// The key has changed, as far as somebody could tell.
    pub fn wake(&mut self, key: Key, now: Instant) {
        if self.running.contains(&key) {
            if self.woken.insert(key) {
                self.counts.added();
            }
        } else if self.queued.insert(key.clone()) {
            self.counts.added();
            self.wait(key, now);
        }
    }

    fn wait(&mut self, key: Key, now: Instant) {
        self.ready.push_back((key, now));
        self.counts.holds(self.ready.len());
    }

    /// The next key whose turn it is; it runs until [`WorkQueue::done`]. Keys whose rest is not over, as `seen` says, are put aside: what
    /// they wait for will wake them.
    pub fn next(&mut self, now: Instant, mut seen: impl FnMut(&E) -> bool) -> Option<Key> {
        while let Some(entry) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&entry);
            self.timer_of.remove(&entry.1);
            self.wake(entry.1, now);
        }
        while let Some((key, since)) = self.ready.pop_front() {
            self.counts.holds(self.ready.len());
            self.queued.remove(&key);
            if let Some((expected, until)) = self.resting.get_mut(&key) {
                expected.retain(|e| !seen(e));
                if !expected.is_empty() && *until > now {
                    let until = *until;
                    self.schedule(key, until);
                    continue;
                }
                if !expected.is_empty() {
                    tracing::warn!(%key, "the informer has not shown our own write for {LONGEST_REST:?}, going on without it");
                }
                self.resting.remove(&key);
            }
            self.counts.taken(now.saturating_duration_since(since));
            self.running.insert(key.clone());
            return Some(key);
        }
        None
    }

    /// The key's turn has ended.
    pub fn done(&mut self, key: Key, turn: Turn<E>, now: Instant) {
        self.running.remove(&key);
        if !turn.rest.is_empty() {
            self.resting.insert(key.clone(), (turn.rest, now + LONGEST_REST));
            // Its sight may have come while it ran: one look, which puts it aside if not.
            self.woken.insert(key.clone());
        }
        if turn.failed {
            let failures = self.failures.entry(key.clone()).or_insert(0);
            let delay = backoff(*failures);
            *failures = failures.saturating_add(1);
            self.woken.remove(&key);
            self.counts.retried();
            self.schedule(key.clone(), now + delay);
        } else {
            self.failures.remove(&key);
        }
        if let Some(at) = turn.again {
            self.schedule(key.clone(), at);
        }
        // It was counted when it was woken.
        if self.woken.remove(&key) && self.queued.insert(key.clone()) {
            self.wait(key, now);
        }
    }

    /// How often the key has failed in a row.
    pub fn failures(&self, key: &Key) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// When the queue has to be asked again though nobody woke a key.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Keys that wait for a turn or for time.
    pub fn len(&self) -> usize {
        self.ready.len() + self.timers.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sooner of two schedules stays.
    fn schedule(&mut self, key: Key, at: Instant) {
        match self.timer_of.get(&key) {
            Some(planned) if *planned <= at => return,
            Some(planned) => drop(self.timers.remove(&(*planned, key.clone()))),
            None => {}
        }
        self.timers.insert((at, key.clone()));
        self.timer_of.insert(key, at);
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << failures.min(20)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Key {
        Key::cluster(name)
    }

    fn idle<E>() -> Turn<E> {
        Turn { rest: vec![], failed: false, again: None }
    }

    #[test]
    fn a_key_waits_once_and_runs_alone() {
        let (mut q, now) = (WorkQueue::<()>::default(), Instant::now());
        q.wake(key("a"), now);
        q.wake(key("a"), now);
        assert_eq!(q.next(now, |()| true), Some(key("a")));
        q.wake(key("a"), now);
        q.wake(key("a"), now);
        assert_eq!(q.next(now, |()| true), None);
        q.done(key("a"), idle(), now);
        assert_eq!(q.next(now, |()| true), Some(key("a")));
        q.done(key("a"), idle(), now);
        assert_eq!(q.next(now, |()| true), None);
        assert!(q.is_empty());
    }

    #[test]
    fn a_key_rests_until_its_write_is_seen() {
        let (mut q, now) = (WorkQueue::default(), Instant::now());
        q.wake(key("a"), now);
        q.next(now, |_: &u64| true);
        q.done(key("a"), Turn { rest: vec![7], failed: false, again: None }, now);
        assert_eq!(q.next(now, |r| *r <= 6), None);
        q.wake(key("a"), now);
        assert_eq!(q.next(now, |r| *r <= 6), None);
        q.wake(key("a"), now);
        assert_eq!(q.next(now, |r| *r <= 7), Some(key("a")));
    }

    #[test]
    fn a_write_seen_while_running_gives_the_next_turn_at_once() {
        let (mut q, now) = (WorkQueue::default(), Instant::now());
        q.wake(key("a"), now);
        q.next(now, |_: &u64| true);
        q.done(key("a"), Turn { rest: vec![7], failed: false, again: None }, now);
        assert_eq!(q.next(now, |r| *r <= 7), Some(key("a")));
    }

    #[test]
    fn rest_ends_in_time() {
        let (mut q, now) = (WorkQueue::default(), Instant::now());
        q.wake(key("a"), now);
        q.next(now, |_: &u64| true);
        q.done(key("a"), Turn { rest: vec![7], failed: false, again: None }, now);
        assert_eq!(q.next(now, |_| false), None);
        assert_eq!(q.deadline(), Some(now + LONGEST_REST));
        assert_eq!(q.next(now + LONGEST_REST, |_| false), Some(key("a")));
    }

    #[test]
    fn failures_back_off_and_are_forgiven() {
        let (mut q, mut now) = (WorkQueue::<()>::default(), Instant::now());
        q.wake(key("a"), now);
        for delay in [5, 10, 20] {
            assert_eq!(q.next(now, |()| true), Some(key("a")));
            q.done(key("a"), Turn { rest: vec![], failed: true, again: None }, now);
            assert_eq!(q.next(now, |()| true), None);
            now += Duration::from_millis(delay);
        }
        assert_eq!(q.failures(&key("a")), 3);
        q.next(now, |()| true);
        q.done(key("a"), idle(), now);
        assert_eq!(q.failures(&key("a")), 0);
        assert_eq!(backoff(u32::MAX), LONGEST_BACKOFF);
    }

    #[test]
    fn the_sooner_schedule_stays() {
        let (mut q, now) = (WorkQueue::<()>::default(), Instant::now());
        for seconds in [9, 3, 6] {
            q.wake(key("a"), now);
            q.next(now, |()| true);
            q.done(key("a"), Turn { rest: vec![], failed: false, again: Some(now + Duration::from_secs(seconds)) }, now);
        }
        assert_eq!(q.deadline(), Some(now + Duration::from_secs(3)));
        assert_eq!(q.len(), 1);
    }

    #[test]
    fn what_comes_waits_and_fails_is_counted() {
        let (mut q, mut now) = (WorkQueue::<()>::default(), Instant::now());
        q.wake(key("early"), now);
        q.count(metrics::queue("queue-tests"));
        // The second of each is the same key once more.
        for name in ["a", "a"] {
            q.wake(key(name), now);
        }
        now += Duration::from_secs(2);
        let early = q.next(now, |()| true).expect("a key");
        for _ in 0..2 {
            q.wake(early.clone(), now);
        }
        q.done(early, Turn { rest: vec![], failed: true, again: None }, now);
        let page = metrics::page();
        for line in ["adds_total{name=\"queue-tests\"} 3", "depth{name=\"queue-tests\"} 1", "retries_total{name=\"queue-tests\"} 1"] {
            assert!(page.contains(&format!("workqueue_{line}\n")), "{line} is in {page}");
        }
        for line in ["le=\"1\"} 0", "le=\"10\"} 1"] {
            assert!(
                page.contains(&format!("workqueue_queue_duration_seconds_bucket{{name=\"queue-tests\",{line}\n")),
                "{line} is in {page}"
            );
        }
    }

    proptest! {
        // Whatever happens, a woken key gets a turn after its last wake, and no key runs twice at once.
        #[test]
        fn no_wake_is_lost(steps in prop::collection::vec((0..3u8, 0..4u8), 0..60)) {
            let (mut q, mut now) = (WorkQueue::<u8>::default(), Instant::now());
            let (mut running, mut owed): (Vec<Key>, HashSet<Key>) = (vec![], HashSet::new());
            for (step, k) in steps {
                now += Duration::from_millis(1);
                match step {
                    0 => { q.wake(key(&k.to_string()), now); owed.insert(key(&k.to_string())); }
                    1 => if let Some(k) = q.next(now, |_| true) {
                        prop_assert!(!running.contains(&k));
                        owed.remove(&k);
                        running.push(k);
                    },
                    _ => if let Some(done) = running.pop() {
                        let turn = Turn { rest: if k == 0 { vec![k] } else { vec![] }, failed: k == 1, again: None };
                        q.done(done, turn, now);
                    },
                }
            }
            for k in running.drain(..) { q.done(k, Turn { rest: vec![], failed: false, again: None }, now); }
            now += LONGEST_BACKOFF;
            while let Some(k) = q.next(now, |_| true) { owed.remove(&k); q.done(k, Turn { rest: vec![], failed: false, again: None }, now); }
            prop_assert!(owed.is_empty());
        }
    }
}
