//! Takes what happened into a pod's life. Decisions on what follows are in `plan` and `stop`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    backoff::later,
    life::{Cause, Doing, Ended, Ending, Life, Run, RunState, Sandbox, SandboxFacts, Stage, StopPhase, Trouble},
    plan::{self, Action, Event, Probe, Step},
    resize,
    spec::{self, Kind},
    stop,
};

/// How long a failed pull is `ErrImagePull` before it is `ImagePullBackOff`.
const TURN: Duration = Duration::from_secs(1);

/// Why containers wait that a local image would help.
pub const WAITS: [&str; 5] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed"];

/// The shortest time that a pod has to end: upstream's.
const LEAST: Duration = Duration::from_secs(1);

/// Takes `event` into `life`.
pub fn absorb(pod: &Pod, life: &mut Life, event: Event, now: Timestamp, out: &mut Step) {
    match event {
        Event::Look => {}
        Event::Gone => life.gone = true,
        Event::ObjectsChanged => plan::hurry(life, now),
        Event::ImagesArrived { name } => images_arrived(life, &name, now),
        Event::DevicesGiven(given) => {
            life.devices = Stage::Done;
            life.refused = life.refused.take().or(given.err());
        }
        Event::VolumesMounted(ok) => life.volumes.end(ok, now),
        Event::SandboxMade(made) => sandbox_made(life, made, now),
        Event::SandboxRemoved(ok) => sandbox_removed(life, ok, now),
        Event::SandboxLost(id) => sandbox_lost(life, &id, now),
        Event::Started { name, run } => started(pod, life, &name, run, now, out),
        Event::NotStarted { name, reason, message } => not_started(life, &name, reason, message, now),
        Event::PostStarted { name, id, ok } => post_started(pod, life, &name, &id, ok, now, out),
        Event::PreStopped { name, id } => pre_stopped(life, &name, &id, now, out),
        Event::Exited { name, ended } => exited(life, &name, ended),
        Event::Probed { name, id, probe, ok } => probed(pod, life, &name, &id, probe, ok, now, out),
        Event::Reported => life.reported |= life.all_ended() || life.refused.is_some(),
        Event::Cleaned(ok) => plan::settle(&mut life.cleaned, ok, now),
        Event::Deleted(ok) => {
            plan::settle(&mut life.deleted, ok, now);
        }
        Event::Allocated(answer) => resize::allocated(pod, life, answer, out),
        Event::RoomFreed => resize::room_freed(life),
        Event::Resized { done, whole, error } => resize::resized(life, done, whole, error, now, out),
        Event::Terminate(termination) => {
            if life.ending.is_none() {
                let grace = spec::grace(pod).min(termination.grace.unwrap_or(Duration::MAX)).max(LEAST);
                life.ending = Some(Ending { cause: Cause::Terminated(termination), kill_at: later(now, grace) });
            } else if let (Some(ending), Some(grace)) = (&mut life.ending, termination.grace) {
                // It ends already, but the machine does not wait.
                ending.kill_at = ending.kill_at.min(later(now, grace.max(LEAST)));
            }
        }
        Event::Evict(eviction) => {
            if life.ending.is_none() {
                out.note(None, true, "Evicted", eviction.message.clone());
                let kill_at = later(now, eviction.grace);
                life.ending = Some(Ending { cause: Cause::Evicted(eviction), kill_at });
            }
        }
    }
}

fn sandbox_made(life: &mut Life, made: Option<SandboxFacts>, now: Timestamp) {
    if let Sandbox::None { stage, .. } = &mut life.sandbox {
        stage.end(made.is_some(), now);
        if let Some(facts) = made {
            life.sandbox = Sandbox::Ready(facts);
        }
    }
}

fn sandbox_removed(life: &mut Life, ok: bool, now: Timestamp) {
    let Sandbox::Doomed { facts, stage } = &mut life.sandbox else { return };
    if !ok {
        return stage.end(false, now);
    }
    if life.ending.is_some() {
        life.sandbox = Sandbox::Gone;
        return;
    }
    life.sandbox = Sandbox::None { attempt: facts.attempt + 1, stage: Stage::Todo };
    // A new sandbox starts from the beginning: the work of its init containers may have been in it.
    life.initialized = false;
    for member in life.members.values_mut().filter(|m| m.kind == Kind::Init) {
        member.redo = member.ended().is_some_and(|e| e.exit_code == 0);
    }
}

fn sandbox_lost(life: &mut Life, id: &str, now: Timestamp) {
    let Sandbox::Ready(facts) = &life.sandbox else { return };
    if facts.id != id {
        return;
    }
    life.sandbox = Sandbox::Doomed { facts: facts.clone(), stage: Stage::Todo };
    for member in life.members.values_mut() {
        if let Some(run) = member.run.as_mut()
            && let RunState::Running { started_at } = run.state
        {
            run.state = RunState::Ended(Ended {
                id: run.id.id.clone(),
                started_at: Some(started_at),
                finished_at: now,
                exit_code: 137,
                reason: "ContainerStatusUnknown".to_owned(),
                message: "the process that kept the container is gone".to_owned(),
            });
        }
        if !matches!(member.doing, Doing::Starting { .. }) {
            member.doing = Doing::Nothing;
        }
        member.started = false;
        member.ready = false;
    }
}

