//! Thresholds of a probe: many results make one verdict. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

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

    /// How long after the container's start a probe that begins `age` after it waits for its first look.
    pub fn first_wait(&self, age: Duration) -> Duration {
        self.initial_delay.saturating_sub(age)
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
    fn defaults_and_delay() {
        let schedule = Schedule::of(&Probe { initial_delay_seconds: Some(5), ..Probe::default() });
        assert_eq!((schedule.period.as_secs(), schedule.timeout.as_secs(), schedule.successes, schedule.failures), (10, 1, 1, 3));
        assert_eq!(schedule.first_wait(Duration::from_secs(2)).as_secs(), 3);
        assert_eq!(schedule.first_wait(Duration::from_secs(9)).as_secs(), 0);
    }
}
