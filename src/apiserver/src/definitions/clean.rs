//! The end of a definition: its objects are deleted, and when the last is gone it is let go.

use std::sync::{Arc, Weak};

use coracle_api::{
    catalogue::Resource,
    custom::{CLEANUP, names},
    status::Status,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde_json::Value;

use super::{RETRY, definition};
use crate::{
    registry::{Inner, Target},
    strategy::meta,
};

/// Objects deleted at a time: they share the store's syncs.
const AT_ONCE: usize = 64;

/// A definition that is being deleted.
pub(crate) struct Ending {
    /// Its name.
    pub name: String,
    /// This one, and no later one of the same name.
    pub uid: String,
    /// What it defines; `None` when it never came to that.
    pub resource: Option<Arc<Resource>>,
}

/// Ends it.
pub(super) async fn run(registry: Weak<Inner>, ending: Ending) {
    loop {
        let Some(inner) = registry.upgrade() else { return };
        let ended = end(&inner, &ending).await;
        drop(inner);
        match ended {
            Ok(()) => return,
            Err(error) => tracing::warn!(definition = ending.name, error = error.message, "a definition cannot end yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn end(inner: &Inner, ending: &Ending) -> Result<(), Status> {
    if let Some(resource) = &ending.resource {
        say(inner, ending, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
        empty(inner, resource).await?;
        say(inner, ending, false, "InstanceDeletionCompleted", "removed all instances").await?;
    }
    let Some(target) = definition(inner, &ending.name, "") else { return Ok(()) };
    let mut make = |old: &Value| {
        let mut new = old.clone();
        if meta::text(old, "uid") == ending.uid {
            let left: Vec<String> = meta::finalizers(old).into_iter().filter(|f| f != CLEANUP).collect();
            meta::set_finalizers(&mut new, &left);
        }
        new
    };
    not_gone(inner.change_own(&target, &mut make).await)
}

/// Deletes all objects, and waits until none is left: others may hold them.
async fn empty(inner: &Inner, resource: &Arc<Resource>) -> Result<(), Status> {
    let catalogue = inner.catalogue.now();
    let all = Target::to(&catalogue, &inner.cache, resource);
    loop {
        let mut changes = inner.cache.subscribe(&all.stored.group, &all.stored.plural);
        let objects = all.collection.snapshot("", inner.cache.revision()).objects;
        if objects.is_empty() {
            return Ok(());
        }
        let targets: Vec<Target> = objects.iter().map(|object| all.named(object.namespace(), object.name())).collect();
        let deletions = stream::iter(targets).map(|target| async move { inner.remove_own(&target).await });
        deletions.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        while !all.collection.is_empty() {
            // Who falls behind the history looks at what is there now.
            if changes.next().await.is_err() {
                break;
            }
        }
    }
}

async fn say(inner: &Inner, ending: &Ending, terminating: bool, reason: &str, message: &str) -> Result<(), Status> {
    let Some(target) = definition(inner, &ending.name, "status") else { return Ok(()) };
    let mut make = |old: &Value| {
        let mut new = old.clone();
        let mut conditions = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if meta::text(old, "uid") == ending.uid {
            names::set(&mut conditions, "Terminating", terminating, reason, message, Timestamp::now());
            new["status"]["conditions"] = conditions.into();
        }
        new
    };
    not_gone(inner.change_own(&target, &mut make).await)
}

fn not_gone<T>(done: Result<T, Status>) -> Result<(), Status> {
    match done {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}
