//! Token buckets by key, as many as a limit remembers: a new one is full, and the one that was asked longest ago makes room for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use super::settings::Limit;

/// A digest of what is counted together: names are as long as an object lets them be, and many are remembered.
pub type Key = [u8; 32];

/// The buckets of a limit.
#[derive(Debug)]
pub struct Buckets {
    limit: Limit,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the number of the last question.
    buckets: HashMap<Key, (u64, Bucket)>,
    by_question: BTreeMap<u64, Key>,
    questions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Buckets {
    /// Of a limit; none is there yet.
    pub fn new(limit: Limit) -> Self {
        Self { limit, known: Mutex::default() }
    }

    /// Takes a token of the key's bucket, if there is one.
    pub fn take(&self, key: Key, now: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { buckets, by_question, questions } = &mut *known;
        *questions += 1;
        match buckets.get(&key) {
            Some((last, _)) => {
                by_question.remove(last);
            }
            None if buckets.len() >= self.limit.cache_size => {
                if let Some((_, oldest)) = by_question.pop_first() {
                    buckets.remove(&oldest);
                }
            }
            None => {}
        }
        by_question.insert(*questions, key);
        let full = Bucket { tokens: f64::from(self.limit.burst), filled: now };
        let (last, bucket) = buckets.entry(key).or_insert((0, full));
        *last = *questions;
        bucket.take(&self.limit, now)
    }
}

impl Bucket {
    fn take(&mut self, limit: &Limit, now: Instant) -> bool {
        let come = now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(limit.qps);
        self.tokens = (self.tokens + come).min(f64::from(limit.burst));
        self.filled = now.max(self.filled);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::settings::Type, *};

    fn buckets(qps: u32, burst: u32, cache_size: usize) -> Buckets {
        Buckets::new(Limit { kind: Type::User, qps, burst, cache_size })
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let (buckets, start) = (buckets(2, 3, 8), Instant::now());
        let taken = |at: u64| (0..10).filter(|_| buckets.take([1; 32], start + Duration::from_millis(at))).count();
        assert_eq!([0, 400, 500, 1000, 60_000].map(taken), [3, 0, 1, 1, 3], "no more than the burst comes together in silence");
        assert!(!buckets.take([1; 32], start), "a clock that was read earlier brings nothing");
        assert!(buckets.take([2; 32], start), "others have buckets of their own");
    }

    #[test]
    fn who_was_silent_longest_is_forgotten_and_starts_anew() {
        let (buckets, now) = (buckets(1, 1, 2), Instant::now());
        let take = |key: u8| buckets.take([key; 32], now);
        assert_eq!([1, 2, 1, 2].map(take), [true, true, false, false]);
        assert!(!take(1), "2 is the oldest now");
        assert!(take(3), "in the place of 2");
        assert_eq!([1, 2, 1].map(take), [false, true, false], "2 took the place of 3");
        let known = buckets.known.lock().unwrap();
        assert_eq!((known.buckets.len(), known.by_question.len()), (2, 2));
    }
}
