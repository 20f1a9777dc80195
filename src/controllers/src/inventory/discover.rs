//! Which kinds there are: discovery at the start, and again when a CRD or an APIService changes.

use std::{collections::HashMap, time::Duration};

use kube::{
    Client, Discovery,
    core::ApiResource,
    discovery::{ApiCapabilities, Scope, verbs},
};
use tokio_util::sync::CancellationToken;

use super::{Inventory, Kind, Watched, lock, watch};
use crate::execute::{KindName, kind_name};

/// CRDs come in crowds, and are served a moment after they are written.
const SETTLE: Duration = Duration::from_millis(500);
/// Between attempts when discovery fails (an aggregated API that is down).
const RETRY: Duration = Duration::from_secs(5);

/// Kinds whose change means that there may be new kinds.
pub(super) fn makes_kinds(kind: &KindName) -> bool {
    matches!(
        (kind.0.as_str(), kind.1.as_str()),
        ("apiextensions.k8s.io", "CustomResourceDefinition") | ("apiregistration.k8s.io", "APIService")
    )
}

/// Discovers, watches what is found, stops watching what is gone, and waits for the next reason to look.
pub(super) async fn follow(inventory: Inventory, client: Client, shutdown: CancellationToken) {
    let again = std::sync::Arc::new(tokio::sync::Notify::new());
    loop {
        match discover(&client).await {
            Ok(kinds) => {
                adopt(&inventory, &client, kinds, &again, &shutdown);
                again.notified().await;
                tokio::time::sleep(SETTLE).await;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "discovery failed, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn adopt(
    inventory: &Inventory,
    client: &Client,
    found: HashMap<KindName, Kind>,
    again: &std::sync::Arc<tokio::sync::Notify>,
    shutdown: &CancellationToken,
) {
    let mut gone = Vec::new();
    let mut state = lock(&inventory.inner.state);
    state.kinds.retain(|name, watched| {
        let stays = found.get(name).is_some_and(|kind| kind.resource == watched.kind.resource);
        if !stays {
            watched.stop.cancel();
            gone.push(name.clone());
        }
        stays
    });
    for (name, kind) in found {
        if !state.kinds.contains_key(&name) {
            let stop = shutdown.child_token();
            if !kind.watched {
                state.kinds.insert(name, Watched { kind, synced: true, seen: u64::MAX, stop });
                continue;
            }
            let task = watch::follow(inventory.clone(), client.clone(), kind.clone(), makes_kinds(&name).then(|| again.clone()));
            tokio::spawn(stop.clone().run_until_cancelled_owned(task));
            state.kinds.insert(name, Watched { kind, synced: false, seen: 0, stop });
        }
    }
    state.discovered = true;
    let lost: Vec<_> = state.graph.all().filter(|n| gone.contains(&kind_name(&n.kind))).collect();
    drop(state);
    for node in lost {
        let kind = kind_name(&node.kind);
        inventory.apply(&kind, super::Change { old: Some(node), new: None, revision: 0 });
    }
    inventory.inner.progress.notify_waiters();
}

async fn discover(client: &Client) -> kube::Result<HashMap<KindName, Kind>> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    let resources = discovery.groups().flat_map(|group| group.recommended_resources());
    Ok(resources.filter(is_object).map(|(resource, can)| (kind_name(&resource), kind(resource, &can))).collect())
}

fn kind(resource: ApiResource, can: &ApiCapabilities) -> Kind {
    let sweepable = can.supports_operation("deletecollection");
    let watched = can.supports_operation(verbs::WATCH) && resource.kind != "Event";
    Kind { resource, namespaced: can.scope == Scope::Namespaced, sweepable, watched }
}

fn is_object((_, can): &(ApiResource, ApiCapabilities)) -> bool {
    [verbs::LIST, verbs::DELETE].iter().all(|verb| can.supports_operation(verb))
}