fn started(pod: &Pod, life: &mut Life, name: &str, mut run: Run, now: Timestamp, out: &mut Step) {
    let lost = matches!(life.sandbox, Sandbox::Doomed { .. });
    let Some(member) = life.members.get_mut(name) else { return };
    if let Some(old) = member.run.take() {
        if old.id == run.id {
            // It exited before its start was told.
            if let RunState::Ended(_) = old.state {
                run.state = old.state;
            }
        } else if let RunState::Ended(ended) = old.state {
            member.last = Some(ended);
        }
    }
    if let (true, RunState::Running { started_at }) = (lost, &run.state) {
        run.state = RunState::Ended(Ended {
            id: run.id.id.clone(),
            started_at: Some(*started_at),
            finished_at: now,
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "the process that kept the container is gone".to_owned(),
        });
    }
    let running = matches!(run.state, RunState::Running { .. });
    member.run = Some(run);
    member.trouble = None;
    member.starts = Default::default();
    member.doing = Doing::Nothing;
    member.redo = false;
    member.started = false;
    member.ready = false;
    if !running {
        return;
    }
    let parts = spec::parts(pod);
    let Some(part) = spec::part(&parts, name) else { return };
    if spec::has_post_start(part) {
        member.doing = Doing::PostStart;
        out.actions.push(Action::PostStart { name: name.to_owned() });
    } else {
        stand(life, part);
    }
}

/// A container that runs and whose hook is done counts as started and ready where no probe says otherwise.
fn stand(life: &mut Life, part: &spec::Part) {
    if let Some(member) = life.members.get_mut(&part.spec.name) {
        member.started = part.spec.startup_probe.is_none();
        member.ready = member.started && part.spec.readiness_probe.is_none();
    }
}

fn not_started(life: &mut Life, name: &str, reason: String, message: String, now: Timestamp) {
    let Some(member) = life.members.get_mut(name) else { return };
    let cancelled = matches!(member.doing, Doing::Starting { cancelled: true, .. });
    member.doing = Doing::Nothing;
    if cancelled {
        return;
    }
    let rest = member.starts.count(now);
    let turns_at =
        matches!(reason.as_str(), "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed").then(|| later(now, TURN));
    member.trouble = Some(Trouble { reason, message, retry_at: later(now, rest), turns_at });
}

fn images_arrived(life: &mut Life, name: &str, now: Timestamp) {
    let trouble = life.members.get_mut(name).and_then(|member| member.trouble.as_mut());
    if let Some(trouble) = trouble.filter(|t| WAITS.contains(&&*t.reason)) {
        trouble.retry_at = now;
    }
}

fn post_started(pod: &Pod, life: &mut Life, name: &str, id: &str, ok: bool, now: Timestamp, out: &mut Step) {
    let Some(member) = life.members.get_mut(name) else { return };
    if member.doing != Doing::PostStart || member.run.as_ref().is_none_or(|r| r.id.id != id) {
        return;
    }
    member.doing = Doing::Nothing;
    if member.running().is_none() {
        return;
    }
    let parts = spec::parts(pod);
    let Some(part) = spec::part(&parts, name) else { return };
    if ok {
        stand(life, part);
    } else {
        stop::begin(life, part, later(now, spec::grace(pod)), now, "its postStart hook failed", out);
    }
}

fn pre_stopped(life: &mut Life, name: &str, id: &str, now: Timestamp, out: &mut Step) {
    let Some(member) = life.members.get_mut(name) else { return };
    let here = member.run.as_ref().is_some_and(|r| r.id.id == id);
    if let Doing::Stopping(stopping) = &mut member.doing
        && here
        && stopping.phase == StopPhase::PreStop
    {
        stopping.phase = StopPhase::Asked;
        stopping.kill_at = stopping.kill_at.max(later(now, stop::LEAST_GRACE));
        out.actions.push(Action::Signal { name: name.to_owned(), kill: false });
    }
}

fn exited(life: &mut Life, name: &str, ended: Ended) {
    let Some(member) = life.members.get_mut(name) else { return };
    let Some(run) = member.run.as_mut().filter(|r| r.id.id == ended.id) else { return };
    if matches!(run.state, RunState::Ended(_)) {
        return;
    }
    run.state = RunState::Ended(ended);
    member.started = false;
    member.ready = false;
    if !matches!(member.doing, Doing::Starting { .. }) {
        member.doing = Doing::Nothing;
    }
}

#[expect(clippy::too_many_arguments, reason = "an event's fields, taken apart")]
fn probed(pod: &Pod, life: &mut Life, name: &str, id: &str, probe: Probe, ok: bool, now: Timestamp, out: &mut Step) {
    let Some(member) = life.members.get_mut(name) else { return };
    if member.doing != Doing::Nothing || member.running().is_none_or(|r| r.id.id != id) {
        return;
    }
    let parts = spec::parts(pod);
    let Some(part) = spec::part(&parts, name) else { return };
    let why = match (probe, ok) {
        (Probe::Startup, true) => {
            member.started = true;
            member.ready = part.spec.readiness_probe.is_none();
            return;
        }
        (Probe::Readiness, ok) => {
            member.ready = ok && member.started;
            return;
        }
        (Probe::Liveness, true) => return,
        (Probe::Startup, false) => ("it failed its startup probe", &part.spec.startup_probe),
        (Probe::Liveness, false) => ("it failed its liveness probe", &part.spec.liveness_probe),
    };
    let own = why.1.as_ref().and_then(|p| p.termination_grace_period_seconds).and_then(|s| u64::try_from(s).ok());
    let grace = own.map_or_else(|| spec::grace(pod), |s| Duration::from_secs(s.max(1)));
    stop::begin(life, part, later(now, grace), now, why.0, out);
}
