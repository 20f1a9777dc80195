//! What this node's pods were granted: one book, so that two pods are never given the same thing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::Amounts;
use crate::pod::{
    admit::{self, NodeFacts},
    life::Refusal,
    preempt::{self, NoRoom},
    resize, spec,
};

/// Pods by uid, each with the resources that it was granted.
#[derive(Debug)]
pub struct Ledger {
    granted: Mutex<HashMap<String, Arc<Pod>>>,
    freed: watch::Sender<()>,
    changed: watch::Sender<()>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { granted: Mutex::default(), freed: watch::Sender::new(()), changed: watch::Sender::new(()) }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Pod>>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pod on, or says why not.
    pub fn admit(&self, pod: &Arc<Pod>, node: &NodeFacts) -> Option<Refusal> {
        let mut granted = self.lock();
        let refusal = admit::refuse(pod, granted.values().map(AsRef::as_ref), node);
        if refusal.is_none() {
            granted.insert(spec::uid(pod).to_owned(), pod.clone());
            self.changed.send_replace(());
        }
        refusal
    }

    /// The pods that would have to end for a critical one.
    pub fn victims(&self, pod: &Pod, node: &NodeFacts) -> Result<Vec<Arc<Pod>>, NoRoom> {
        let others: Vec<_> = self.lock().values().filter(|other| spec::uid(other) != spec::uid(pod)).cloned().collect();
        preempt::victims(pod, &others, &preempt::lacking(pod, &others, &node.allocatable))
    }

    /// Notes a pod that is here whatever is free: it ran before.
    pub fn keep(&self, pod: Arc<Pod>) {
        self.lock().insert(spec::uid(&pod).to_owned(), pod);
        self.changed.send_replace(());
    }

    /// Grants a pod that is here what it asks for now, if there is room.
    pub fn change(&self, pod: &Arc<Pod>, allocatable: &Amounts) -> Result<(), Refusal> {
        let refusal = |reason: &str, message| Refusal { reason: reason.to_owned(), message };
        let Some(wanted) = &pod.spec else { return Ok(()) };
        let mut granted = self.lock();
        if let Some((_, message)) = admit::shortage(wanted, std::iter::empty(), allocatable) {
            return Err(refusal(resize::INFEASIBLE, message));
        }
        let others = granted.values().filter(|o| spec::uid(o) != spec::uid(pod)).map(AsRef::as_ref);
        if let Some((_, message)) = admit::shortage(wanted, others, allocatable) {
            return Err(refusal(resize::DEFERRED, message));
        }
        granted.insert(spec::uid(pod).to_owned(), pod.clone());
        drop(granted);
        self.changed.send_replace(());
        // It may have asked for less than it had.
        self.freed.send_replace(());
        Ok(())
    }

    /// A pod takes nothing any more.
    pub fn release(&self, uid: &str) {
        if self.lock().remove(uid).is_some() {
            self.changed.send_replace(());
            self.freed.send_replace(());
        }
    }

    /// Looks at all pods as they were granted.
    pub fn look<T>(&self, see: impl FnOnce(&mut dyn Iterator<Item = &Pod>) -> T) -> T {
        see(&mut self.lock().values().map(AsRef::as_ref))
    }

    /// Tells when anything was granted or became free.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells when something becomes free.
    pub fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let container = json!({ "name": "a", "resources": { "requests": { "cpu": cpu } } });
        let pod = json!({ "metadata": { "name": uid, "uid": uid }, "spec": { "containers": [container] } });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_wish_is_granted_when_there_is_room() {
        let allocatable = crate::resources::amounts(Some(&serde_json::from_value(json!({ "cpu": "2", "pods": "9" })).expect("amounts")));
        let node = NodeFacts { allocatable: allocatable.clone(), ..NodeFacts::default() };
        let ledger = Ledger::default();
        assert_eq!(ledger.admit(&pod("a", "1"), &node), None);
        assert_eq!(ledger.admit(&pod("b", "500m"), &node), None);
        assert_eq!(ledger.admit(&pod("c", "600m"), &node).map(|r| r.reason), Some("OutOfcpu".to_owned()));
        let mut freed = ledger.freed();
        let reason = |cpu: &str| ledger.change(&pod("b", cpu), &allocatable).err().map(|r| r.reason);
        assert_eq!(reason("1500m").as_deref(), Some(resize::DEFERRED));
        assert_eq!(reason("2500m").as_deref(), Some(resize::INFEASIBLE));
        assert!(!freed.has_changed().expect("it lives"));
        assert_eq!(reason("1"), None);
        assert!(freed.has_changed().expect("it lives"));
        freed.mark_unchanged();
        ledger.release("unknown");
        assert!(!freed.has_changed().expect("it lives"));
        ledger.release("a");
        assert!(freed.has_changed().expect("it lives"));
        assert_eq!(reason("1500m"), None);
    }
}
