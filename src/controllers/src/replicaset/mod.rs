//! ReplicaSet, and ReplicationController that is the same thing in older words: wakes, gathers and plans.

pub mod kind;
pub mod plan;
mod rank;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ReplicationController};
use kube::core::SelectorExt;

use crate::{
    owner::controller_of,
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};
use kind::Replicated;

/// Index of pods without a controller, by namespace: those that somebody may adopt.
pub const ORPHANS: &str = "orphans by namespace";

/// Serves ReplicaSets.
pub type ReplicaSets = Replicas<ReplicaSet>;
/// Serves ReplicationControllers.
pub type ReplicationControllers = Replicas<ReplicationController>;

/// Serves the sets of one kind.
pub struct Replicas<K> {
    sets: Lister<K>,
    pods: Lister<Pod>,
}

impl<K: Replicated> Replicas<K> {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (sets, pods) = (informers.of::<K>(), informers.of::<Pod>());
        pods.index(ORPHANS, |pod| match controller_of(&pod.metadata) {
            None => pod.metadata.namespace.clone().into_iter().collect(),
            Some(_) => Vec::new(),
        });
        wakeups.watch(&sets, |old, new| old.or(new).map(Key::of).into_iter().collect());
        let lister = sets.lister();
        wakeups.watch(&pods, move |old, new| {
            let mut keys: Vec<Key> = [old, new].into_iter().flatten().filter_map(owner_key::<K>).collect();
            if let Some(orphan) = new.filter(|pod| controller_of(&pod.metadata).is_none()) {
                keys.extend(adopters(&lister, orphan));
            }
            keys.dedup();
            keys
        });
        Self { sets: sets.lister(), pods: pods.lister() }
    }
}

#[async_trait]
impl<K: Replicated> Controller for Replicas<K> {
    fn name(&self) -> &'static str {
        K::CONTROLLER
    }

    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused> {
        let Some(set) = self.sets.get(key) else { return Ok(Plan::default()) };
        let mut pods = self.pods.owned_by(set.meta().uid.as_deref().unwrap_or_default());
        pods.extend(self.pods.indexed(ORPHANS, &key.namespace));
        let failed = past.failures.iter().find(|f| f.kind == "Pod" && matches!(f.verb, "create" | "delete"));
        Ok(plan::plan(&plan::Observed { set: &*set, pods: &pods, now, failed }))
    }

    fn keys(&self) -> Vec<Key> {
        self.sets.list().iter().map(|set| Key::of(&**set)).collect()
    }
}

fn owner_key<K: Replicated>(pod: &Pod) -> Option<Key> {
    let group = K::group(&());
    let owner = controller_of(&pod.metadata).filter(|o| o.kind == K::kind(&()))?;
    let same = owner.api_version.split_once('/').map_or("", |(group, _)| group) == group;
    Some(Key::new(pod.metadata.namespace.as_deref()?, owner.name.as_str())).filter(|_| same)
}

fn adopters<K: Replicated>(sets: &Lister<K>, orphan: &Pod) -> Vec<Key> {
    let labels = orphan.metadata.labels.clone().unwrap_or_default();
    let sets = sets.namespace(orphan.metadata.namespace.as_deref().unwrap_or_default());
    sets.iter().filter(|set| set.wanted().is_some_and(|w| w.selector.matches(&labels))).map(|set| Key::of(&**set)).collect()
}
