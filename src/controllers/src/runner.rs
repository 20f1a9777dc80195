//! The one loop of all controllers: keys in, plans out, executed, recorded, retried.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use coracle_client::{Informer, Key, informer::Watched, metrics};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    execute::{Expected, Failure, KindName, Outcome, Tell, execute},
    plan::Plan,
    queue::{Turn, WorkQueue},
    record::{Record, Records},
    writer::{Refused, Writer},
};

/// The soonest that time alone brings a key back: a plan that asks for the past must not spin.
const SOONEST_AGAIN: Duration = Duration::from_millis(50);
/// Keys of one controller that are planned and executed at once: more would only queue at the API's log.
const KEYS_AT_ONCE: usize = 16;

/// What the runner asks of a controller: gather what is seen and plan on it.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Names it in records and logs.
    fn name(&self) -> &'static str;

    /// Gathers what is known about the key and plans. `now` has whole seconds.
    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused>;

    /// All keys that there are, for the resync.
    fn keys(&self) -> Vec<Key>;
}

/// What became of the key's last plan.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// What was refused.
    pub failures: Vec<Failure>,
}

/// The wall clock; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The doorbell of one controller: informers wake keys through it. Clones share it.
#[derive(Clone, Default)]
pub struct Wakeups {
    inner: Arc<Inner>,
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeups").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Inner {
    queue: Mutex<WorkQueue<Expected>>,
    rung: Notify,
    sights: Mutex<HashMap<KindName, Arc<dyn Sight>>>,
    /// For the kinds that `sights` lacks.
    other: Mutex<Option<Arc<dyn Sight>>>,
}

/// What an informer has shown.
pub trait Sight: Send + Sync {
    /// Whether what is expected has come.
    fn shows(&self, expected: &Expected) -> bool;
    /// Ends when the first list is complete.
    fn synced(&self) -> BoxFuture<'static, ()>;
}

impl<K: Watched> Sight for Informer<K> {
    fn shows(&self, expected: &Expected) -> bool {
        match expected {
            Expected::Revision { revision, .. } => self.seen() >= *revision,
            Expected::Leaving { key, uid, .. } => self
                .lister()
                .get(key)
                .is_none_or(|object| object.meta().deletion_timestamp.is_some() || object.meta().uid.as_deref() != Some(uid)),
        }
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        let informer = self.clone();
        Box::pin(async move { Informer::synced(&informer).await })
    }
}

impl Wakeups {
    /// Puts the queue into the metrics under this name.
    pub fn count(&self, name: &'static str) {
        lock(&self.inner.queue).count(metrics::queue(name));
    }

    /// Wakes the keys that `keys(old, new)` names at every change of `K`. A controller has to watch every kind that it writes, and map the
    /// writes of a key back to it: that is how the key's rest ends.
    pub fn watch<K: Watched>(&self, informer: &Informer<K>, keys: impl Fn(Option<&K>, Option<&K>) -> Vec<Key> + Send + Sync + 'static) {
        let kind = (K::group(&()).into_owned(), K::kind(&()).into_owned());
        lock(&self.inner.sights).insert(kind, Arc::new(informer.clone()));
        let wakeups = Arc::downgrade(&self.inner);
        informer.observe(move |old, new| {
            if let Some(inner) = wakeups.upgrade() {
                Wakeups { inner }.wake(keys(old.map(Arc::as_ref), new.map(Arc::as_ref)));
            }
        });
    }

    /// Lets keys rest until `sight` shows their writes of kinds that are not watched one by one.
    pub fn watch_all(&self, sight: Arc<dyn Sight>) {
        *lock(&self.inner.other) = Some(sight);
    }

    /// Wakes these keys.
    pub fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        let (mut queue, now) = (lock(&self.inner.queue), Instant::now());
        for key in keys {
            queue.wake(key, now);
        }
        drop(queue);
        self.inner.rung.notify_one();
    }

    fn shows(&self, expected: &Expected) -> bool {
        let (Expected::Revision { kind, .. } | Expected::Leaving { kind, .. }) = expected;
        // A kind that this controller does not watch cannot be waited for.
        if let Some(sight) = lock(&self.inner.sights).get(kind) {
            return sight.shows(expected);
        }
        lock(&self.inner.other).as_ref().is_none_or(|sight| sight.shows(expected))
    }

    async fn synced(&self) {
        let sights: Vec<_> = lock(&self.inner.sights).values().map(|s| s.synced()).collect();
        let other = lock(&self.inner.other).as_ref().map(|s| s.synced());
        futures::future::join_all(sights.into_iter().chain(other)).await;
    }

    fn next(&self) -> Option<Key> {
        lock(&self.inner.queue).next(Instant::now(), |expected| self.shows(expected))
    }

    fn done(&self, key: Key, turn: Turn<Expected>) {
        lock(&self.inner.queue).done(key, turn, Instant::now());
    }

    fn deadline(&self) -> Option<Instant> {
        lock(&self.inner.queue).deadline()
    }
}

