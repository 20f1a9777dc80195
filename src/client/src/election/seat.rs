//! A seat and who sits in it: work runs while this process holds the Lease, and ends before another may begin it.

use std::{pin::pin, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Election, Step, Terms};
use crate::events::{EventType, Recorder, reference};

/// What only one process at a time may do.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Namespace of the Lease.
    pub namespace: &'static str,
    /// Its name, which is the component's too: `kube-scheduler`.
    pub name: &'static str,
    /// Who we are. One that stays the same over a restart sits down again at once; no two processes may share it.
    pub identity: String,
    /// How long the seat is held.
    pub terms: Terms,
}

/// Runs `work` whenever this process leads, until `shutdown`; then the seat is free for the next at once. The token given to the work is
/// cancelled when leadership is lost and at `shutdown`; the work has to end by it. Work that ends by itself ends the candidacy.
pub async fn lead<F: Future<Output = ()>>(client: Client, seat: Seat, shutdown: CancellationToken, work: impl Fn(CancellationToken) -> F) {
    let recorder = Recorder::new(client.clone(), seat.name, "");
    let mut candidate = Candidate::new(client, seat);
    while shutdown.run_until_cancelled(candidate.sits()).await.is_some() {
        tracing::debug!(seat = candidate.seat.name, identity = candidate.seat.identity, "leading");
        if let Some(lease) = &candidate.known {
            let message = format!("{} became leader", candidate.seat.identity);
            recorder.event(&reference(lease), EventType::Normal, "LeaderElection", message);
        }
        let token = shutdown.child_token();
        let mut working = pin!(work(token.clone()));
        tokio::select! {
            () = &mut working => return candidate.stands_up().await,
            () = candidate.loses() => {}
        }
        tracing::warn!(seat = candidate.seat.name, identity = candidate.seat.identity, "no longer leading, the work ends");
        token.cancel();
        working.await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    seat: Seat,
    election: Election,
    /// The Lease as last read or written; `None`: it has to be read.
    known: Option<Lease>,
    /// The wall clock at the start. Time goes on by the monotonic one: a clock that is set must make nobody a leader.
    start: (Timestamp, Instant),
}

impl Candidate {
    fn new(client: Client, seat: Seat) -> Self {
        let election = Election::new(seat.identity.clone(), seat.terms);
        let leases = Api::namespaced(client, seat.namespace);
        Self { leases, seat, election, known: None, start: (Timestamp::now(), Instant::now()) }
    }

    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.1.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.0.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Ends when we lead.
    async fn sits(&mut self) {
        self.known = None;
        loop {
            let limit = self.seat.terms.renew_deadline;
            let rest = tokio::time::timeout(limit, self.turn()).await.unwrap_or_default();
            if self.election.leads(self.now()) {
                return;
            }
            // Another's renewal is seen by reading.
            self.known = None;
            tokio::time::sleep(rest).await;
        }
    }

    /// Renews, and ends when we lead no more.
    async fn loses(&mut self) {
        loop {
            let left = self.election.remaining(self.now());
            let Ok(rest) = tokio::time::timeout(left, self.turn()).await else { return };
            let left = self.election.remaining(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(rest.min(left)).await;
        }
    }

    /// Leaves the seat to the next.
    async fn stands_up(&mut self) {
        if tokio::time::timeout(self.seat.terms.retry, self.free()).await.is_err() {
            tracing::debug!(seat = self.seat.name, "the seat stays taken until its Lease ends: no answer");
        }
    }

    /// Frees the Lease. A renewal that the end cut off may have been written or may be yet: then the Lease is not known, or not as it is.
    async fn free(&mut self) {
        loop {
            if self.known.is_none() {
                match self.leases.get_opt(self.seat.name).await {
                    Ok(lease) => self.known = lease,
                    Err(error) => {
                        self.failed(&error);
                        return;
                    }
                }
            }
            let now = self.now();
            let Some(lease) = self.known.take() else { return };
            let Some(spec) = lease.spec.as_ref().and_then(|spec| self.election.release(spec, now)) else { return };
            let freed = Lease { spec: Some(spec), ..lease };
            match self.leases.replace(self.seat.name, &PostParams::default(), &freed).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    self.failed(&error);
                    return;
                }
            }
        }
    }

    /// One step of the election; how long to rest after it.
    async fn turn(&mut self) -> Duration {
        if self.known.is_none() {
            match self.leases.get_opt(self.seat.name).await {
                Ok(lease) => self.known = lease,
                Err(error) => return self.failed(&error),
            }
        }
        let began = self.now();
        let written = match self.election.step(self.known.as_ref(), began) {
            Step::Wait(rest) => return rest,
            Step::Create(spec) => self.leases.create(&PostParams::default(), &self.lease(spec)).await,
            Step::Update(spec) => {
                let lease = Lease { spec: Some(spec), ..self.known.take().unwrap_or_default() };
                self.leases.replace(self.seat.name, &PostParams::default(), &lease).await
            }
        };
        self.election.wrote(written.is_ok(), began);
        match written {
            Ok(lease) => self.known = Some(lease),
            Err(error) => return self.failed(&error),
        }
        self.seat.terms.retry
    }

    fn failed(&self, error: &kube::Error) -> Duration {
        tracing::debug!(seat = self.seat.name, error = error as &dyn std::error::Error, "the Lease was not read or written");
        self.seat.terms.retry
    }

    fn lease(&self, spec: LeaseSpec) -> Lease {
        let metadata = ObjectMeta { name: Some(self.seat.name.to_owned()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }
}

#[cfg(test)]
mod tests;
