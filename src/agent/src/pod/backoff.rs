//! How long a container rests between two tries: 10 s, doubling to 300 s, forgotten after 10 quiet minutes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::clock::shifted;

/// The first pause.
pub const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran so long since its last pause starts afresh.
pub const FORGET: Duration = Duration::from_secs(600);

/// The pause that the next failure costs. `Default` is a clean record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    held: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// When a thing that ended at `ended` may be tried again, if that is later than `now`; it rests for `longest` at most.
    pub fn resting(&self, ended: Timestamp, now: Timestamp, longest: Duration) -> Option<(Timestamp, Duration)> {
        let (pause, since) = self.held?;
        let pause = pause.min(longest);
        let until = later(ended, pause);
        (until > now && later(since, FORGET) > now).then_some((until, pause))
    }

    /// The record of a thing on its run number `attempt` (0 is the first), which began at `since` and `rest` after the end of the run
    /// before. How often it failed since it last was well is nowhere written: the rest tells, and the attempts bound it.
    pub fn after(attempt: u32, rest: Option<Duration>, since: Timestamp) -> Self {
        let Some(earlier) = attempt.checked_sub(1) else { return Self::default() };
        let most = FIRST.saturating_mul(1 << earlier.min(10)).min(LONGEST);
        let mut pause = FIRST;
        while rest.is_none_or(|rest| rest >= pause) && pause < most {
            pause = (pause * 2).min(LONGEST);
        }
        Self { held: Some((pause, since)) }
    }

    /// The clock has jumped.
    pub fn shift(&mut self, by: SignedDuration) {
        self.held = self.held.map(|(pause, since)| (pause, shifted(since, by)));
    }

    /// Counts a try that follows a failure; its own failure will cost the pause that this returns.
    pub fn count(&mut self, now: Timestamp) -> Duration {
        let pause = match self.held {
            Some((pause, since)) if later(since, FORGET) > now => (pause * 2).min(LONGEST),
            _ => FIRST,
        };
        self.held = Some((pause, now));
        pause
    }
}

/// `at` plus `by`; the end of time when it does not fit.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a timestamp")
    }

    #[test]
    fn what_was_counted_before_is_read_from_the_last_rest() {
        for (attempt, rest, pause) in [
            (0, None, None),
            (1, Some(0), Some(10)),
            (2, Some(10), Some(20)),
            (3, Some(21), Some(40)),
            (9, Some(300), Some(300)),
            (2, Some(5000), Some(20)),
            (40, Some(0), Some(10)),
            (3, None, Some(40)),
        ] {
            let record = Backoff::after(attempt, rest.map(Duration::from_secs), at(0));
            assert_eq!(record.resting(at(1), at(1), LONGEST).map(|r| r.1.as_secs()), pause, "{attempt} {rest:?}");
        }
        // It goes on as if it had been here all the time.
        let mut counted = Backoff::default();
        let mut now = 0;
        for attempt in 1..8 {
            let rest = counted.count(at(now));
            let last = if attempt == 1 { 0 } else { rest.as_secs() / 2 };
            let read = Backoff::after(attempt, Some(Duration::from_secs(last.max(if rest == LONGEST { 160 } else { last }))), at(now));
            assert_eq!(read, counted, "{attempt}");
            now += rest.as_secs() as i64;
        }
        assert_eq!(Backoff::after(5, Some(LONGEST), at(0)).resting(at(700), at(700), LONGEST), None, "forgotten");
    }

    #[test]
    fn doubles_to_five_minutes_and_forgets_after_ten() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.resting(at(0), at(0), LONGEST), None, "the first restart is at once");
        let mut now = 0;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(backoff.count(at(now)).as_secs(), pause);
            assert_eq!(backoff.resting(at(now + 1), at(now + 1), LONGEST).map(|r| r.0), Some(at(now + 1 + pause as i64)));
            now += 1 + pause as i64;
            assert_eq!(backoff.resting(at(now - pause as i64), at(now), LONGEST), None, "over at its end");
        }
        let held = backoff.resting(at(now - 1), at(now - 1), Duration::from_secs(7));
        assert_eq!(held.map(|r| r.1.as_secs()), Some(7), "a node may know no longer rests");
        now += 601;
        assert_eq!(backoff.resting(at(now), at(now), LONGEST), None, "forgotten");
        assert_eq!(backoff.count(at(now)).as_secs(), 10);
    }
}
