//! Deployment: one ReplicaSet per template, taken up and down within the bounds that the strategy gives.

use std::sync::Arc;

use coracle_client::{EventType, events::reference, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use serde_json::{Map, Value, json};

use super::{
    rollout,
    sets::{Member, REVISION, actual, annotations, new_set, note_size, replicas, revision, spec_replicas, split},
    status::{self, reason},
};
use crate::{
    execute::Failure,
    merge,
    owner::{Claim, claim, owning_selector},
    plan::{Announce, Create, Delete, Patch, Plan, Target, Told, document},
    pods::is_terminal,
    waiting::Waiting,
};

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// Its sets, and those of its namespace that nobody controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// The pods of its sets; only for Recreate, which waits for their end.
    pub pods: &'a [Arc<Pod>],
    /// Now, in whole seconds.
    pub now: Timestamp,
    /// The creation of a set that was refused last time.
    pub failed: Option<&'a Failure>,
}

/// Whether the Deployment's strategy is Recreate.
pub fn recreates(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().is_some_and(rollout::recreates)
}

/// The next step towards `deployment.spec`; `Plan::default()` when there is none.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let Some(spec) = &seen.deployment.spec else { return Plan::default() };
    let Some(selector) = owning_selector(&spec.selector) else { return selects_all(seen) };
    let (mut ours, mut claims) = (Vec::new(), Vec::new());
    for set in seen.sets {
        match claim(seen.deployment, &selector, &**set) {
            Claim::Ours => ours.push(set.as_ref()),
            Claim::Adopt(patch) | Claim::Release(patch) => claims.push(patch),
            Claim::Foreign => {}
        }
    }
    if !claims.is_empty() {
        // Sizes are planned once the family is known.
        return Plan { patches: claims, ..Plan::default() };
    }
    let (new, old) = split(spec, ours);
    let mut rollout = Rollout::new(seen, spec, new, old);
    rollout.step();
    rollout.finish()
}

/// A selector that matches everything owns nothing.
fn selects_all(seen: &Observed<'_>) -> Plan {
    let observed = seen.deployment.status.as_ref().and_then(|s| s.observed_generation);
    if observed >= seen.deployment.metadata.generation {
        return Plan::default();
    }
    let body = json!({"status": {"observedGeneration": seen.deployment.metadata.generation}});
    let told = Told {
        regarding: reference(seen.deployment),
        kind: EventType::Warning,
        reason: "SelectingAll",
        message: "This deployment is selecting all pods. A non-empty selector is required.".into(),
    };
    let status = Patch { subresource: Some("status"), ..Patch::merge(Target::of(seen.deployment), body) };
    Plan { status: Some(status), events: vec![told], ..Plan::default() }
}

/// One step under way.
struct Rollout<'a> {
    seen: &'a Observed<'a>,
    spec: &'a DeploymentSpec,
    new: Option<Member<'a>>,
    /// Oldest first.
    old: Vec<Member<'a>>,
    /// Replicas of the new set, if one is to be made.
    create: Option<i32>,
    /// Whether Progressing is followed (a rollout), or only the counts (paused, scaled).
    follow: bool,
    /// Whether sets beyond the history may go.
    tidy: bool,
    waiting: Vec<Waiting>,
}

impl<'a> Rollout<'a> {
    fn new(seen: &'a Observed<'a>, spec: &'a DeploymentSpec, new: Option<&'a ReplicaSet>, old: Vec<&'a ReplicaSet>) -> Self {
        let old = old.into_iter().map(Member::new).collect();
        Self { seen, spec, new: new.map(Member::new), old, create: None, follow: false, tidy: false, waiting: Vec::new() }
    }

    fn step(&mut self) {
        if self.seen.deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        let paused = self.spec.paused == Some(true);
        if paused || rollout::was_scaled(self.spec, self.new.as_ref(), &self.old) {
            if paused {
                self.waiting.push(Waiting::Paused);
            }
            rollout::scale(self.spec, self.new.as_mut(), &mut self.old);
            self.tidy = paused;
            return;
        }
        self.follow = true;
        if rollout::recreates(self.spec) { self.recreate() } else { self.roll() }
    }

    fn roll(&mut self) {
        let planned = self.old.iter().map(|m| m.size).sum::<i32>();
        let Some(new) = &mut self.new else {
            self.create = Some(rollout::new_size(self.spec, 0, planned));
            return;
        };
        let size = rollout::new_size(self.spec, new.size, planned + new.size);
        if size != new.size {
            new.scale(size);
            return;
        }
        rollout::shrink_old(self.spec, new, &mut self.old);
        self.tidy = self.old.iter().all(|m| m.size == spec_replicas(m.seen));
    }

