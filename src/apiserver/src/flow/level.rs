//! A priority level at work: who comes gets seats, or waits for them, and gives them back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use super::{
    queues::{Arrival, Queues, Shape},
    width::Width,
};
use crate::metrics::histogram::Histogram;

/// How long a request may wait for its turn: a quarter of the time that it has. Upstream's default.
const PATIENCE: Duration = Duration::from_secs(15);
const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// Why a request got no seat; the words are those of upstream's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `queue-full`
    QueueFull,
    /// `concurrency-limit`
    ConcurrencyLimit,
    /// `time-out`
    TimeOut,
}

/// What is counted of a schema's requests.
#[derive(Debug)]
pub struct Counts {
    pub dispatched: AtomicU64,
    pub queue_full: AtomicU64,
    pub concurrency_limit: AtomicU64,
    pub time_out: AtomicU64,
    pub executing: AtomicI64,
    pub executing_seats: AtomicI64,
    pub waiting: AtomicI64,
    pub waits: Histogram,
    pub executions: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            dispatched: AtomicU64::default(),
            queue_full: AtomicU64::default(),
            concurrency_limit: AtomicU64::default(),
            time_out: AtomicU64::default(),
            executing: AtomicI64::default(),
            executing_seats: AtomicI64::default(),
            waiting: AtomicI64::default(),
            waits: Histogram::seconds(DURATIONS),
            executions: Histogram::seconds(DURATIONS),
        }
    }
}

