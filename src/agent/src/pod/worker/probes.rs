//! Probes of a pod's containers: those run that a running container is to have now.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_runtime::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::{Message, Worker};
use crate::{
    context::Context,
    pod::{
        life::{Doing, RunState},
        plan::{Event, Probe},
        spec,
    },
    probe::{
        ask::{self, Target, Unwell},
        verdict::{Schedule, Streak},
    },
    stats::probes::Name,
};

/// The probes that run; one ends when it is dropped.
#[derive(Default)]
pub(super) struct Probes(HashMap<(ContainerId, Probe), DropGuard>);

impl Worker {
    /// Starts and stops probes, so that those run that a running container is to have now.
    pub(super) fn watch_probes(&mut self) {
        let mut wanted = HashMap::new();
        for part in spec::parts(&self.pod) {
            let Some(member) = self.life.members.get(&part.spec.name) else { continue };
            let Some(run) = member.running().filter(|_| member.doing == Doing::Nothing && part.kind != spec::Kind::Init) else {
                continue;
            };
            let kinds = [
                (Probe::Startup, &part.spec.startup_probe, !member.started),
                (Probe::Readiness, &part.spec.readiness_probe, member.started),
                (Probe::Liveness, &part.spec.liveness_probe, member.started),
            ];
            for (kind, probe, due) in kinds {
                if let (Some(probe), true) = (probe, due) {
                    wanted.insert((run.id.clone(), kind), (part.spec.name.clone(), probe.clone()));
                }
            }
        }
        if self.life.ending.is_some() {
            // Readiness goes on while the pod ends: endpoints may still serve. The others would only disturb.
            wanted.retain(|(_, kind), _| *kind == Probe::Readiness);
        }
        self.probes.0.retain(|key, _| wanted.contains_key(key));
        for ((id, kind), (name, probe)) in wanted {
            let key = (id, kind);
            if self.probes.0.contains_key(&key) {
                continue;
            }
            let Some((target, _)) = self.target(&name) else { continue };
            let stop = self.stop.child_token();
            let work =
                watch_probe(self.ctx.clone(), self.pod.clone(), target, name, kind, probe, self.outbox.clone(), self.started_at(&key.0));
            tokio::spawn(stop.clone().run_until_cancelled_owned(work));
            self.probes.0.insert(key, stop.drop_guard());
        }
    }

    fn started_at(&self, id: &ContainerId) -> Timestamp {
        let run = self.life.members.values().filter_map(|m| m.running()).find(|r| r.id == *id);
        match run.map(|r| &r.state) {
            Some(RunState::Running { started_at }) => *started_at,
            _ => Timestamp::now(),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one probe's task")]
async fn watch_probe(
    ctx: Context,
    pod: Arc<Pod>,
    target: Target,
    name: String,
    kind: Probe,
    probe: k8s_openapi::api::core::v1::Probe,
    outbox: mpsc::Sender<Message>,
    started_at: Timestamp,
) {
    let counted = Name {
        namespace: spec::namespace(&pod).to_owned(),
        pod: spec::name(&pod).to_owned(),
        uid: spec::uid(&pod).to_owned(),
        container: name.clone(),
        probe: match kind {
            Probe::Startup => "Startup",
            Probe::Readiness => "Readiness",
            Probe::Liveness => "Liveness",
        },
    };
    let schedule = Schedule::of(&probe);
    let mut streak = Streak::default();
    let age = Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default();
    let begun = Instant::now();
    let mut early = Some(0);
    let mut wait = Duration::ZERO;
    loop {
        let first = early.map(|early| schedule.look(kind, age + begun.elapsed(), early));
        let counts = first.is_none_or(|(_, counts)| counts);
        tokio::time::sleep(first.map_or(wait, |(wait, _)| wait)).await;
        let asked_at = Instant::now();
        let result = ask::ask(&ctx.runtime, &target, &probe, schedule.timeout).await;
        if let (false, true) = (counts, result.is_err()) {
            early = early.map(|early| early + 1);
            continue;
        }
        early = None;
        wait = schedule.period.saturating_sub(asked_at.elapsed());
        if let Err(why @ Unwell::NotAsked(_)) = &result {
            // A runtime that is away says nothing of the container: the result before holds.
            ctx.tell(&pod, Some(&name), true, "Unhealthy", format!("{} probe errored and resulted in unknown state: {why}", counted.probe));
            continue;
        }
        ctx.probes.count(&counted, result.is_ok());
        match &result {
            Ok(None) => {}
            Ok(Some(warning)) => ctx.tell(&pod, Some(&name), true, "ProbeWarning", format!("{} probe warning: {warning}", counted.probe)),
            Err(why) => ctx.tell(&pod, Some(&name), true, "Unhealthy", format!("{} probe failed: {why}", counted.probe)),
        }
        if let Some(ok) = streak.result(&schedule, result.is_ok(), kind != Probe::Readiness) {
            let event = Event::Probed { name: name.clone(), id: target.id.id.clone(), probe: kind, ok };
            if outbox.send(Message::Event(event)).await.is_err() {
                return;
            }
        }
    }
}
