//! Quantiles of the durations of the last hours, in fixed memory and without a lock.
//!
//! Durations are counted in cells, sixteen to each doubling, so that a quantile is told 3 % too long or too short at most. Hours are counted
//! apart, and the oldest makes room for the next.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use super::page::Page;

/// Hours that are looked at, the running one included: upstream's window.
const HOURS: usize = 5;
/// Cells of one doubling, as a power of two.
const CELLS_BITS: u32 = 4;
/// Doublings of the shortest nanosecond that is told apart: 256 ns.
const SHORTEST_BITS: u32 = 8;
/// Doublings of the longest: 69 s, more than any request may take.
const LONGEST_BITS: u32 = 36;
const CELLS: usize = ((LONGEST_BITS - SHORTEST_BITS) as usize) << CELLS_BITS;
const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

/// Durations since the start and of late.
#[derive(Debug)]
pub struct Summary {
    hours: Box<[Hour; HOURS]>,
    nanos: AtomicU64,
    count: AtomicU64,
}

/// What one hour has seen.
#[derive(Debug)]
struct Hour {
    /// Which hour, from 1.
    number: AtomicU64,
    cells: [AtomicU32; CELLS],
}

impl Default for Summary {
    fn default() -> Self {
        let hour = || Hour { number: AtomicU64::new(0), cells: [const { AtomicU32::new(0) }; CELLS] };
        Self { hours: Box::new(std::array::from_fn(|_| hour())), nanos: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
}

impl Summary {
    /// Takes a duration in, this long after the server's start.
    pub fn took(&self, duration: Duration, age: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        let number = number(age);
        let hour = &self.hours[number as usize % HOURS];
        let before = hour.number.load(Ordering::Relaxed);
        // Who comes first in an hour clears what stood there; what others count meanwhile may be lost with it.
        if before != number && hour.number.compare_exchange(before, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            hour.cells.iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
        }
        hour.cells[cell(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// Its samples; nothing when there is no value.
    pub fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)], age: Duration) {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let now = number(age);
        let recent = |hour: &&Hour| (1..=HOURS as u64).any(|back| hour.number.load(Ordering::Relaxed) + back == now + 1);
        let mut cells = vec![0_u64; CELLS];
        for hour in self.hours.iter().filter(recent) {
            cells.iter_mut().zip(&hour.cells).for_each(|(sum, cell)| *sum += u64::from(cell.load(Ordering::Relaxed)));
        }
        for (word, quantile) in QUANTILES {
            let with_quantile: Vec<(&str, &str)> = labels.iter().copied().chain([("quantile", word)]).collect();
            match at(&cells, quantile) {
                Some(seconds) => page.sample(name, &with_quantile, seconds),
                None => page.sample(name, &with_quantile, "NaN"),
            }
        }
        page.sample(&format!("{name}_sum"), labels, self.nanos.load(Ordering::Relaxed) as f64 / 1e9);
        page.sample(&format!("{name}_count"), labels, count);
    }
}

/// Hours of a server this old that have begun.
fn number(age: Duration) -> u64 {
    age.as_secs() / 3600 + 1
}

/// Where a duration is counted.
fn cell(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << SHORTEST_BITS, (1 << LONGEST_BITS) - 1);
    let doubling = nanos.ilog2();
    let within = (nanos >> (doubling - CELLS_BITS)) as usize & ((1 << CELLS_BITS) - 1);
    ((doubling - SHORTEST_BITS) as usize) << CELLS_BITS | within
}

/// The middle of a cell, in seconds.
fn seconds(cell: usize) -> f64 {
    let doubling = (1_u64 << (SHORTEST_BITS as usize + (cell >> CELLS_BITS))) as f64;
    let cells = f64::from(1_u32 << CELLS_BITS);
    doubling * (1.0 + ((cell & ((1 << CELLS_BITS) - 1)) as f64 + 0.5) / cells) / 1e9
}

/// What so much of the durations does not exceed; `None` when there is none.
fn at(cells: &[u64], quantile: f64) -> Option<f64> {
    let rank = cells.iter().sum::<u64>() as f64 * quantile;
    let mut below = 0;
    let within = cells.iter().position(|count| {
        below += count;
        below > 0 && below as f64 >= rank
    });
    within.map(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn told(summary: &Summary, age: Duration) -> Vec<f64> {
        let mut page = Page::default();
        summary.write(&mut page, "x", &[("a", "b")], age);
        page.finish().lines().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
    }

    #[test]
    fn quantiles_are_near_the_truth_for_any_length() {
        for unit in [Duration::from_nanos(300), Duration::from_micros(7), Duration::from_millis(20)] {
            let summary = Summary::default();
            (1..=1000).for_each(|number| summary.took(unit * number, HOUR / 2));
            let told = told(&summary, HOUR / 2);
            for (quantile, wanted) in told.iter().zip([500, 900, 990]) {
                let wanted = (unit * wanted).as_secs_f64();
                assert!((quantile / wanted - 1.0).abs() < 0.04, "{quantile} is not {wanted}");
            }
            assert!((told[3] - (unit * 500_500).as_secs_f64()).abs() < 1e-6);
            assert_eq!(told[4] as u64, 1000);
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_in_the_sum_alone() {
        let summary = Summary::default();
        summary.took(Duration::from_secs(1), HOUR / 2);
        summary.took(Duration::from_millis(1), HOUR * 3);
        assert!(told(&summary, HOUR * 4)[2] > 0.9, "the first hour counts in the fifth");
        assert!(told(&summary, HOUR * 5)[2] < 0.002, "and not in the sixth");
        assert!(told(&summary, HOUR * 8)[0].is_nan(), "nothing of late");
        assert_eq!(told(&summary, HOUR * 8)[4] as u64, 2);
        summary.took(Duration::from_millis(2), HOUR * 8);
        let late = told(&summary, HOUR * 8);
        assert!((late[0] / 0.002 - 1.0).abs() < 0.04 && late[4] as u64 == 3, "the place of an old hour is used again: {late:?}");
    }

    #[test]
    fn the_shortest_and_the_longest_have_their_places() {
        assert_eq!((cell(0), cell(256), cell(u64::MAX)), (0, 0, CELLS - 1));
        assert!(Summary::default().hours.len() == HOURS && told(&Summary::default(), HOUR).is_empty());
    }
}
