//! The end of containers and pods: hook, TERM, KILL; sidecars after the others; then sandbox, volumes and the object itself.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    backoff::later,
    life::{Begin, Cause, Doing, Life, Sandbox, Stage, StopPhase, Stopping},
    plan::{self, Action, Step},
    spec::{self, Kind, Part},
};

/// What a container has at least between TERM and KILL after its hook took all the time.
pub const LEAST_GRACE: Duration = Duration::from_secs(2);
/// KILL is sent again after that, should it be lost.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// Begins to stop one container.
pub fn begin(life: &mut Life, part: &Part, kill_at: Timestamp, now: Timestamp, why: &str, out: &mut Step) {
    let name = part.spec.name.as_str();
    let Some(member) = life.members.get_mut(name) else { return };
    if member.running().is_none() {
        return;
    }
    let message = if why.is_empty() { format!("stopping container {name}") } else { format!("stopping container {name}: {why}") };
    out.note(Some(name), false, "Killing", message);
    let phase = if spec::has_pre_stop(part) && kill_at > now {
        let left = kill_at.duration_since(now).unsigned_abs();
        out.actions.push(Action::PreStop { name: name.to_owned(), timeout: left });
        StopPhase::PreStop
    } else {
        out.actions.push(Action::Signal { name: name.to_owned(), kill: false });
        StopPhase::Asked
    };
    member.started = false;
    member.ready = false;
    member.doing = Doing::Stopping(Stopping { phase, kill_at });
}

/// Stops what runs in a pod that ends, then takes its sandbox, volumes and object away.
pub fn wind_down(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    let parts = spec::parts(pod);
    if let Some(ending) = &life.ending {
        let kill_at = ending.kill_at;
        for part in parts.iter().filter(|p| p.kind != Kind::Sidecar) {
            end(life, part, kill_at, now, out);
        }
        // Sidecars last, in reverse order, one after the other; all at once when time is up.
        let others = parts.iter().filter(|p| p.kind != Kind::Sidecar).all(|p| at_rest(life, p));
        if others || kill_at <= now {
            for part in parts.iter().rev().filter(|p| p.kind == Kind::Sidecar) {
                end(life, part, kill_at, now, out);
                if !at_rest(life, part) && kill_at > now {
                    break;
                }
            }
        } else {
            out.wake(kill_at);
        }
        for part in parts.iter().filter(|p| p.kind == Kind::Sidecar) {
            give_up_start(life, part, out);
        }
        if !life.all_ended() {
            return;
        }
    }
    take_away(pod, life, now, out);
}

fn at_rest(life: &Life, part: &Part) -> bool {
    life.members.get(&part.spec.name).is_none_or(super::life::Member::at_rest)
}

fn end(life: &mut Life, part: &Part, kill_at: Timestamp, now: Timestamp, out: &mut Step) {
    give_up_start(life, part, out);
    let Some(member) = life.members.get_mut(&part.spec.name) else { return };
    member.trouble = member.trouble.take().filter(|_| member.run.is_none());
    if matches!(member.doing, Doing::Nothing | Doing::PostStart) && member.running().is_some() {
        return begin(life, part, kill_at, now, "", out);
    }
    match &mut member.doing {
        Doing::PostStart => member.doing = Doing::Nothing,
        // A stop that is under way may have to be quicker; the last two seconds after a hook stay.
        Doing::Stopping(stopping) if stopping.phase == StopPhase::PreStop => stopping.kill_at = stopping.kill_at.min(kill_at),
        Doing::Stopping(stopping) if stopping.kill_at > later(now, LEAST_GRACE) => {
            stopping.kill_at = stopping.kill_at.min(kill_at.max(now));
        }
        _ => {}
    }
}

fn give_up_start(life: &mut Life, part: &Part, out: &mut Step) {
    let Some(member) = life.members.get_mut(&part.spec.name) else { return };
    if let Doing::Starting { cancelled, .. } = &mut member.doing
        && !*cancelled
    {
        *cancelled = true;
        out.actions.push(Action::Cancel { name: part.spec.name.clone() });
    }
}

/// Time passes for stops that are under way, also in a pod that goes on.
pub fn carry_on(_pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    for (name, member) in &mut life.members {
        let Doing::Stopping(stopping) = &mut member.doing else { continue };
        match stopping.phase {
            // The hook is bounded by the same time; it says when it is over.
            StopPhase::PreStop if later(stopping.kill_at, LEAST_GRACE) <= now => stopping.phase = StopPhase::Asked,
            StopPhase::PreStop => out.wake(later(stopping.kill_at, LEAST_GRACE)),
            StopPhase::Asked | StopPhase::Killed => {}
        }
        if stopping.phase == StopPhase::PreStop {
            continue;
        }
        if stopping.kill_at <= now {
            stopping.phase = StopPhase::Killed;
            stopping.kill_at = later(now, KILL_AGAIN);
            out.actions.push(Action::Signal { name: name.clone(), kill: true });
        }
        out.wake(stopping.kill_at);
    }
}

fn take_away(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    // Its last state must be known to the API before the memory of it goes.
    if !life.reported && !life.gone {
        return;
    }
    match &life.sandbox {
        Sandbox::Ready(facts) => life.sandbox = Sandbox::Doomed { facts: facts.clone(), stage: Stage::Todo },
        Sandbox::None { stage: Stage::Busy { .. }, .. } => return,
        Sandbox::None { .. } => life.sandbox = Sandbox::Gone,
        Sandbox::Doomed { .. } | Sandbox::Gone => {}
    }
    if life.sandbox != Sandbox::Gone {
        return plan::doom(life, now, out);
    }
    if matches!(life.volumes, Stage::Busy { .. }) {
        return;
    }
    let deleting = pod.metadata.deletion_timestamp.is_some();
    match life.cleaned.begin(now) {
        Begin::Now => return out.actions.push(Action::Clean),
        Begin::Later(at) => return out.wake(at),
        Begin::Wait => return,
        Begin::Done => {}
    }
    if deleting && !life.gone && life.ending.as_ref().is_none_or(|e| e.cause != Cause::Deleted || life.reported) {
        match life.deleted.begin(now) {
            Begin::Now => out.actions.push(Action::Delete),
            Begin::Later(at) => out.wake(at),
            Begin::Wait | Begin::Done => {}
        }
    }
}
