//! Leader election by Lease: who may act when several could. Here the plain state machine, to which clock and Lease are given; [`lead`] runs it.
//!
//! As client-go's: a holder's Lease counts from the moment we saw it change, by our own clock, so that clocks need not agree. A leader that
//! could not renew within [`Terms::renew_deadline`] is one no more, before anybody else can be.

mod seat;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

pub use seat::{Seat, lead};

/// How long leadership lasts. `lease > renew_deadline > retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Others wait this long after the last renewal that they saw.
    pub lease: Duration,
    /// The leader gives up after this long without a renewal.
    pub renew_deadline: Duration,
    /// Between two looks.
    pub retry: Duration,
}

impl Default for Terms {
    /// Upstream's: 15, 10 and 2 seconds.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

impl Terms {
    /// For a candidate inside the API server's process, which ends with it and needs nobody to take over within seconds: a renewal is a
    /// write to the disk, and these are few.
    pub const IN_PROCESS: Terms =
        Terms { lease: Duration::from_secs(60), renew_deadline: Duration::from_secs(40), retry: Duration::from_secs(15) };
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the Lease with this spec; then tell [`Election::wrote`].
    Create(LeaseSpec),
    /// Replace the spec of the Lease that was seen, at its resourceVersion; then tell [`Election::wrote`].
    Update(LeaseSpec),
    /// Look again after this long, or when the Lease changes.
    Wait(Duration),
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    terms: Terms,
    /// Holder and renewal as last seen, and when we first saw them.
    seen: Option<(Option<String>, Option<MicroTime>, Timestamp)>,
    /// When we last renewed with success.
    renewed: Option<Timestamp>,
}

impl Election {
    /// A candidate of this identity; no leader yet.
    pub fn new(identity: impl Into<String>, terms: Terms) -> Self {
        Self { identity: identity.into(), terms, seen: None, renewed: None }
    }

    /// Whether we lead at `now`.
    pub fn leads(&self, now: Timestamp) -> bool {
        !self.remaining(now).is_zero()
    }

    /// How long we lead from `now` on without a further renewal; zero: we do not.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.renewed.map_or(Duration::ZERO, |at| until(at + signed(self.terms.renew_deadline), now))
    }

    /// The next step, from the Lease as it is (`None`: there is none).
    pub fn step(&mut self, lease: Option<&Lease>, now: Timestamp) -> Step {
        let Some(spec) = lease.and_then(|l| l.spec.as_ref()) else {
            return if lease.is_none() { Step::Create(self.claim(None, now)) } else { Step::Update(self.claim(None, now)) };
        };
        self.look(spec, now);
        let ours = spec.holder_identity.as_deref() == Some(&self.identity);
        if ours {
            let due = self.renewed.map_or(now, |at| at + signed(self.terms.retry));
            return if due <= now { Step::Update(self.claim(Some(spec), now)) } else { Step::Wait(until(due, now)) };
        }
        self.renewed = None;
        let held = spec.holder_identity.as_deref().is_some_and(|h| !h.is_empty());
        let lasts = spec.lease_duration_seconds.map_or(self.terms.lease, |s| Duration::from_secs(s.max(0).unsigned_abs().into()));
        let expiry = self.seen.as_ref().map_or(now, |(_, _, at)| *at + signed(lasts));
        if held && now < expiry {
            return Step::Wait(until(expiry, now).min(self.terms.retry));
        }
        Step::Update(self.claim(Some(spec), now))
    }

    /// Tells how the write of the last step ended: a conflict means that another was faster.
    pub fn wrote(&mut self, success: bool, now: Timestamp) {
        if success {
            self.renewed = Some(now);
        }
    }

    /// The spec that hands leadership over, for an orderly end.
    pub fn release(&mut self, spec: &LeaseSpec, now: Timestamp) -> Option<LeaseSpec> {
        (spec.holder_identity.as_deref() == Some(&self.identity)).then(|| {
            self.renewed = None;
            LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(now)),
                ..spec.clone()
            }
        })
    }

    fn look(&mut self, spec: &LeaseSpec, now: Timestamp) {
        let same = self.seen.as_ref().is_some_and(|(holder, renewal, _)| (holder, renewal) == (&spec.holder_identity, &spec.renew_time));
        if !same {
            self.seen = Some((spec.holder_identity.clone(), spec.renew_time.clone(), now));
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let kept = before.filter(|s| s.holder_identity.as_deref() == Some(&self.identity));
        let changes = before.and_then(|s| s.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.terms.lease.as_secs()).ok(),
            acquire_time: kept.and_then(|s| s.acquire_time.clone()).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if kept.is_some() || before.is_none() { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