/// A controller with all that it runs on.
pub struct Runner<C> {
    /// The controller.
    pub controller: Arc<C>,
    /// Its doorbell.
    pub wakeups: Wakeups,
    /// Its hand.
    pub writer: Arc<dyn Writer>,
    /// Its voice.
    pub tell: Arc<dyn Tell>,
    /// Its clock.
    pub clock: Clock,
    /// Where its plans are kept.
    pub records: Records,
    /// Between two looks at everything.
    pub resync: Duration,
}

impl<C: Controller> Runner<C> {
    /// Runs until `shutdown`; plans that are being executed then are finished first.
    pub async fn run(self, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(self.wakeups.synced()).await.is_none() {
            return;
        }
        let runner = Arc::new(self);
        let mut turns: JoinSet<()> = JoinSet::new();
        let pasts = Pasts::default();
        let mut resync = Instant::now() + runner.resync;
        loop {
            while turns.len() < KEYS_AT_ONCE
                && let Some(key) = runner.wakeups.next()
            {
                let (runner, past) = (runner.clone(), pasts.clone());
                turns.spawn(async move { runner.turn(key, &past).await });
            }
            let wake_at = runner.wakeups.deadline().map_or(resync, |at| at.min(resync));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = runner.wakeups.inner.rung.notified() => {}
                Some(_) = turns.join_next() => {}
                () = tokio::time::sleep_until(wake_at), if turns.len() < KEYS_AT_ONCE => {
                    if wake_at == resync {
                        runner.wakeups.wake(runner.controller.keys());
                        resync = Instant::now() + runner.resync;
                    }
                }
            }
        }
        while turns.join_next().await.is_some() {}
    }

    async fn turn(&self, key: Key, pasts: &Pasts) {
        let _working = lock(&self.wakeups.inner.queue).counts().work();
        let past = pasts.take(&key);
        let now = whole_seconds((self.clock)());
        let (plan, outcome) = match self.controller.plan(&key, now, &past).await {
            Ok(plan) => {
                let outcome = execute(&*self.writer, &*self.tell, &plan).await;
                (plan, outcome)
            }
            Err(refused) => (Plan::default(), unread(refused)),
        };
        let failed = outcome.failures.iter().any(|f| !f.refused.namespace_ends);
        // An object that changed, went, or goes with its namespace between the sight and the act is the ordinary course of things.
        let ordinary = |refused: &Refused| refused.is_conflict() || refused.is_gone() || refused.namespace_ends;
        for failure in outcome.failures.iter().filter(|f| !ordinary(&f.refused)) {
            tracing::warn!(controller = self.controller.name(), %key, action = failure.action, reason = %failure.refused, "refused");
        }
        self.records.push(record(self.controller.name(), &key, now, &plan, &outcome));
        let again = plan.requeue_at.map(|at| {
            let wait = at.duration_since((self.clock)());
            Instant::now() + Duration::try_from(wait).unwrap_or(Duration::ZERO).max(SOONEST_AGAIN)
        });
        let rest = outcome.expected;
        pasts.put(&key, Past { failures: outcome.failures });
        self.wakeups.done(key, Turn { rest, failed, again });
        self.wakeups.inner.rung.notify_one();
    }
}

/// The refusals of the last plans, of keys that had any.
#[derive(Clone, Default)]
struct Pasts(Arc<Mutex<HashMap<Key, Past>>>);

impl Pasts {
    fn take(&self, key: &Key) -> Past {
        lock(&self.0).remove(key).unwrap_or_default()
    }

    fn put(&self, key: &Key, past: Past) {
        if !past.failures.is_empty() {
            lock(&self.0).insert(key.clone(), past);
        }
    }
}

fn unread(refused: Refused) -> Outcome {
    let failure = Failure { verb: "read", action: "gather what is there".into(), kind: String::new(), refused };
    Outcome { expected: Vec::new(), failures: vec![failure] }
}

fn record(controller: &'static str, key: &Key, at: Timestamp, plan: &Plan, outcome: &Outcome) -> Record {
    let mut actions: Vec<String> = plan.patches.iter().map(ToString::to_string).collect();
    actions.extend(plan.creates.iter().map(ToString::to_string));
    actions.extend(plan.deletes.iter().map(ToString::to_string));
    actions.extend(plan.status.iter().map(ToString::to_string));
    let failure = outcome.failures.first().map(|f| format!("{}: {}", f.action, f.refused));
    Record { at, controller, key: key.clone(), actions, waiting: plan.waiting.iter().map(ToString::to_string).collect(), failure }
}

/// The API's timestamps have whole seconds: a plan that compares them must not see fractions that it cannot write.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
