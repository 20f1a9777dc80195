//! When a container is looked at, and the thresholds of a probe: many results make one verdict. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use crate::pod::plan;

/// In so long a container may come to listen before it is told that it does not: upstream, which looks for new containers once a second,
/// asks it for the first time about then.
const FIRST: Duration = Duration::from_secs(1);
/// From a first look that was too early to the second; each further wait is three times the one before.
const AGAIN: Duration = Duration::from_millis(100);

/// A probe's times and thresholds, with the field's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// From the container's start to the first look.
    pub initial_delay: Duration,
    /// Between looks.
    pub period: Duration,
    /// How long one look may take.
    pub timeout: Duration,
    /// Successes in a row for a verdict.
    pub successes: u32,
    /// Failures in a row for a verdict.
    pub failures: u32,
}

impl Schedule {
    /// Of a probe of the spec.
    pub fn of(probe: &Probe) -> Self {
        let number = |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
        let seconds = |n: Option<i32>, default: u32| Duration::from_secs(number(n, default).into());
        Self {
            initial_delay: Duration::from_secs(probe.initial_delay_seconds.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }

    /// How long to wait before a container of this age is looked at, and whether a failure is one. `early` looks were made too early.
    ///
    /// A container has a whole period to come up before its startup or liveness probe fails for the first time, as with upstream's ticker;
    /// that it is well is worth knowing sooner, save for liveness, which it changes nothing for.
    pub fn look(&self, kind: plan::Probe, age: Duration, early: u32) -> (Duration, bool) {
        let counts_from = match kind {
            plan::Probe::Liveness => self.initial_delay.max(self.period),
            _ if !self.initial_delay.is_zero() => self.initial_delay,
            plan::Probe::Startup => self.period,
            plan::Probe::Readiness => FIRST,
        };
        let left = counts_from.saturating_sub(age);
        if kind == plan::Probe::Liveness || !self.initial_delay.is_zero() {
            return (left, true);
        }
        let wait = early.checked_sub(1).map_or(Duration::ZERO, |again| AGAIN.saturating_mul(3_u32.saturating_pow(again)));
        if wait < left { (wait, false) } else { (left, true) }
    }
}

/// Results in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    last: Option<bool>,
    run: u32,
    told: Option<bool>,
}

impl Streak {
    /// Takes a result in; a verdict when it crosses a threshold and differs from the one told before.
    /// A failed verdict of a probe that `repeats` (liveness, startup) is told each time it is reached.
    pub fn result(&mut self, schedule: &Schedule, ok: bool, repeats: bool) -> Option<bool> {
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let needed = if ok { schedule.successes } else { schedule.failures };
        if self.run < needed || (self.told == Some(ok) && (ok || !repeats)) {
            return None;
        }
        self.told = Some(ok);
        if repeats && !ok {
            self.run = 0;
        }
        Some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(successes: i32, failures: i32, repeats: bool, results: &str, verdicts: &str) {
        let probe = Probe { success_threshold: Some(successes), failure_threshold: Some(failures), ..Probe::default() };
        let (schedule, mut streak) = (Schedule::of(&probe), Streak::default());
        let told = |r: char| match streak.result(&schedule, r == '+', repeats) {
            Some(true) => '+',
            Some(false) => '-',
            None => '.',
        };
        assert_eq!(results.chars().map(told).collect::<String>(), verdicts, "{results}");
    }

    #[test]
    fn verdicts_of_streaks() {
        check(1, 3, false, "+++---+", "+....-+");
        check(1, 1, false, "--+-", "-.+-");
        check(2, 3, false, "+-++--+--", "...+.....");
        check(1, 2, true, "----+--", ".-.-+.-");
        check(1, 3, true, "--+--", "..+..");
    }

    #[test]
    fn defaults() {
        let schedule = Schedule::of(&Probe::default());
        assert_eq!((schedule.period.as_secs(), schedule.timeout.as_secs(), schedule.successes, schedule.failures), (10, 1, 1, 3));
    }

    #[test]
    fn a_container_has_time_to_come_up() {
        use plan::Probe::{Liveness, Readiness, Startup};
        // Looks until the first that counts, each made at once when it is due and in no time.
        let check = |kind, delay: i32, period: i32, age_ms: u64, want: &[u64]| {
            let probe = Probe { initial_delay_seconds: Some(delay), period_seconds: Some(period), ..Probe::default() };
            let (schedule, mut age, mut looks) = (Schedule::of(&probe), Duration::from_millis(age_ms), Vec::new());
            loop {
                let (wait, counts) = schedule.look(kind, age, u32::try_from(looks.len()).expect("few"));
                age += wait;
                looks.push(u64::try_from(age.as_millis()).expect("short"));
                if counts {
                    break;
                }
            }
            assert_eq!(looks, want, "{kind:?} {delay} {period} {age_ms}");
        };
        check(Readiness, 0, 10, 0, &[0, 100, 400, 1000]);
        check(Readiness, 0, 1, 950, &[950, 1000]);
        check(Readiness, 0, 10, 60_000, &[60_000]);
        check(Readiness, 5, 10, 2000, &[5000]);
        check(Startup, 0, 1, 5, &[5, 105, 405, 1000]);
        check(Startup, 0, 10, 0, &[0, 100, 400, 1300, 4000, 10_000]);
        check(Startup, 2, 10, 0, &[2000]);
        check(Liveness, 0, 10, 0, &[10_000]);
        check(Liveness, 3, 10, 0, &[10_000]);
        check(Liveness, 30, 10, 0, &[30_000]);
        check(Liveness, 0, 10, 60_000, &[60_000]);
    }
}
