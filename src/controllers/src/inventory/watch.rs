//! The metadata watch of one kind.

use std::{collections::HashSet, sync::Arc};

use coracle_client::{Step, watch::watch_metadata};
use futures::StreamExt;
use kube::{Client, Resource as _, core::DynamicObject};
use tokio::sync::Notify;

use super::{
    Inventory, Kind,
    graph::{Change, Node},
    lock,
};
use crate::execute::kind_name;

/// Keeps the graph in step with the kind. Rings `again` at every change, if the kind makes kinds.
pub(super) async fn follow(inventory: Inventory, client: Client, kind: Kind, again: Option<Arc<Notify>>) {
    let (name, resource) = (kind_name(&kind.resource), Arc::new(kind.resource));
    let mut steps = watch_metadata(&client, DynamicObject::url_path(&resource, None));
    let mut listed: HashSet<Arc<str>> = HashSet::new();
    let mut synced = false;
    while let Some(step) = steps.next().await {
        match step {
            Ok(Step::Begin) => listed.clear(),
            Ok(Step::Listed(metadata)) => {
                let node = Node::of(&resource, metadata);
                listed.insert(node.uid.clone());
                put(&inventory, &name, node);
            }
            Ok(Step::Complete) => {
                let known: Vec<_> = inventory.read(|g| g.all().filter(|n| *n.kind == *resource).collect());
                for node in known.into_iter().filter(|n| !listed.contains(&n.uid)) {
                    inventory.apply(&name, Change { old: Some(node), new: None, revision: 0 });
                }
                listed = HashSet::new();
                if let Some(watched) = lock(&inventory.inner.state).kinds.get_mut(&name) {
                    watched.synced = true;
                }
                inventory.inner.progress.notify_waiters();
                synced = true;
                continue;
            }
            Ok(Step::Put(metadata)) => put(&inventory, &name, Node::of(&resource, metadata)),
            Ok(Step::Deleted(metadata)) => {
                let node = Node::of(&resource, metadata);
                let old = inventory.node_of(&node.uid);
                inventory.apply(&name, Change { old, new: None, revision: node.revision });
            }
            Err(error) => {
                tracing::debug!(kind = name.1, error = &error as &dyn std::error::Error, "the metadata watch failed, trying again");
                if !synced {
                    // A kind that cannot be read must not hold up the rest; its objects come when it can.
                    if let Some(watched) = lock(&inventory.inner.state).kinds.get_mut(&name) {
                        watched.synced = true;
                    }
                    inventory.inner.progress.notify_waiters();
                }
                continue;
            }
        }
        if let Some(again) = again.as_ref().filter(|_| synced) {
            again.notify_one();
        }
    }
}

fn put(inventory: &Inventory, name: &crate::execute::KindName, node: Node) {
    let old = inventory.node_of(&node.uid);
    let revision = node.revision;
    inventory.apply(name, Change { old, new: Some(Arc::new(node)), revision });
}
