//! Jumps of the machine's clock: what was to happen in a minute still happens in a minute. Pure.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::life::{Doing, Life, Sandbox, Stage};

/// What a clock is corrected by in its daily life; a jump begins above it.
const DRIFT: Duration = Duration::from_secs(5);

/// The two clocks as they were last.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Clock {
    /// As they are.
    pub fn new(wall: Timestamp, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// By how much the machine's clock has jumped since the last look.
    pub fn jump(&mut self, wall: Timestamp, steady: Instant) -> Option<SignedDuration> {
        let passed = SignedDuration::try_from(steady.saturating_duration_since(self.steady)).ok()?;
        let jump = wall.duration_since(self.wall).checked_sub(passed)?;
        *self = Self { wall, steady };
        (jump.unsigned_abs() > DRIFT).then_some(jump)
    }
}

/// `at`, as the clock shows it after a jump.
pub fn shifted(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// All that a life waits for moves with the clock.
pub fn shift(life: &mut Life, by: SignedDuration) {
    let stage = |stage: &mut Stage| {
        if let Stage::Failed { retry_at, .. } = stage {
            *retry_at = shifted(*retry_at, by);
        }
    };
    stage(&mut life.volumes);
    stage(&mut life.cleaned);
    stage(&mut life.deleted);
    if let Sandbox::None { stage: own, .. } | Sandbox::Doomed { stage: own, .. } = &mut life.sandbox {
        stage(own);
    }
    if let Some(ending) = &mut life.ending {
        ending.kill_at = shifted(ending.kill_at, by);
    }
    for member in life.members.values_mut() {
        if let Some(trouble) = &mut member.trouble {
            trouble.retry_at = shifted(trouble.retry_at, by);
            trouble.turns_at = trouble.turns_at.map(|at| shifted(at, by));
        }
        if let Doing::Stopping(stopping) = &mut member.doing {
            stopping.kill_at = shifted(stopping.kill_at, by);
        }
        member.crashes.shift(by);
        member.starts.shift(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_the_steady_clock_did_not_see() {
        let (wall, steady) = (Timestamp::from_second(1_000_000).expect("a time"), Instant::now());
        let check = |wall_seconds: i64, steady_seconds: u64, want: Option<i64>| {
            let mut clock = Clock::new(wall, steady);
            let (wall, steady) = (shifted(wall, SignedDuration::from_secs(wall_seconds)), steady + Duration::from_secs(steady_seconds));
            assert_eq!(clock.jump(wall, steady).map(|j| j.as_secs()), want);
            assert_eq!(clock.jump(wall, steady), None, "it is told once");
        };
        check(10, 10, None);
        check(12, 10, None);
        check(3610, 10, Some(3600));
        check(-3600, 10, Some(-3610));
        check(0, 3600, Some(-3600));
    }
}