    fn recreate(&mut self) {
        let mut shrinks = false;
        for set in self.old.iter_mut().filter(|m| m.size > 0) {
            set.scale(0);
            shrinks = true;
        }
        let new_uid = self.new.as_ref().and_then(|m| m.seen.metadata.uid.as_deref());
        let running = self.seen.pods.iter().filter(|pod| {
            let owner = crate::owner::controller_of(&pod.metadata).map(|o| o.uid.as_str());
            owner != new_uid && !is_terminal(pod)
        });
        let left = i32::try_from(running.count()).unwrap_or(i32::MAX).max(self.old.iter().map(|m| actual(m.seen)).sum());
        if left > 0 {
            self.waiting.push(Waiting::OldPodsGone { left });
        }
        if shrinks || left > 0 {
            return;
        }
        match &mut self.new {
            None => self.create = Some(replicas(self.spec)),
            Some(new) if new.size != replicas(self.spec) => new.scale(replicas(self.spec)),
            Some(_) => self.tidy = true,
        }
    }

    fn finish(self) -> Plan {
        let mut plan = Plan { waiting: self.waiting.clone(), ..Plan::default() };
        let highest = self.old.iter().map(|m| revision(m.seen)).max().unwrap_or(0);
        let number = highest.saturating_add(1);
        let collisions = self.collisions();
        let created = self.create.map(|size| new_set(self.seen.deployment, self.spec, collisions, size, number));
        let deleting = self.seen.deployment.metadata.deletion_timestamp.is_some();
        if !deleting {
            plan.patches.extend(self.new.iter().filter_map(|m| self.change(m, Some(number))));
            plan.patches.extend(self.old.iter().filter_map(|m| self.change(m, None)));
        }
        let noted = match (&created, &self.new) {
            (Some(_), _) => number.to_string(),
            (None, Some(m)) => revision(m.seen).max(number).to_string(),
            (None, None) => String::new(),
        };
        let status = self.status(created.as_ref(), collisions);
        if self.tidy && (status::is_complete(self.seen.deployment, self.spec, &status) || self.spec.paused == Some(true)) {
            plan.deletes = self.history();
        }
        plan.look_again(status::deadline_at(self.spec, &status).filter(|_| self.follow).map(|at| at.max(self.seen.now)));
        let missing = replicas(self.spec) - status.available_replicas.unwrap_or(0);
        if missing > 0 && !deleting {
            plan.waiting.push(Waiting::PodsAvailable { missing, wanted: replicas(self.spec) });
        }
        plan.creates.extend(created.map(|set| self.creation(&set)));
        plan.status = self.report(&status, noted);
        plan
    }

    /// A name that another set has already gives way to the next.
    fn collisions(&self) -> i32 {
        let before = self.seen.deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let taken = self.create.is_some() && self.seen.failed.is_some_and(|f| f.refused.reason == "AlreadyExists");
        if taken { before.saturating_add(1) } else { before }
    }

