//! The families of work queues: how much comes in, how long it waits and how long the work takes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Distribution, family, sample};

/// Seconds, as upstream has them: 10 ns to 1,000 s, each ten times the one before.
const DURATIONS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// All queues of this process; their names are written in our code, so there is a bounded number of them.
static ALL: Mutex<BTreeMap<&'static str, Arc<Queue>>> = Mutex::new(BTreeMap::new());

/// What is counted of one queue.
#[derive(Debug)]
pub struct Queue {
    adds: AtomicU64,
    retries: AtomicU64,
    depth: AtomicI64,
    waited: Distribution,
    worked: Distribution,
    /// When what is being worked on was begun, under a number of its own.
    running: Mutex<BTreeMap<u64, Instant>>,
    begun: AtomicU64,
}

impl Default for Queue {
    fn default() -> Self {
        let (adds, retries, begun) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (waited, worked) = (Distribution::new(DURATIONS), Distribution::new(DURATIONS));
        Self { adds, retries, depth: AtomicI64::new(0), waited, worked, running: Mutex::default(), begun }
    }
}

/// The counters of the queue of this name. A new queue takes the place of an older one of the name: nothing waits in it.
pub fn queue(name: &'static str) -> Arc<Queue> {
    let queue = Arc::clone(ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    queue.depth.store(0, Ordering::Relaxed);
    queue
}

impl Queue {
    /// Something came that was not waiting yet.
    pub fn added(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
    }

    /// So many wait now.
    pub fn holds(&self, waiting: usize) {
        self.depth.store(i64::try_from(waiting).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The turn of one came that had waited for so long.
    pub fn taken(&self, waited: Duration) {
        self.waited.took(waited);
    }

    /// One is to come again later.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The work on one begins; it ends with the guard.
    pub fn work(self: &Arc<Self>) -> Working {
        let (number, since) = (self.begun.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(number, since);
        Working { queue: Arc::clone(self), number, since }
    }

    /// How long the work that runs has been running: all of it together, and the longest.
    fn unfinished(&self, now: Instant) -> (Duration, Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let ages = || running.values().map(|since| now.saturating_duration_since(*since));
        (ages().sum(), ages().max().unwrap_or_default())
    }
}

/// Work on one key.
#[derive(Debug)]
pub struct Working {
    queue: Arc<Queue>,
    number: u64,
    since: Instant,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.queue.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.queue.worked.took(self.since.elapsed());
    }
}

/// Writes the families.
pub fn write(out: &mut String) {
    let all: Vec<(&'static str, Arc<Queue>)> =
        ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(name, queue)| (*name, Arc::clone(queue))).collect();
    if all.is_empty() {
        return;
    }
    let count = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
    type Value = Box<dyn Fn(&Queue) -> f64>;
    let now = Instant::now();
    let families: [(&str, &str, &str, Value); 5] = [
        ("workqueue_adds_total", "counter", "What came into the queue.", Box::new(move |queue| count(&queue.adds))),
        ("workqueue_retries_total", "counter", "What is to come again later.", Box::new(move |queue| count(&queue.retries))),
        ("workqueue_depth", "gauge", "What waits for its turn.", Box::new(|queue| queue.depth.load(Ordering::Relaxed) as f64)),
        (
            "workqueue_unfinished_work_seconds",
            "gauge",
            "How long the work that runs has been running, all of it together.",
            Box::new(move |queue| queue.unfinished(now).0.as_secs_f64()),
        ),
        (
            "workqueue_longest_running_processor_seconds",
            "gauge",
            "How long the longest work that runs has been running.",
            Box::new(move |queue| queue.unfinished(now).1.as_secs_f64()),
        ),
    ];
    for (name, kind, help, value) in families {
        family(out, name, kind, help);
        all.iter().for_each(|(queue, counts)| sample(out, name, &[("name", queue)], value(counts)));
    }
    type Part = fn(&Queue) -> &Distribution;
    let spreads: [(&str, &str, Part); 2] = [
        ("workqueue_queue_duration_seconds", "How long things wait for their turn.", |queue| &queue.waited),
        ("workqueue_work_duration_seconds", "How long the work on one takes.", |queue| &queue.worked),
    ];
    for (name, help, part) in spreads {
        family(out, name, "histogram", help);
        all.iter().for_each(|(queue, counts)| part(counts).write(out, name, &[("name", queue)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_tells_what_waits_what_runs_and_what_has_run() {
        let counts = queue("tested");
        counts.added();
        counts.added();
        counts.holds(2);
        counts.taken(Duration::from_millis(2));
        counts.holds(1);
        counts.retried();
        let (first, second) = (counts.work(), counts.work());
        let later = Instant::now() + Duration::from_secs(5);
        let (all, longest) = counts.unfinished(later);
        assert!(longest >= Duration::from_secs(5) && all >= longest + Duration::from_secs(5), "{all:?} {longest:?}");
        drop(first);
        let mut page = String::new();
        write(&mut page);
        for line in [
            "workqueue_adds_total{name=\"tested\"} 2\n",
            "workqueue_retries_total{name=\"tested\"} 1\n",
            "workqueue_depth{name=\"tested\"} 1\n",
            "workqueue_queue_duration_seconds_bucket{name=\"tested\",le=\"0.001\"} 0\n",
            "workqueue_queue_duration_seconds_bucket{name=\"tested\",le=\"0.01\"} 1\n",
            "workqueue_work_duration_seconds_count{name=\"tested\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is in {page}");
        }
        drop(second);
        assert_eq!(counts.unfinished(later), (Duration::ZERO, Duration::ZERO));
        assert_eq!(queue("tested").depth.load(Ordering::Relaxed), 0, "a new queue of the name is empty");
    }
}
