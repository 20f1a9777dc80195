//! Fair queues of one priority level (KEP-1040), with the clock as an argument: who comes is dispatched, waits, or is turned away.
//!
//! Time is virtual: it advances by what each queue that wants something could have got, and the queue that is the furthest behind its share
//! goes first. A request counts with the seats that it takes for the time that it takes them; before that is known, with a guess.

use std::collections::{BTreeMap, VecDeque};

use super::deal::deal;

/// How long a request takes until it is known, in seconds; upstream's guess.
const GUESS_S: f64 = 0.003;

/// The queues of a level. With none, who finds no seat is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many there are.
    pub queues: u32,
    /// In how many of them one flow may wait.
    pub hand: u32,
    /// Requests that wait in one.
    pub length: usize,
}

/// What becomes of who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Served, or waiting, by way of this queue.
    Taken {
        /// Its number.
        queue: u32,
        /// The queue's length with it.
        length: usize,
    },
    /// Its queues are full.
    Full,
}

/// A request in a queue.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: u64,
    seats: u32,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_seats: u32,
    running_seats: u32,
    running: u32,
    /// Virtual time at which its next request begins.
    next: f64,
}

/// The queues that anybody is in, and the seats that are taken.
#[derive(Debug)]
pub struct Queues {
    shape: Shape,
    limit: u32,
    active: BTreeMap<u32, Queue>,
    /// Virtual seconds.
    time: f64,
    /// When that was, in seconds.
    at: f64,
    running_seats: u32,
    waiting_seats: u32,
    /// The last that was dispatched from: among equals the next one goes first.
    last: u32,
    /// Most seats wanted at once since this was last asked.
    wanted: u32,
}

impl Queues {
    /// With so many seats.
    pub fn new(shape: Shape, limit: u32) -> Self {
        Self { shape, limit, active: BTreeMap::new(), time: 0.0, at: 0.0, running_seats: 0, waiting_seats: 0, last: 0, wanted: 0 }
    }

    /// Seats that are taken.
    pub fn running_seats(&self) -> u32 {
        self.running_seats
    }

    /// Whether anybody may wait.
    pub fn has_queues(&self) -> bool {
        self.shape.queues > 0
    }

    /// Seats that are waited for.
    pub fn waiting_seats(&self) -> u32 {
        self.waiting_seats
    }

    /// Seats that may be taken.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Most seats wanted at once since the last call.
    pub fn take_wanted(&mut self) -> u32 {
        std::mem::replace(&mut self.wanted, self.running_seats + self.waiting_seats)
    }

    /// Other seats or queues; who has a place keeps it. Appends whoever is dispatched.
    pub fn reshape(&mut self, now: f64, shape: Shape, limit: u32, dispatched: &mut Vec<u64>) {
        self.advance(now);
        (self.shape, self.limit) = (shape, limit);
        self.dispatch(dispatched);
    }

    /// A request of a flow comes. Appends whoever is dispatched, mostly itself.
    pub fn arrive(&mut self, now: f64, flow: u64, id: u64, seats: u32, dispatched: &mut Vec<u64>) -> Arrival {
        self.advance(now);
        let queue = self.shortest(flow);
        let length = self.active.get(&queue).map_or(0, |queue| queue.waiting.len());
        // Nobody waits: there is a seat at once, or never in a level without queues.
        let free = self.waiting_seats == 0 && self.fits(seats);
        if !free && length >= self.shape.length.min(if self.shape.queues == 0 { 0 } else { usize::MAX }) {
            return Arrival::Full;
        }
        let time = self.time;
        let entry = self.active.entry(queue).or_insert_with(|| Queue { next: time, ..Queue::default() });
        entry.waiting.push_back(Waiting { id, seats });
        entry.waiting_seats += seats;
        let length = entry.waiting.len();
        self.waiting_seats += seats;
        self.wanted = self.wanted.max(self.running_seats + self.waiting_seats);
        self.dispatch(dispatched);
        Arrival::Taken { queue, length }
    }

    /// A request that was dispatched is done after so many seconds. Appends whoever is dispatched.
    pub fn leave(&mut self, now: f64, queue: u32, seats: u32, took: f64, dispatched: &mut Vec<u64>) {
        self.advance(now);
        self.running_seats -= seats;
        if let Some(entry) = self.active.get_mut(&queue) {
            entry.running -= 1;
            entry.running_seats -= seats;
            entry.next += (took - GUESS_S) * f64::from(seats);
        }
        self.forget_idle(queue);
        self.dispatch(dispatched);
    }

    /// A request does not want to wait any more; false when it does not wait. Appends whoever is dispatched.
    pub fn give_up(&mut self, now: f64, queue: u32, id: u64, dispatched: &mut Vec<u64>) -> bool {
        self.advance(now);
        let Some(entry) = self.active.get_mut(&queue) else { return false };
        let Some(at) = entry.waiting.iter().position(|waiting| waiting.id == id) else { return false };
        let gone = entry.waiting.remove(at).map_or(0, |waiting| waiting.seats);
        entry.waiting_seats -= gone;
        self.waiting_seats -= gone;
        self.forget_idle(queue);
        self.dispatch(dispatched);
        true
    }

    fn advance(&mut self, now: f64) {
        let passed = (now - self.at).max(0.0);
        self.at = now;
        if !self.active.is_empty() {
            let wanted = (self.running_seats + self.waiting_seats).min(self.limit);
            self.time += passed * f64::from(wanted) / self.active.len() as f64;
        }
    }

    fn fits(&self, seats: u32) -> bool {
        // A request wider than the whole level goes when it is alone.
        self.running_seats + seats <= self.limit || (self.running_seats == 0 && self.limit > 0)
    }

    /// Of the flow's queues the one with the least before it.
    fn shortest(&self, flow: u64) -> u32 {
        let load = |queue: &u32| self.active.get(queue).map_or((0, 0), |queue| (queue.waiting_seats, queue.running_seats));
        deal(flow, self.shape.queues, self.shape.hand).min_by_key(load).unwrap_or(0)
    }

    fn forget_idle(&mut self, queue: u32) {
        if self.active.get(&queue).is_some_and(|queue| queue.running == 0 && queue.waiting.is_empty()) {
            self.active.remove(&queue);
        }
    }

    fn dispatch(&mut self, dispatched: &mut Vec<u64>) {
        while self.waiting_seats > 0 {
            let Some((queue, seats)) = self.next() else { return };
            // The chosen one waits until there is room for it: narrow ones would starve it.
            if !self.fits(seats) {
                return;
            }
            let Some(entry) = self.active.get_mut(&queue) else { return };
            let Some(request) = entry.waiting.pop_front() else { return };
            entry.waiting_seats -= request.seats;
            entry.running_seats += request.seats;
            entry.running += 1;
            entry.next += GUESS_S * f64::from(request.seats);
            self.waiting_seats -= request.seats;
            self.running_seats += request.seats;
            self.last = queue;
            dispatched.push(request.id);
        }
    }

    /// The queue whose first request would be done first in virtual time, and that request's seats.
    fn next(&self) -> Option<(u32, u32)> {
        let mut best: Option<(f64, u32, u32)> = None;
        let after = self.active.range(self.last.saturating_add(1)..).chain(self.active.range(..=self.last));
        for (number, queue) in after {
            let Some(first) = queue.waiting.front() else { continue };
            let done = queue.next + GUESS_S * f64::from(first.seats);
            if best.is_none_or(|(earliest, _, _)| done < earliest) {
                best = Some((done, *number, first.seats));
            }
        }
        best.map(|(_, number, seats)| (number, seats))
    }
}

#[cfg(test)]
mod tests;
