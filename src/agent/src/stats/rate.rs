//! How fast CPU time grows: between this sight of a thing and the one before.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Sights nearer to each other than that are one: their difference says little.
const LEAST: Duration = Duration::from_secs(1);
/// What was not seen for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Sight {
    nanoseconds: u64,
    at: Instant,
    rate: Option<u64>,
}

/// Sights by name of the thing.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<String, Sight>>);

impl Rates {
    /// Nanoseconds of CPU per second, once the thing was seen twice.
    pub fn of(&self, name: &str, nanoseconds: u64, now: Instant) -> Option<u64> {
        let mut sights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sights.retain(|_, s| now.saturating_duration_since(s.at) < FORGET);
        let Some(before) = sights.get(name).copied() else {
            sights.insert(name.to_owned(), Sight { nanoseconds, at: now, rate: None });
            return None;
        };
        let passed = now.saturating_duration_since(before.at);
        if passed < LEAST {
            return before.rate;
        }
        // A container that was started anew under the same name begins from nothing.
        let grown = nanoseconds.checked_sub(before.nanoseconds);
        let rate = grown.map(|grown| (grown as f64 / passed.as_secs_f64()) as u64);
        sights.insert(name.to_owned(), Sight { nanoseconds, at: now, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sights_make_a_rate() {
        let rates = Rates::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.of("a", 100, start), None);
        assert_eq!(rates.of("a", 9_000, start + Duration::from_millis(10)), None);
        assert_eq!(rates.of("a", 1_100, after(2)), Some(500));
        assert_eq!(rates.of("a", 9_000, after(2)), Some(500), "too near");
        assert_eq!(rates.of("a", 50, after(4)), None, "it began anew");
        assert_eq!(rates.of("b", 5, after(1000)), None);
        assert_eq!(rates.of("a", 900, after(1001)), None, "forgotten");
    }
}
