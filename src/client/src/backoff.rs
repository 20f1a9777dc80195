//! How long a broken watch waits before it tries again: soon, then seldom, never in step with others.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// First delay: the API server in the same process is back within tens of milliseconds.
const FIRST_MS: u64 = 50;
/// Longest delay: a cluster of many nodes must not hammer an API server that comes up.
const LONGEST_MS: u64 = 10_000;

/// Doubles from [`FIRST_MS`] to [`LONGEST_MS`], each with up to half of it as jitter; begins anew after a success.
#[derive(Debug, Default)]
pub struct Reconnect {
    attempts: u32,
}

impl Reconnect {
    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = delay_ms(self.attempts, RandomState::new().hash_one(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
        Duration::from_millis(delay)
    }

    /// An attempt had success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

fn delay_ms(attempts: u32, chance: u64) -> u64 {
    let base = FIRST_MS.saturating_mul(1 << attempts.min(16)).min(LONGEST_MS);
    base + chance % (base / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_their_bound_and_jitter_stays_within_half() {
        for (attempts, base) in [(0, 50), (1, 100), (4, 800), (7, 6_400), (8, 10_000), (60, 10_000), (u32::MAX, 10_000)] {
            assert_eq!(delay_ms(attempts, 0), base);
            assert!((base..base + base / 2).contains(&delay_ms(attempts, u64::MAX)));
        }
    }
}
