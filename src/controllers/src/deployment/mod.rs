//! Deployment: wakes, gathers and plans.

pub mod plan;
mod rollout;
mod sets;
mod status;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::core::SelectorExt;

use crate::{
    owner::{controller_of, owning_selector},
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Index of ReplicaSets without a controller, by namespace.
const ORPHANS: &str = "orphans by namespace";

/// Serves Deployments.
#[derive(Debug)]
pub struct Deployments {
    deployments: Lister<Deployment>,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
}

impl Deployments {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (deployments, sets, pods) = (informers.of::<Deployment>(), informers.of::<ReplicaSet>(), informers.of::<Pod>());
        sets.index(ORPHANS, |set| match controller_of(&set.metadata) {
            None => set.metadata.namespace.clone().into_iter().collect(),
            Some(_) => Vec::new(),
        });
        wakeups.watch(&deployments, |old, new| old.or(new).map(Key::of).into_iter().collect());
        let lister = deployments.lister();
        wakeups.watch(&sets, move |old, new| {
            let mut keys: Vec<Key> = [old, new].into_iter().flatten().filter_map(owner_key).collect();
            if let Some(orphan) = new.filter(|set| controller_of(&set.metadata).is_none()) {
                keys.extend(adopters(&lister, orphan));
            }
            keys.dedup();
            keys
        });
        let (lister, all) = (sets.lister(), deployments.lister());
        wakeups.watch(&pods, move |old, new| {
            // Only a Recreate waits for pods themselves, and only for their end.
            let gone = old.filter(|_| new.is_none()).into_iter().filter_map(|pod| pod_owner(&lister, pod));
            gone.filter(|key| all.get(key).is_some_and(|d| plan::recreates(&d))).collect()
        });
        Self { deployments: deployments.lister(), sets: sets.lister(), pods: pods.lister() }
    }
}

#[async_trait]
impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Plan::default()) };
        let mut sets = self.sets.owned_by(deployment.metadata.uid.as_deref().unwrap_or_default());
        sets.extend(self.sets.indexed(ORPHANS, &key.namespace));
        let pods = if plan::recreates(&deployment) {
            sets.iter().flat_map(|set| self.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default())).collect()
        } else {
            Vec::new()
        };
        let failed = past.failures.iter().find(|f| f.kind == "ReplicaSet" && f.verb == "create");
        Ok(plan::plan(&plan::Observed { deployment: &deployment, sets: &sets, pods: &pods, now, failed }))
    }

    fn keys(&self) -> Vec<Key> {
        self.deployments.list().iter().map(|d| Key::of(&**d)).collect()
    }
}

fn owner_key(set: &ReplicaSet) -> Option<Key> {
    let owner = controller_of(&set.metadata).filter(|o| o.kind == "Deployment" && o.api_version.starts_with("apps/"))?;
    Some(Key::new(set.metadata.namespace.as_deref()?, owner.name.as_str()))
}

fn pod_owner(sets: &Lister<ReplicaSet>, pod: &Pod) -> Option<Key> {
    let set = controller_of(&pod.metadata).filter(|o| o.kind == "ReplicaSet")?;
    owner_key(&*sets.get(&Key::new(pod.metadata.namespace.as_deref()?, set.name.as_str()))?)
}

fn adopters(deployments: &Lister<Deployment>, orphan: &ReplicaSet) -> Vec<Key> {
    let labels = orphan.metadata.labels.clone().unwrap_or_default();
    let deployments = deployments.namespace(orphan.metadata.namespace.as_deref().unwrap_or_default());
    deployments
        .iter()
        .filter(|d| d.spec.as_ref().and_then(|s| owning_selector(&s.selector)).is_some_and(|s| s.matches(&labels)))
        .map(|d| Key::of(&**d))
        .collect()
}
