//! Which of the runtime's sandboxes and containers are which of ours, and which of them live as far as the agent was told. Pure.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::{ContainerSpec, RuntimeEvent, SandboxSpec};

/// Containers that are gone and whose names the API may still show: two of each container of a pod that is over, until its object is gone.
const GONE: usize = 4096;

/// A sandbox of ours.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    /// The runtime's id; `None` until it is made.
    pub(super) theirs: Option<String>,
    /// As it was asked for.
    pub(super) spec: Arc<SandboxSpec>,
    ready: bool,
    changed: u64,
}

/// A container of ours.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// The runtime's id.
    pub(super) theirs: String,
    /// As it was asked for.
    pub(super) spec: Arc<ContainerSpec>,
    alive: bool,
    changed: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Names {
    sandboxes: HashMap<String, Sandbox>,
    containers: HashMap<String, Container>,
    /// The runtime's ids of containers to ours.
    ours: HashMap<String, String>,
    gone: VecDeque<(String, String)>,
    /// Counts changes, by which a sight that is older than a change is known.
    changes: u64,
}

/// What a look at the runtime saw: its ids of sandboxes that stand, and of containers that are not over.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    pub(super) ready: HashSet<String>,
    pub(super) alive: HashSet<String>,
}

impl Names {
    /// To be taken before a look; what changes after it is not judged by that look.
    pub(super) fn mark(&self) -> u64 {
        self.changes
    }

    fn change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// A sandbox is asked for, or has been made.
    pub(super) fn put_sandbox(&mut self, spec: Arc<SandboxSpec>, theirs: Option<String>, ready: bool) {
        let changed = self.change();
        self.sandboxes.insert(spec.id.clone(), Sandbox { theirs, spec, ready, changed });
    }

    pub(super) fn sandbox(&self, id: &str) -> Option<&Sandbox> {
        self.sandboxes.get(id)
    }

    /// It is gone with all its containers.
    pub(super) fn forget_sandbox(&mut self, id: &str) {
        self.sandboxes.remove(id);
        let of_it: Vec<String> = self.containers.iter().filter(|(_, c)| c.spec.id.sandbox == id).map(|(id, _)| id.clone()).collect();
        of_it.iter().for_each(|id| self.forget_container(id));
    }

    /// A container was made, is started, or was found.
    pub(super) fn put_container(&mut self, spec: Arc<ContainerSpec>, theirs: String, alive: bool) {
        let changed = self.change();
        self.ours.insert(theirs.clone(), spec.id.id.clone());
        self.containers.insert(spec.id.id.clone(), Container { theirs, spec, alive, changed });
    }

    /// It is being started: from now on its end is told.
    pub(super) fn begin(&mut self, id: &str) {
        let changed = self.change();
        if let Some(container) = self.containers.get_mut(id) {
            (container.alive, container.changed) = (true, changed);
        }
    }

    /// Its limits are others now.
    pub(super) fn respecify(&mut self, spec: Arc<ContainerSpec>) {
        if let Some(container) = self.containers.get_mut(&spec.id.id) {
            container.spec = spec;
        }
    }

    pub(super) fn container(&self, id: &str) -> Option<&Container> {
        self.containers.get(id)
    }

    /// The container that the runtime calls so.
    pub(super) fn called(&self, theirs: &str) -> Option<&Container> {
        self.containers.get(self.ours.get(theirs)?)
    }

    pub(super) fn forget_container(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else { return };
        self.ours.remove(&container.theirs);
        if self.gone.len() == GONE {
            self.gone.pop_front();
        }
        self.gone.push_back((id.to_owned(), container.theirs));
    }

    /// The runtime's id of a container, also of one that is gone.
    pub(super) fn theirs(&self, id: &str) -> Option<&str> {
        let gone = || self.gone.iter().rev().find(|(ours, _)| ours == id).map(|(_, theirs)| theirs.as_str());
        self.containers.get(id).map(|container| container.theirs.as_str()).or_else(gone)
    }

    /// Images in use.
    pub(super) fn images(&self) -> HashSet<String> {
        let of = |c: &Container| std::iter::once(c.spec.image.clone()).chain(c.spec.image_mounts.iter().map(|m| m.image.clone())).collect();
        self.containers.values().flat_map(|c| -> Vec<String> { of(c) }).collect()
    }

    /// Whether anything is there whose end would be told.
    pub(super) fn is_idle(&self) -> bool {
        self.containers.values().all(|c| !c.alive) && self.sandboxes.values().all(|s| !s.ready)
    }

