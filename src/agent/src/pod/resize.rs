//! In-place resize (KEP-1287): what the pod asks for, what the node grants, what its containers have. Pure.
//!
//! A new wish is judged once per generation of the pod (`Action::Allocate`); what is granted is then brought to the cgroups
//! (`Action::Resize`), or to a new run where the container's resize policy says so.

use coracle_runtime::{ContainerId, Resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, ResourceRequirements};

use super::{
    backoff::later,
    life::{Doing, Life, Member, Refusal, Sandbox, pause},
    plan::{Action, Step},
    spec::{self, Kind, Part},
    stop,
};
use crate::resources::limits;

/// `reason` of a wish that may be granted when other pods leave.
pub const DEFERRED: &str = "Deferred";
/// `reason` of a wish that this node can never grant.
pub const INFEASIBLE: &str = "Infeasible";

/// How far a resize is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resizing {
    /// The generation of the pod whose wish is being judged, or was.
    pub asked: Option<i64>,
    /// Why the wish is not granted: `Deferred` or `Infeasible`.
    pub refused: Option<Refusal>,
    /// What was granted is being carried out.
    pub under_way: bool,
    /// Limits are being written.
    pub busy: bool,
    /// Why they could not be written.
    pub trouble: Option<Trouble>,
}

/// Limits that could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub message: String,
    /// Failures so far.
    pub tries: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

impl Resizing {
    /// Whether the wish waits for room.
    pub fn is_deferred(&self) -> bool {
        self.refused.as_ref().is_some_and(|r| r.reason == DEFERRED)
    }

    /// The conditions of the pod that tell of it.
    pub fn conditions(&self) -> Vec<PodCondition> {
        let condition = |kind: &str, reason: Option<String>, message: Option<String>| PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason,
            message,
            ..PodCondition::default()
        };
        let pending = self.refused.as_ref().map(|r| condition("PodResizePending", Some(r.reason.clone()), Some(r.message.clone())));
        let trouble = self.trouble.as_ref();
        let error = trouble.map(|_| "Error".to_owned());
        let progress = self.under_way.then(|| condition("PodResizeInProgress", error, trouble.map(|t| t.message.clone())));
        pending.into_iter().chain(progress).collect()
    }
}

/// Containers that are resized: those that live as long as the pod.
fn resizable(part: &Part) -> bool {
    matches!(part.kind, Kind::Main | Kind::Sidecar)
}

fn wish(part: &Part) -> ResourceRequirements {
    part.spec.resources.clone().unwrap_or_default()
}

/// The pod with the resources that it was granted.
pub fn granted(pod: &Pod, life: &Life) -> Pod {
    let mut out = pod.clone();
    let Some(spec) = out.spec.as_mut() else { return out };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(granted) = life.members.get(&container.name).and_then(|m| m.granted.clone()) {
            container.resources = Some(granted).filter(|r| *r != ResourceRequirements::default());
        }
    }
    out
}

/// Looks at the pod's wish and at what its containers have.
pub fn step(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    let parts = spec::parts(pod);
    ask(pod, life, &parts, out);
    if matches!(life.sandbox, Sandbox::Ready(_)) {
        carry_out(pod, life, &parts, now, out);
    }
}

fn ask(pod: &Pod, life: &mut Life, parts: &[Part], out: &mut Step) {
    let other = |p: &&Part| life.members.get(&p.spec.name).is_some_and(|m| m.granted.as_ref().is_some_and(|g| *g != wish(p)));
    if !parts.iter().filter(|p| resizable(p)).any(|p| other(&p)) {
        (life.resize.asked, life.resize.refused) = (None, None);
        return;
    }
    let generation = pod.metadata.generation.unwrap_or_default();
    if life.resize.asked != Some(generation) {
        life.resize.asked = Some(generation);
        out.actions.push(Action::Allocate);
    }
}

