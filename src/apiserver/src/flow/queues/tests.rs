//! Requests come, wait and go by the seed; no seat is lost, nobody overtakes without reason, flows get equal shares.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The queues as their user sees them.
struct Level {
    queues: Queues,
    /// Queue, seats, and since when it runs, if it does.
    known: HashMap<u64, (u32, u32, Option<f64>)>,
    now: f64,
}

impl Level {
    fn new(shape: Shape, limit: u32) -> Self {
        Self { queues: Queues::new(shape, limit), known: HashMap::new(), now: 0.0 }
    }

    fn start(&mut self, dispatched: Vec<u64>) {
        for id in dispatched {
            let (_, _, since) = self.known.get_mut(&id).expect("only who came is dispatched");
            assert!(since.is_none(), "nobody is dispatched twice");
            *since = Some(self.now);
        }
        let running: u32 = self.known.values().filter(|(_, _, since)| since.is_some()).map(|(_, seats, _)| seats).sum();
        let waiting: u32 = self.known.values().filter(|(_, _, since)| since.is_none()).map(|(_, seats, _)| seats).sum();
        assert_eq!((running, waiting), (self.queues.running_seats(), self.queues.waiting_seats()));
        let alone = self.known.values().filter(|(_, _, since)| since.is_some()).count() == 1;
        assert!(running <= self.queues.limit() || alone, "{running} of {}", self.queues.limit());
    }

    fn arrive(&mut self, flow: u64, id: u64, seats: u32) -> bool {
        let mut dispatched = Vec::new();
        let arrival = self.queues.arrive(self.now, flow, id, seats, &mut dispatched);
        if let Arrival::Taken { queue, .. } = arrival {
            self.known.insert(id, (queue, seats, None));
        }
        self.start(dispatched);
        arrival != Arrival::Full
    }

    fn leave(&mut self, id: u64) {
        let Some((queue, seats, since)) = self.known.remove(&id) else { return };
        let mut dispatched = Vec::new();
        match since {
            Some(since) => self.queues.leave(self.now, queue, seats, self.now - since, &mut dispatched),
            None => assert!(self.queues.give_up(self.now, queue, id, &mut dispatched)),
        }
        self.start(dispatched);
    }
}

proptest! {
    #[test]
    fn no_seat_is_lost(
        steps in proptest::collection::vec((any::<bool>(), 0u64..5, 1u32..4, 0u64..60, 0.0f64..0.02), 1..200), limit in 1u32..6, queues in 0u32..9
    ) {
        let mut level = Level::new(Shape { queues, hand: 3, length: 5 }, limit);
        for (number, (comes, flow, seats, which, passes)) in steps.into_iter().enumerate() {
            level.now += passes;
            if comes {
                level.arrive(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), number as u64, seats);
            } else {
                level.leave(which);
            }
        }
        let mut left: Vec<u64> = level.known.keys().copied().collect();
        left.sort_unstable();
        for id in left {
            level.leave(id);
        }
        prop_assert_eq!((level.queues.running_seats(), level.queues.waiting_seats(), level.queues.active.len()), (0, 0, 0));
        prop_assert!(level.arrive(1, u64::MAX, 1) && level.known[&u64::MAX].2.is_some(), "an empty level serves at once");
    }
}

/// Seconds of service that each flow got when they keep so many requests waiting, each of its width and duration.
fn shares(flows: &[(usize, u32, f64)], limit: u32, seconds: f64) -> Vec<f64> {
    // One queue for each flow, so that only their turns decide.
    let mut level = Level::new(Shape { queues: 64, hand: 1, length: 1000 }, limit);
    let (mut got, mut of, mut next) = (vec![0.0; flows.len()], HashMap::new(), 0);
    for (flow, (waiting, seats, _)) in flows.iter().enumerate() {
        for _ in 0..*waiting {
            level.arrive(flow as u64, next, *seats);
            of.insert(next, flow);
            next += 1;
        }
    }
    while level.now < seconds {
        let ends = |level: &Level| {
            let running = level.known.iter().filter_map(|(id, (_, _, since))| Some((since.as_ref()? + flows[of[id]].2, *id)));
            running.min_by(|a, b| a.partial_cmp(b).unwrap()).unwrap()
        };
        let (end, id) = ends(&level);
        level.now = end;
        let (_, seats, duration) = flows[of[&id]];
        got[of[&id]] += f64::from(seats) * duration;
        level.leave(id);
        level.arrive(of[&id] as u64, next, seats);
        of.insert(next, of[&id]);
        next += 1;
    }
    got
}

#[test]
fn flows_get_equal_shares_however_they_ask() {
    for (flows, limit) in [
        (&[(10, 1, 0.01), (200, 1, 0.01)][..], 4),
        (&[(50, 1, 0.1), (50, 1, 0.001)], 4),
        (&[(50, 4, 0.01), (50, 1, 0.01)], 8),
        (&[(30, 1, 0.02), (30, 2, 0.01), (90, 1, 0.005)], 6),
    ] {
        let got = shares(flows, limit, 20.0);
        let fair = got.iter().sum::<f64>() / got.len() as f64;
        assert!(got.iter().all(|seconds| (seconds - fair).abs() < fair * 0.15), "{flows:?}: {got:?}");
    }
}

#[test]
fn a_level_without_queues_turns_away() {
    let mut level = Level::new(Shape::default(), 2);
    assert!(level.arrive(1, 1, 1) && level.arrive(2, 2, 1) && !level.arrive(3, 3, 1));
    level.leave(1);
    assert!(level.arrive(3, 4, 1));
}

#[test]
fn who_is_given_more_seats_dispatches_at_once() {
    let mut level = Level::new(Shape { queues: 4, hand: 2, length: 10 }, 1);
    (0..5).for_each(|id| assert!(level.arrive(id, id, 1)));
    assert_eq!(level.queues.take_wanted(), 5);
    let mut dispatched = Vec::new();
    level.queues.reshape(0.0, Shape { queues: 4, hand: 2, length: 10 }, 3, &mut dispatched);
    assert_eq!(dispatched.len(), 2);
    level.start(dispatched);
}
