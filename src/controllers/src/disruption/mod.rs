//! PodDisruptionBudget: wakes, gathers and plans.

pub mod plan;
mod scale;
pub mod stale;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, informer::Watched, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    core::v1::ReplicationController,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client,
    core::{Selector, SelectorExt},
};

use crate::{
    inventory::Inventory,
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};
use scale::Scales;

/// Serves PodDisruptionBudgets.
pub struct Budgets {
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    scales: Scales,
}

impl Budgets {
    /// Subscribes to what it needs.
    pub fn new(client: Client, informers: &Informers, inventory: Inventory, wakeups: &Wakeups) -> Self {
        let (budgets, pods) = (informers.of::<PodDisruptionBudget>(), informers.of::<Pod>());
        wakeups.watch(&budgets, |old, new| old.or(new).map(Key::of).into_iter().collect());
        let lister = budgets.lister();
        wakeups.watch(&pods, move |old, new| {
            if !old.zip(new).is_none_or(|(old, new)| weighs(old, new)) {
                return Vec::new();
            }
            let mut keys: Vec<Key> = [old, new].into_iter().flatten().flat_map(|pod| covering(&lister, pod)).collect();
            keys.sort();
            keys.dedup();
            keys
        });
        let scales = Scales {
            client,
            inventory,
            sets: informers.of::<ReplicaSet>().lister(),
            controllers: informers.of::<ReplicationController>().lister(),
            deployments: informers.of::<Deployment>().lister(),
            stateful: informers.of::<StatefulSet>().lister(),
        };
        let lister = budgets.lister();
        wake_by_scale::<ReplicaSet>(informers, wakeups, &lister, |s| s.spec.as_ref()?.replicas);
        wake_by_scale::<ReplicationController>(informers, wakeups, &lister, |s| s.spec.as_ref()?.replicas);
        wake_by_scale::<Deployment>(informers, wakeups, &lister, |s| s.spec.as_ref()?.replicas);
        wake_by_scale::<StatefulSet>(informers, wakeups, &lister, |s| s.spec.as_ref()?.replicas);
        Self { budgets: budgets.lister(), pods: pods.lister(), scales }
    }
}

/// Wakes the budgets of a namespace when something in it is scaled.
fn wake_by_scale<K: Watched>(
    informers: &Informers,
    wakeups: &Wakeups,
    budgets: &Lister<PodDisruptionBudget>,
    replicas: fn(&K) -> Option<i32>,
) {
    let budgets = budgets.clone();
    wakeups.watch(&informers.of::<K>(), move |old, new| {
        if budgets.is_empty() || old.map(replicas) == new.map(replicas) {
            return Vec::new();
        }
        let namespace = old.or(new).and_then(|object| object.meta().namespace.clone()).unwrap_or_default();
        budgets.namespace(&namespace).iter().map(|budget| Key::of(&**budget)).collect()
    });
}

/// Whether a budget may see a difference between the two.
fn weighs(old: &Pod, new: &Pod) -> bool {
    let seen = |pod: &Pod| (crate::pods::is_ready(pod), pod.metadata.deletion_timestamp.clone());
    seen(old) != seen(new) || old.metadata.labels != new.metadata.labels || old.metadata.owner_references != new.metadata.owner_references
}

/// The budget's selector as a matcher; `None`: it covers nothing.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    budget.spec.as_ref()?.selector.clone().and_then(|selector| Selector::try_from(selector).ok())
}

fn covering(budgets: &Lister<PodDisruptionBudget>, pod: &Pod) -> Vec<Key> {
    if budgets.is_empty() {
        return Vec::new();
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let budgets = budgets.namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    budgets.iter().filter(|budget| selector(budget).is_some_and(|s| s.matches(&labels))).map(|budget| Key::of(&**budget)).collect()
}

#[async_trait]
impl Controller for Budgets {
    fn name(&self) -> &'static str {
        "disruption"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Plan::default()) };
        let mut pods = self.pods.namespace(&key.namespace);
        let selector = selector(&budget);
        let none = Default::default();
        pods.retain(|pod| selector.as_ref().is_some_and(|s| s.matches(pod.metadata.labels.as_ref().unwrap_or(&none))));
        let scale = if plan::needs_scale(&budget) { self.scales.of(&pods, &key.namespace).await? } else { Ok(scale::Scale::default()) };
        Ok(plan::plan(&plan::Observed { budget: &budget, pods: &pods, scale: scale.as_ref().map_err(String::as_str), now }))
    }

    fn keys(&self) -> Vec<Key> {
        self.budgets.list().iter().map(|budget| Key::of(&**budget)).collect()
    }
}
