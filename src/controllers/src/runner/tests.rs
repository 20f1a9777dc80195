//! The runner in paused time: every case waits on what happens, and says at which millisecond it did.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use coracle_client::EventType;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use tokio::sync::mpsc;

use super::*;
use crate::{
    execute::kind_name,
    plan::{Create, Delete, Patch, Told},
    writer::Written,
};

/// What a turn plans.
type Script = Box<dyn Fn(&Key, Timestamp, &Past) -> Plan + Send + Sync>;

/// Plans what it is told and reports its turns.
struct Scripted {
    plan: Script,
    turns: mpsc::UnboundedSender<(Key, Instant)>,
}

#[async_trait]
impl Controller for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused> {
        self.turns.send((key.clone(), Instant::now())).unwrap();
        Ok((self.plan)(key, now, past))
    }

    fn keys(&self) -> Vec<Key> {
        vec![Key::cluster("resynced")]
    }
}

/// Refuses the first `refusals` writes.
#[derive(Default)]
struct Api {
    refusals: AtomicU32,
    writes: AtomicU64,
}

#[async_trait]
impl Writer for Api {
    async fn create(&self, _: &Create) -> Result<Written, Refused> {
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(Refused { code: 500, reason: "InternalError".into(), message: "not now".into(), namespace_ends: false });
        }
        let revision = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Written { name: "made".into(), uid: "u".into(), revision })
    }

    async fn patch(&self, _: &Patch, _: &str) -> Result<Written, Refused> {
        Ok(Written::default())
    }

    async fn delete(&self, _: &Delete, _: &str) -> Result<Written, Refused> {
        Ok(Written::default())
    }
}

#[derive(Default)]
struct Voice(Mutex<Vec<String>>);

impl Tell for Voice {
    fn tell(&self, told: Told) {
        lock(&self.0).push(format!("{} {}: {}", told.kind.as_str(), told.reason, told.message));
    }
}

/// An informer that has seen up to a revision.
#[derive(Default)]
struct Seen(AtomicU64);

impl Sight for Seen {
    fn shows(&self, expected: &Expected) -> bool {
        matches!(expected, Expected::Revision { revision, .. } if *revision <= self.0.load(Ordering::SeqCst))
    }

    fn synced(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    wakeups: Wakeups,
    turns: mpsc::UnboundedReceiver<(Key, Instant)>,
    api: Arc<Api>,
    told: Arc<Voice>,
    records: Records,
    start: Instant,
    shutdown: CancellationToken,
}

impl Bench {
    fn new(plan: impl Fn(&Key, Timestamp, &Past) -> Plan + Send + Sync + 'static) -> Self {
        let (sender, turns) = mpsc::unbounded_channel();
        let (wakeups, api, told, records) = (Wakeups::default(), Arc::new(Api::default()), Arc::new(Voice::default()), Records::default());
        let (start, shutdown) = (Instant::now(), CancellationToken::new());
        let runner = Runner {
            controller: Arc::new(Scripted { plan: Box::new(plan), turns: sender }),
            wakeups: wakeups.clone(),
            writer: api.clone(),
            tell: told.clone(),
            clock: Arc::new(move || Timestamp::from_second(1_000).unwrap() + start.elapsed()),
            records: records.clone(),
            resync: Duration::from_secs(600),
        };
        tokio::spawn(runner.run(shutdown.clone()));
        Self { wakeups, turns, api, told, records, start, shutdown }
    }

    /// The next turn: key and milliseconds since the start.
    async fn turn(&mut self) -> (String, u128) {
        let (key, at) = self.turns.recv().await.expect("the runner ended");
        (key.to_string(), (at - self.start).as_millis())
    }
}

fn create() -> Create {
    let regarding = ObjectReference::default();
    Create::of(&ConfigMap::default()).announced(crate::plan::Announce {
        regarding,
        done: ("Made", "made {name}".into()),
        failed: Some(("Failed", "no: ".into())),
    })
}

#[tokio::test(start_paused = true)]
async fn a_refused_plan_comes_back_by_backoff_with_its_failure() {
    let mut bench = Bench::new(|_, _, past| {
        let message = past.failures.first().map_or(String::new(), |f| f.refused.message.clone());
        let told = Told { regarding: ObjectReference::default(), kind: EventType::Normal, reason: "Past", message };
        Plan { creates: vec![create()], events: vec![told], ..Plan::default() }
    });
    bench.api.refusals.store(2, Ordering::SeqCst);
    bench.wakeups.wake([Key::cluster("a")]);
    assert_eq!(bench.turn().await, ("a".into(), 0));
    // tokio's timers may be a millisecond late.
    let (first, second) = (bench.turn().await.1, bench.turn().await.1);
    assert!((5..=6).contains(&first) && (10..=11).contains(&(second - first)), "{first} {second}");
    bench.wakeups.wake([Key::cluster("b")]);
    bench.turn().await;
    let told = lock(&bench.told.0).clone();
    assert_eq!(told[..4], ["Warning Failed: no: not now", "Warning Failed: no: not now", "Normal Made: made made", "Normal Past: not now"]);
    assert_eq!(bench.records.of(&Key::cluster("a"))[0].failure.as_deref(), Some("create ConfigMap ?: not now"));
}

#[tokio::test(start_paused = true)]
async fn a_key_rests_until_its_write_is_seen_though_it_is_woken() {
    let mut bench = Bench::new(|key, _, _| Plan { creates: if &*key.name == "a" { vec![create()] } else { vec![] }, ..Plan::default() });
    let seen = Arc::new(Seen::default());
    bench.wakeups.watch_all(seen.clone());
    bench.wakeups.wake([Key::cluster("a")]);
    assert_eq!(bench.turn().await.0, "a");
    bench.wakeups.wake([Key::cluster("a")]);
    bench.wakeups.wake([Key::cluster("b")]);
    assert_eq!(bench.turn().await.0, "b", "a has not seen its write");
    seen.0.store(1, Ordering::SeqCst);
    bench.wakeups.wake([Key::cluster("a")]);
    assert_eq!(bench.turn().await.0, "a");
}

#[tokio::test(start_paused = true)]
async fn time_brings_a_key_back_and_so_does_the_resync() {
    let mut bench = Bench::new(|key, now, _| Plan {
        requeue_at: (&*key.name == "a" && now.as_second() < 1_030).then(|| Timestamp::from_second(1_030).unwrap()),
        ..Plan::default()
    });
    bench.wakeups.wake([Key::cluster("a")]);
    assert_eq!(bench.turn().await, ("a".into(), 0));
    let (key, at) = bench.turn().await;
    assert_eq!((key.as_str(), at / 10), ("a", 3_000));
    let (key, at) = bench.turn().await;
    assert_eq!((key.as_str(), at / 1_000), ("resynced", 600));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_runner() {
    let mut bench = Bench::new(|_, _, _| Plan::default());
    bench.wakeups.wake([Key::cluster("a")]);
    bench.turn().await;
    bench.shutdown.cancel();
    assert!(bench.turns.recv().await.is_none());
}

#[test]
fn kinds_are_named_by_group_and_kind() {
    assert_eq!(kind_name(&create().kind), (String::new(), "ConfigMap".to_owned()));
}
