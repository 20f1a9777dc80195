//! The garbage collector: wakes, gathers and plans, per object that has owners or waits for dependents.

pub mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_client::Key;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
};

use crate::{
    inventory::{Inventory, graph::Node},
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::{Refused, refused},
};
use plan::{Observed, Owner};

/// Serves every object that has an owner, or that waits for its dependents. Its keys are uids.
pub struct GarbageCollector {
    client: Client,
    inventory: Inventory,
}

impl GarbageCollector {
    /// Subscribes to the inventory.
    pub fn new(client: Client, inventory: Inventory, wakeups: &Wakeups) -> Self {
        inventory.wake(wakeups, |graph, change| graph.touched(change).into_iter().map(Key::cluster).collect());
        Self { client, inventory }
    }

    /// What has become of an owner: the inventory knows those that exist; that one does not exist is asked of the API itself.
    async fn owner(&self, dependent: &Node, owner: &OwnerReference) -> Result<Owner, Refused> {
        if let Some(node) = self.inventory.read(|g| g.node(&owner.uid).cloned()) {
            return Ok(state(&node));
        }
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = self.inventory.kind(&(group.to_owned(), owner.kind.clone())) else {
            // A kind that we cannot see: its objects may well exist.
            return Ok(Owner::Solid);
        };
        if kind.namespaced && dependent.key.namespace.is_empty() {
            // An owner in a namespace cannot own the world; what such a reference means is for people to find out.
            return Ok(Owner::Solid);
        }
        let api: Api<PartialObjectMeta<DynamicObject>> = if kind.namespaced {
            Api::namespaced_with(self.client.clone(), &dependent.key.namespace, &kind.resource)
        } else {
            Api::all_with(self.client.clone(), &kind.resource)
        };
        let found = api.get_metadata_opt(&owner.name).await.map_err(|e| refused(&e))?;
        let same = found.map(|o| o.metadata).filter(|meta| meta.uid.as_deref() == Some(&owner.uid));
        Ok(same.map_or(Owner::Absent, |meta| state(&Node::of(&Arc::new(kind.resource), meta))))
    }
}

fn state(owner: &Node) -> Owner {
    if owner.deletes_dependents() { Owner::Leaving } else { Owner::Solid }
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let (node, dependents) = self.inventory.read(|g| (g.node(&key.name).cloned(), g.dependents(&key.name)));
        let Some(node) = node else { return Ok(Plan::default()) };
        let mut owners = Vec::with_capacity(node.owners.len());
        for owner in &node.owners {
            owners.push(self.owner(&node, owner).await?);
        }
        Ok(plan::plan(&Observed { node: &node, owners: &owners, dependents: &dependents }))
    }

    fn keys(&self) -> Vec<Key> {
        self.inventory.read(|g| g.related().into_iter().map(Key::cluster).collect())
    }
}