    fn creation(&self, set: &ReplicaSet) -> Create {
        let create = Create::of(set);
        let size = spec_replicas(set);
        let name = set.metadata.name.as_deref().unwrap_or_default();
        if size == 0 {
            return create;
        }
        create.announced(Announce {
            regarding: reference(self.seen.deployment),
            done: ("ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {size}")),
            failed: Some((reason::REFUSED, format!("Failed to create new replica set \"{name}\": "))),
        })
    }

    /// The patch of a set's size, notes and, for the new one, revision and minReadySeconds.
    fn change(&self, member: &Member<'_>, number: Option<i64>) -> Option<Patch> {
        let set = member.seen;
        let before = set.metadata.annotations.clone().unwrap_or_default();
        let mut after = match number {
            Some(number) => annotations(self.seen.deployment, Some(set), number),
            None => before.clone(),
        };
        if member.note_size {
            note_size(&mut after, self.spec);
        }
        let mut body = Map::new();
        if let Some(changed) = merge::diff(&document(&before), &document(&after)) {
            body.insert("metadata".into(), json!({"annotations": changed}));
        }
        let mut spec = Map::new();
        if member.size != spec_replicas(set) {
            spec.insert("replicas".into(), json!(member.size));
        }
        let min_ready = |seconds: Option<i32>| seconds.unwrap_or(0);
        if number.is_some() && min_ready(set.spec.as_ref().and_then(|s| s.min_ready_seconds)) != min_ready(self.spec.min_ready_seconds) {
            spec.insert("minReadySeconds".into(), json!(min_ready(self.spec.min_ready_seconds)));
        }
        if !spec.is_empty() {
            body.insert("spec".into(), Value::Object(spec));
        }
        if body.is_empty() {
            return None;
        }
        let patch = Patch::merge(Target::of(set), Value::Object(body));
        let (from, to) = (spec_replicas(set), member.size);
        if from == to {
            return Some(patch);
        }
        let direction = if to > from { "up" } else { "down" };
        Some(patch.announced(Announce {
            regarding: reference(self.seen.deployment),
            done: ("ScalingReplicaSet", format!("Scaled {direction} replica set {} from {from} to {to}", member.name())),
            failed: None,
        }))
    }

    fn status(&self, created: Option<&ReplicaSet>, collisions: i32) -> DeploymentStatus {
        let (seen, now) = (self.seen, self.seen.now);
        let new = self.new.as_ref().map(|m| m.seen);
        let all: Vec<&ReplicaSet> = self.old.iter().map(|m| m.seen).chain(new).collect();
        let counts: Vec<&ReplicaSet> = all.iter().copied().chain(created).collect();
        let mut status = status::counted(seen.deployment, self.spec, new, &counts, now);
        if collisions > 0 {
            status.collision_count = Some(collisions);
        }
        self.mark_pause(&mut status);
        if !self.follow {
            return status;
        }
        let has_deadline = status::deadline(self.spec).is_some();
        let name = |set: &ReplicaSet| set.metadata.name.clone().unwrap_or_default();
        match (created, new) {
            (Some(set), _) if has_deadline => match seen.failed.filter(|f| !f.refused.namespace_ends && f.refused.code != 409) {
                Some(failed) => {
                    let text = format!("Failed to create new replica set \"{}\": {}", name(set), failed.refused);
                    status::set(&mut status, "Progressing", "False", reason::REFUSED, text, now);
                }
                None => {
                    let text = format!("Created new replica set \"{}\"", name(set));
                    status::set(&mut status, "Progressing", "True", reason::CREATED, text, now);
                }
            },
            (None, Some(set)) if has_deadline && status::find(Some(&status), "Progressing").is_none() => {
                let text = format!("Found new replica set \"{}\"", name(set));
                status::set(&mut status, "Progressing", "True", reason::FOUND, text, now);
            }
            _ => status::progress(seen.deployment, self.spec, &mut status, new, now),
        }
        status::failures(&mut status, new, &all, now);
        status
    }

    /// A pause stops the clock of progress: its beginning and end are conditions of their own.
    fn mark_pause(&self, status: &mut DeploymentStatus) {
        if status::deadline(self.spec).is_none() || self.seen.deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        let current = status::find(Some(status), "Progressing");
        if current.is_some_and(|c| status::is(c, reason::TIMED_OUT)) {
            return;
        }
        let marked = current.is_some_and(|c| status::is(c, reason::PAUSED));
        match (self.spec.paused == Some(true), marked) {
            (true, false) => {
                status::set(status, "Progressing", "Unknown", reason::PAUSED, "Deployment is paused".into(), self.seen.now);
            }
            (false, true) => {
                status::set(status, "Progressing", "Unknown", reason::RESUMED, "Deployment is resumed".into(), self.seen.now);
            }
            _ => {}
        }
    }

    /// The status with the revision beside it: upstream writes both by the status subresource, so that the generation stays.
    fn report(&self, status: &DeploymentStatus, number: String) -> Option<Patch> {
        let deployment = self.seen.deployment;
        let mut patch = Patch::status(Target::of(deployment), deployment.status.as_ref(), status);
        let before = deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
        if !number.is_empty() && before != Some(&number) {
            let patch =
                patch.get_or_insert_with(|| Patch { subresource: Some("status"), ..Patch::merge(Target::of(deployment), json!({})) });
            patch.body["metadata"] = json!({"annotations": {REVISION: number}});
        }
        patch
    }

    /// Old sets beyond the history, that hold nothing any more.
    fn history(&self) -> Vec<Delete> {
        let Some(limit) = self.spec.revision_history_limit.filter(|l| *l != i32::MAX).and_then(|l| usize::try_from(l).ok()) else {
            return Vec::new();
        };
        let mut alive: Vec<_> = self.old.iter().map(|m| m.seen).filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
        alive.sort_by_key(|set| revision(set));
        let beyond = alive.len().saturating_sub(limit);
        let idle = |set: &&&ReplicaSet| {
            let observed = set.status.as_ref().and_then(|s| s.observed_generation);
            actual(set) == 0 && spec_replicas(set) == 0 && set.metadata.generation <= observed
        };
        alive[..beyond].iter().filter(idle).map(|set| Delete::one(Target::of(*set))).collect()
    }
}

#[cfg(test)]
mod tests;
