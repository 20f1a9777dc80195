//! In-place resize (KEP-1287, KEP-5419): what the pod asks for, what the node grants, what its containers have. Pure.
//!
//! A new wish is judged once per generation of the pod (`Action::Allocate`); what is granted is then brought to the cgroups
//! (`Action::Resize`), or to a new run where the container's resize policy says so.

use std::collections::BTreeMap;

use coracle_runtime::{ContainerId, Resources};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::{
    backoff::later,
    life::{Doing, Life, Member, Refusal, Sandbox, pause},
    plan::{Action, Step},
    spec::{self, Kind, Part},
    stop,
};
use crate::resources::{self, Amounts, limits};

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

/// What the pod was granted as a whole, beside what its containers were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// Resources of the pod itself; `None` where only its containers have some.
    pub granted: Option<ResourceRequirements>,
    /// What its cgroup has; `None` where there is none.
    pub limits: Option<Resources>,
}

impl Whole {
    /// Of a pod that is new: what it asks for.
    pub fn of(pod: &Pod) -> Self {
        Self { granted: own_wish(pod), limits: None }
    }
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

    /// Whether the node has yet to say whether it grants the wish: until it has, the generation that wishes is not told as seen.
    pub fn is_open(&self) -> bool {
        self.asked.is_some() && self.refused.is_none()
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

/// What the pod asks for as a whole.
fn own_wish(pod: &Pod) -> Option<ResourceRequirements> {
    pod.spec.as_ref()?.resources.clone().filter(|r| *r != ResourceRequirements::default())
}

/// The pod with the resources that it was granted.
pub fn granted(pod: &Pod, life: &Life) -> Pod {
    let mut out = pod.clone();
    let Some(spec) = out.spec.as_mut() else { return out };
    spec.resources.clone_from(&life.whole.granted);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(granted) = life.members.get(&container.name).and_then(|m| m.granted.clone()) {
            container.resources = Some(granted).filter(|r| *r != ResourceRequirements::default());
        }
    }
    out
}

/// The pod's cgroup is being made, with what the pod was granted until now.
pub fn make(pod: &Pod, life: &mut Life) {
    life.whole.limits = granted(pod, life).spec.as_ref().map(whole_limits);
}

/// What a pod that runs already was granted as a whole: what the API says it has, where it says anything. A wish beyond that is judged anew.
pub fn adopt(pod: &Pod, life: &mut Life) {
    let overhead = resources::amounts(pod.spec.as_ref().and_then(|s| s.overhead.as_ref()));
    if let Some((wish, told)) = own_wish(pod).zip(pod.status.as_ref().and_then(|s| s.resources.as_ref())) {
        let of = |wish: &Option<BTreeMap<String, Text>>, told: &Option<BTreeMap<String, Text>>| {
            let mut told = resources::amounts(told.as_ref());
            let wish = resources::amounts(wish.as_ref());
            told.retain(|name, _| wish.contains_key(name));
            for (name, amount) in &mut told {
                // The status counts the overhead in.
                *amount = overhead.get(name).map_or(*amount, |more| amount.minus(*more));
            }
            (told != wish).then(|| resources::texts(&told))
        };
        let (requests, limits) = (of(&wish.requests, &told.requests), of(&wish.limits, &told.limits));
        // Written as they are wished, amounts that are the same are no other wish.
        let have = ResourceRequirements {
            requests: requests.unwrap_or_else(|| wish.requests.clone()),
            limits: limits.unwrap_or_else(|| wish.limits.clone()),
            ..wish
        };
        life.whole.granted = Some(have);
    }
}

fn whole_limits(granted: &PodSpec) -> Resources {
    limits::changeable(&limits::of_whole_pod(granted))
}

/// What of it containers have that have no limits of their own.
pub fn inherited(life: &Life) -> Amounts {
    let spec = PodSpec { resources: life.whole.granted.clone(), ..PodSpec::default() };
    limits::inherited(&spec)
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
    if own_wish(pod) == life.whole.granted && !parts.iter().filter(|p| resizable(p)).any(|p| other(&p)) {
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
            life.whole.granted = own_wish(pod);
            for part in spec::parts(pod).iter().filter(|p| resizable(p)) {
                if let Some(member) = life.members.get_mut(&part.spec.name) {
                    member.granted = Some(wish(part));
                }
            }
            (life.resize.asked, life.resize.refused) = (None, None);
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
    if life.resize.busy {
        return;
    }
    let Some(spec) = granted(pod, life).spec else { return };
    let whole = whole_limits(&spec);
    let mut changes = Vec::new();
    let mut anew = Vec::new();
    // One that keeps what it has until it begins anew.
    let mut waits = false;
    let mut open = life.whole.limits.as_ref().is_some_and(|have| *have != whole);
    for part in parts.iter().filter(|p| resizable(p)) {
        let Some(member) = life.members.get(&part.spec.name) else { continue };
        // One that was ended for it is not there yet.
        open |= member.redo;
        waits |= member.redo;
        let (Some(run), Some(_)) = (member.running(), &member.granted) else { continue };
        let Some(have) = &run.limits else { continue };
        let want = target(&spec, member, part);
        if limits::changeable(have) == want {
            continue;
        }
        open = true;
        if member.doing != Doing::Nothing {
            waits = true;
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
    waits |= !anew.is_empty();
    for part in anew {
        if let Some(member) = life.members.get_mut(&part.spec.name) {
            member.redo = true;
        }
        stop::begin(life, part, later(now, spec::grace(pod)), now, "its resources change", out);
    }
    // No container has more than its pod at any time.
    let whole = match &life.whole.limits {
        Some(have) if waits => limits::wider(have, &whole),
        _ => whole,
    };
    if changes.is_empty() && life.whole.limits.as_ref().is_none_or(|have| *have == whole) {
        return;
    }
    if let Some(at) = life.resize.trouble.as_ref().map(|t| t.retry_at).filter(|at| *at > now) {
        return out.wake(at);
    }
    life.resize.busy = true;
    out.actions.push(Action::Resize { changes, whole });
}

fn wants_restart(part: &Part, have: &Resources, want: &Resources) -> bool {
    let cpu = (have.cpu_shares, have.cpu_quota.filter(|q| *q > 0)) != (want.cpu_shares, want.cpu_quota.filter(|q| *q > 0));
    let memory = have.memory_limit.filter(|m| *m > 0) != want.memory_limit.filter(|m| *m > 0);
    let policies = part.spec.resize_policy.iter().flatten().filter(|p| p.restart_policy == "RestartContainer");
    policies.map(|p| p.resource_name.as_str()).any(|name| (name == "cpu" && cpu) || (name == "memory" && memory))
}

/// Takes in which limits were written, and why the others were not.
pub fn resized(
    life: &mut Life,
    done: Vec<(ContainerId, Resources)>,
    whole: Option<Resources>,
    error: Option<String>,
    now: Timestamp,
    out: &mut Step,
) {
    life.resize.busy = false;
    if whole.is_some() {
        life.whole.limits = whole;
    }
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
