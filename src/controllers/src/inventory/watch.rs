//! The metadata watch of one kind.

use std::{collections::HashSet, sync::Arc};

use coracle_client::backoff::Reconnect;
use futures::StreamExt;
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use tokio::sync::Notify;

use super::{
    Inventory, Kind,
    graph::{Change, Node},
    lock,
};
use crate::execute::kind_name;

/// Objects of a page of the first list.
const PAGE_OBJECTS: u32 = 250;

/// Keeps the graph in step with the kind. Rings `again` at every change, if the kind makes kinds.
pub(super) async fn follow(inventory: Inventory, client: Client, kind: Kind, again: Option<Arc<Notify>>) {
    let (name, resource) = (kind_name(&kind.resource), Arc::new(kind.resource));
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &*resource);
    let mut events = std::pin::pin!(watcher(api, Config::default().page_size(PAGE_OBJECTS)).backoff(Reconnect::default()));
    let mut listed: HashSet<Arc<str>> = HashSet::new();
    let mut synced = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let node = Node::of(&resource, object.metadata);
                listed.insert(node.uid.clone());
                put(&inventory, &name, node);
            }
            Ok(Event::InitDone) => {
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
            Ok(Event::Apply(object)) => put(&inventory, &name, Node::of(&resource, object.metadata)),
            Ok(Event::Delete(object)) => {
                let node = Node::of(&resource, object.metadata);
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