    /// What has ended by what was seen, each told once.
    pub(super) fn see(&mut self, mark: u64, sight: &Sight) -> Vec<RuntimeEvent> {
        let mut out = Vec::new();
        for container in self.containers.values_mut().filter(|c| c.alive && c.changed <= mark) {
            if !sight.alive.contains(&container.theirs) {
                container.alive = false;
                out.push(RuntimeEvent::Exited(container.spec.id.clone()));
            }
        }
        for (id, sandbox) in self.sandboxes.iter_mut().filter(|(_, s)| s.ready && s.changed <= mark) {
            if sandbox.theirs.as_ref().is_none_or(|theirs| !sight.ready.contains(theirs)) {
                sandbox.ready = false;
                out.push(RuntimeEvent::SandboxLost(id.clone()));
            }
        }
        out
    }

    /// The runtime says that one of these ids is over.
    pub(super) fn ended(&mut self, theirs: &str) -> Option<RuntimeEvent> {
        if let Some(container) = self.ours.get(theirs).and_then(|id| self.containers.get_mut(id)) {
            return std::mem::take(&mut container.alive).then(|| RuntimeEvent::Exited(container.spec.id.clone()));
        }
        let (id, sandbox) = self.sandboxes.iter_mut().find(|(_, s)| s.theirs.as_deref() == Some(theirs))?;
        std::mem::take(&mut sandbox.ready).then(|| RuntimeEvent::SandboxLost(id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerId;

    fn sandbox(id: &str) -> Arc<SandboxSpec> {
        Arc::new(SandboxSpec { id: id.to_owned(), ..SandboxSpec::default() })
    }

    fn container(id: &str) -> Arc<ContainerSpec> {
        Arc::new(ContainerSpec { id: ContainerId { sandbox: "s".to_owned(), id: id.to_owned() }, ..ContainerSpec::default() })
    }

    fn sight(ready: &[&str], alive: &[&str]) -> Sight {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Sight { ready: set(ready), alive: set(alive) }
    }

    fn told(events: Vec<RuntimeEvent>) -> Vec<String> {
        let name = |event| match event {
            RuntimeEvent::Exited(id) => id.id,
            RuntimeEvent::SandboxLost(id) => format!("sandbox {id}"),
            RuntimeEvent::ImagesChanged => "images".to_owned(),
            RuntimeEvent::Resync => "resync".to_owned(),
        };
        events.into_iter().map(name).collect()
    }

    #[test]
    fn an_end_is_told_once() {
        let mut names = Names::default();
        names.put_sandbox(sandbox("s"), Some("S".to_owned()), true);
        for (ours, theirs) in [("a", "A"), ("b", "B")] {
            names.put_container(container(ours), theirs.to_owned(), false);
        }
        assert!(told(names.see(names.mark(), &sight(&["S"], &[]))).is_empty(), "one that was never started does not end");
        names.begin("a");
        names.begin("b");
        assert_eq!(told(names.see(names.mark(), &sight(&["S"], &["A"]))), ["b"]);
        assert!(told(names.see(names.mark(), &sight(&["S"], &["A"]))).is_empty());
        assert_eq!(names.ended("A").map(|e| told(vec![e])), Some(vec!["a".to_owned()]));
        assert!(names.ended("A").is_none() && names.ended("unknown").is_none());
        assert_eq!(told(names.see(names.mark(), &sight(&[], &[]))), ["sandbox s"]);
        assert!(names.is_idle());
    }

    #[test]
    fn a_look_does_not_judge_what_came_after_it() {
        let mut names = Names::default();
        let mark = names.mark();
        names.put_sandbox(sandbox("s"), Some("S".to_owned()), true);
        names.put_container(container("a"), "A".to_owned(), true);
        assert!(told(names.see(mark, &sight(&[], &[]))).is_empty());
        assert_eq!(names.see(names.mark(), &sight(&[], &[])).len(), 2);
    }

    #[test]
    fn names_outlive_their_containers_for_a_while() {
        let mut names = Names::default();
        names.put_sandbox(sandbox("s"), Some("S".to_owned()), true);
        for n in 0..GONE + 2 {
            names.put_container(container(&n.to_string()), format!("T{n}"), true);
            names.forget_container(&n.to_string());
        }
        assert_eq!(names.theirs("1"), None);
        assert_eq!(names.theirs(&(GONE + 1).to_string()), Some(format!("T{}", GONE + 1).as_str()));
        names.put_container(container("last"), "L".to_owned(), true);
        names.forget_sandbox("s");
        assert!(names.container("last").is_none() && names.called("L").is_none());
        assert_eq!(names.theirs("last"), Some("L"));
    }
}