/// Takes the node's answer in.
pub fn allocated(pod: &Pod, life: &mut Life, answer: Result<(), Refusal>, out: &mut Step) {
    match answer {
        Ok(()) => {
            for part in spec::parts(pod).iter().filter(|p| resizable(p)) {
                if let Some(member) = life.members.get_mut(&part.spec.name) {
                    member.granted = Some(wish(part));
                }
            }
            life.resize.refused = None;
        }
        Err(refusal) => {
            if life.resize.refused.as_ref() != Some(&refusal) {
                let reason = if refusal.reason == DEFERRED { "ResizeDeferred" } else { "ResizeInfeasible" };
                out.note(None, true, reason, format!("the resize of the pod is {}: {}", refusal.reason.to_lowercase(), refusal.message));
            }
            life.resize.refused = Some(refusal);
        }
    }
}

/// A pod that went may have made room.
pub fn room_freed(life: &mut Life) {
    if life.resize.is_deferred() {
        life.resize.asked = None;
    }
}

/// What a container's cgroup is to have.
fn target(spec: &PodSpec, member: &Member, part: &Part) -> Resources {
    let mut container = part.spec.clone();
    container.resources.clone_from(&member.granted);
    limits::changeable(&limits::of_container(spec, &container, 1, None))
}

fn carry_out(pod: &Pod, life: &mut Life, parts: &[Part], now: Timestamp, out: &mut Step) {
    let Some(spec) = &pod.spec else { return };
    if life.resize.busy {
        return;
    }
    let mut changes = Vec::new();
    let mut anew = Vec::new();
    let mut open = false;
    for part in parts.iter().filter(|p| resizable(p)) {
        let Some(member) = life.members.get(&part.spec.name) else { continue };
        // One that was ended for it is not there yet.
        open |= member.redo;
        let (Some(run), Some(_)) = (member.running(), &member.granted) else { continue };
        let Some(have) = &run.limits else { continue };
        let want = target(spec, member, part);
        if limits::changeable(have) == want {
            continue;
        }
        open = true;
        if member.doing != Doing::Nothing {
            continue;
        }
        if wants_restart(part, have, &want) { anew.push(part) } else { changes.push((run.id.clone(), want)) }
    }
    if !open {
        if life.resize.under_way {
            life.resize.under_way = false;
            life.resize.trouble = None;
            out.note(None, false, "ResizeCompleted", "the resize of the pod is done".to_owned());
        }
        return;
    }
    if !life.resize.under_way {
        life.resize.under_way = true;
        out.note(None, false, "ResizeStarted", "the resize of the pod begins".to_owned());
    }
    for part in anew {
        if let Some(member) = life.members.get_mut(&part.spec.name) {
            member.redo = true;
        }
        stop::begin(life, part, later(now, spec::grace(pod)), now, "its resources change", out);
    }
    if changes.is_empty() {
        return;
    }
    if let Some(at) = life.resize.trouble.as_ref().map(|t| t.retry_at).filter(|at| *at > now) {
        return out.wake(at);
    }
    life.resize.busy = true;
    out.actions.push(Action::Resize { changes });
}

fn wants_restart(part: &Part, have: &Resources, want: &Resources) -> bool {
    let cpu = (have.cpu_shares, have.cpu_quota.filter(|q| *q > 0)) != (want.cpu_shares, want.cpu_quota.filter(|q| *q > 0));
    let memory = have.memory_limit.filter(|m| *m > 0) != want.memory_limit.filter(|m| *m > 0);
    let policies = part.spec.resize_policy.iter().flatten().filter(|p| p.restart_policy == "RestartContainer");
    policies.map(|p| p.resource_name.as_str()).any(|name| (name == "cpu" && cpu) || (name == "memory" && memory))
}

/// Takes in which limits were written, and why the others were not.
pub fn resized(life: &mut Life, done: Vec<(ContainerId, Resources)>, error: Option<String>, now: Timestamp, out: &mut Step) {
    life.resize.busy = false;
    for (id, limits) in done {
        let run = life.members.values_mut().filter_map(|m| m.run.as_mut()).find(|r| r.id == id);
        if let Some(run) = run {
            run.limits = Some(limits);
        }
    }
    let Some(message) = error else {
        life.resize.trouble = None;
        return;
    };
    if life.resize.trouble.as_ref().is_none_or(|t| t.message != message) {
        out.note(None, true, "ResizeError", message.clone());
    }
    let tries = life.resize.trouble.as_ref().map_or(0, |t| t.tries) + 1;
    life.resize.trouble = Some(Trouble { message, tries, retry_at: later(now, pause(tries)) });
}

#[cfg(test)]
mod tests;