/// A level.
#[derive(Debug)]
pub struct Level {
    /// Its own seats, for the width of requests.
    pub nominal: std::sync::atomic::AtomicU32,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None`: exempt.
    queues: Option<Queues>,
    waiting: HashMap<u64, oneshot::Sender<()>>,
    next_id: u64,
}

impl Level {
    /// With so many seats.
    pub fn new(exempt: bool, shape: Shape, nominal: u32) -> Self {
        let state = State { queues: (!exempt).then(|| Queues::new(shape, nominal)), waiting: HashMap::new(), next_id: 0 };
        Self { nominal: nominal.into(), began: Instant::now(), state: Mutex::new(state) }
    }

    /// Other seats or queues; who has a place keeps it.
    pub fn reshape(&self, exempt: bool, shape: Shape, nominal: u32) {
        self.nominal.store(nominal, Ordering::Relaxed);
        let mut state = self.state();
        match (&mut state.queues, exempt) {
            (Some(_), false) => self.change(&mut state, |queues, now, dispatched| queues.reshape(now, shape, nominal, dispatched)),
            (Some(_), true) => {
                // Who waits, waits no more.
                self.change(&mut state, |queues, now, dispatched| queues.reshape(now, shape, u32::MAX / 2, dispatched));
            }
            (None, false) => state.queues = Some(Queues::new(shape, nominal)),
            (None, true) => {}
        }
    }

    /// Other seats, lent or borrowed.
    pub fn limit(&self, seats: u32, shape: Shape) {
        self.change(&mut self.state(), |queues, now, dispatched| queues.reshape(now, shape, seats, dispatched));
    }

    /// Most seats wanted at once since the last call, and whether somebody waits now.
    pub fn demand(&self) -> (u32, bool) {
        self.state().queues.as_mut().map_or((0, false), |queues| (queues.take_wanted(), queues.waiting_seats() > 0))
    }

    /// Seats that may be taken, are taken, are waited for.
    pub fn seats(&self) -> Option<(u32, u32, u32)> {
        self.state().queues.as_ref().map(|queues| (queues.limit(), queues.running_seats(), queues.waiting_seats()))
    }

    /// A request of a flow comes, and goes on when it is its turn. `contended` hears when it has to wait.
    pub async fn enter(self: &Arc<Self>, flow: u64, width: Width, counts: &Arc<Counts>, contended: &Notify) -> Result<Seat, Refused> {
        let came = Instant::now();
        let seats = width.most();
        let entered = {
            let mut state = self.state();
            let id = state.next_id;
            state.next_id += 1;
            match state.queues.as_mut() {
                None => Entered::Exempt,
                Some(queues) => {
                    let mut dispatched = Vec::new();
                    match queues.arrive(self.now(), flow, id, seats, &mut dispatched) {
                        Arrival::Full => Entered::Full,
                        Arrival::Taken { queue, .. } => {
                            let seated = dispatched.contains(&id);
                            state.wake(&dispatched);
                            if seated { Entered::Seated(queue) } else { Entered::Waits(queue, id, state.wait(id)) }
                        }
                    }
                }
            }
        };
        let queue = match entered {
            Entered::Exempt => None,
            Entered::Seated(queue) => Some(queue),
            Entered::Full => {
                let (why, count) = match self.queues_at_all() {
                    true => (Refused::QueueFull, &counts.queue_full),
                    false => (Refused::ConcurrencyLimit, &counts.concurrency_limit),
                };
                count.fetch_add(1, Ordering::Relaxed);
                contended.notify_one();
                return Err(why);
            }
            Entered::Waits(queue, id, turn) => {
                contended.notify_one();
                counts.waiting.fetch_add(1, Ordering::Relaxed);
                let mut waiter = Waiter { level: self, counts, queue, id, seats, waits: true };
                if tokio::time::timeout(PATIENCE, turn).await.is_err() && waiter.give_up() {
                    counts.time_out.fetch_add(1, Ordering::Relaxed);
                    return Err(Refused::TimeOut);
                }
                waiter.waits = false;
                Some(queue)
            }
        };
        counts.dispatched.fetch_add(1, Ordering::Relaxed);
        counts.executing.fetch_add(1, Ordering::Relaxed);
        counts.executing_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
        counts.waits.took(came.elapsed());
        Ok(Seat { level: Arc::clone(self), counts: Arc::clone(counts), queue, width, since: Instant::now() })
    }

    fn queues_at_all(&self) -> bool {
        self.state().queues.as_ref().is_some_and(Queues::has_queues)
    }

    fn leave(&self, queue: u32, seats: u32, took: Duration) {
        self.change(&mut self.state(), |queues, now, dispatched| queues.leave(now, queue, seats, took.as_secs_f64(), dispatched));
    }

    fn change(&self, state: &mut State, change: impl FnOnce(&mut Queues, f64, &mut Vec<u64>)) {
        let mut dispatched = Vec::new();
        if let Some(queues) = &mut state.queues {
            change(queues, self.now(), &mut dispatched);
        }
        state.wake(&dispatched);
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, id: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(id, sender);
        receiver
    }

    fn wake(&mut self, dispatched: &[u64]) {
        for id in dispatched {
            if let Some(turn) = self.waiting.remove(id) {
                // Who went away meanwhile gives its seats back itself.
                let _ = turn.send(());
            }
        }
    }
}

enum Entered {
    Exempt,
    Seated(u32),
    Full,
    Waits(u32, u64, oneshot::Receiver<()>),
}

/// A request that waits. It may go away at any time.
struct Waiter<'a> {
    level: &'a Level,
    counts: &'a Counts,
    queue: u32,
    id: u64,
    seats: u32,
    waits: bool,
}

impl Waiter<'_> {
    /// False: it is its turn already.
    fn give_up(&mut self) -> bool {
        let mut state = self.level.state();
        let gone = state.waiting.remove(&self.id).is_some();
        let (queue, id) = (self.queue, self.id);
        if gone {
            self.level.change(&mut state, |queues, now, dispatched| {
                queues.give_up(now, queue, id, dispatched);
            });
            self.waits = false;
        }
        gone
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        // Its client went away in the same moment in which it was its turn.
        if self.waits && !self.give_up() {
            self.level.leave(self.queue, self.seats, Duration::ZERO);
        }
    }
}

/// The seats of a request; given back when it is dropped, or when its events are out.
#[derive(Debug)]
pub struct Seat {
    level: Arc<Level>,
    counts: Arc<Counts>,
    queue: Option<u32>,
    width: Width,
    since: Instant,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (took, seats) = (self.since.elapsed(), self.width.most());
        self.counts.executions.took(took);
        self.counts.executing.fetch_sub(1, Ordering::Relaxed);
        self.counts.executing_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        let Some(queue) = self.queue else { return };
        let lasts = self.width.lasts;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !lasts.is_zero() => {
                let level = Arc::clone(&self.level);
                runtime.spawn(async move {
                    tokio::time::sleep(lasts).await;
                    level.leave(queue, seats, took + lasts);
                });
            }
            _ => self.level.leave(queue, seats, took),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: Shape = Shape { queues: 8, hand: 2, length: 2 };

    fn level(shape: Shape, seats: u32) -> (Arc<Level>, Arc<Counts>, Notify) {
        (Arc::new(Level::new(false, shape, seats)), Arc::default(), Notify::new())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_when_a_seat_is_free() {
        let (level, counts, contended) = level(QUEUES, 1);
        let first = level.enter(1, Width::ONE, &counts, &contended).await.unwrap();
        let mut second = Box::pin(level.enter(1, Width::ONE, &counts, &contended));
        assert!(futures::poll!(&mut second).is_pending());
        contended.notified().await;
        assert_eq!((counts.waiting.load(Ordering::Relaxed), level.demand()), (1, (2, true)));
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(level.seats(), Some((1, 1, 0)));
        drop(second);
        assert_eq!((level.seats(), counts.waiting.load(Ordering::Relaxed)), (Some((1, 0, 0)), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_finds_no_place_is_turned_away() {
        let (level, counts, contended) = level(QUEUES, 1);
        let _first = level.enter(1, Width::ONE, &counts, &contended).await.unwrap();
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(level.enter(1, Width::ONE, &counts, &contended))).collect();
        for request in &mut waiting {
            assert!(futures::poll!(request).is_pending());
        }
        assert_eq!(level.enter(1, Width::ONE, &counts, &contended).await.unwrap_err(), Refused::QueueFull);
        assert_eq!(waiting.remove(0).await.unwrap_err(), Refused::TimeOut);
        drop(waiting);
        assert_eq!(level.seats(), Some((1, 1, 0)));
        let (level, counts, contended) = self::level(Shape::default(), 1);
        let _first = level.enter(1, Width::ONE, &counts, &contended).await.unwrap();
        assert_eq!(level.enter(1, Width::ONE, &counts, &contended).await.unwrap_err(), Refused::ConcurrencyLimit);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_in_the_moment_of_its_turn_gives_its_seat_back() {
        let (level, counts, contended) = level(QUEUES, 1);
        let first = level.enter(1, Width::ONE, &counts, &contended).await.unwrap();
        let mut second = Box::pin(level.enter(1, Width::ONE, &counts, &contended));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second);
        assert_eq!(level.seats(), Some((1, 0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_events_of_a_write_keep_seats() {
        let (level, counts, contended) = level(QUEUES, 4);
        let lasts = Duration::from_millis(5);
        drop(level.enter(1, Width { seats: 1, after: 3, lasts }, &counts, &contended).await.unwrap());
        assert_eq!(level.seats(), Some((4, 3, 0)));
        tokio::time::sleep(2 * lasts).await;
        assert_eq!(level.seats(), Some((4, 0, 0)));
    }
}
