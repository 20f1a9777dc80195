//! Namespace: wakes, gathers and plans the end of a namespace.

pub mod plan;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::ListParams,
    core::{DynamicObject, PartialObjectMeta},
};

use crate::{
    inventory::{Inventory, Kind},
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::{Refused, refused},
};

/// Serves namespaces that are being deleted.
pub struct Namespaces {
    client: Client,
    namespaces: Lister<Namespace>,
    inventory: Inventory,
}

impl Namespaces {
    /// Subscribes to namespaces and to what is in those that end.
    pub fn new(client: Client, informers: &Informers, inventory: Inventory, wakeups: &Wakeups) -> Self {
        let namespaces = informers.of::<Namespace>();
        let lister = namespaces.lister();
        let ends = move |name: &str| lister.get(&Key::cluster(name)).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
        inventory.wake(wakeups, move |_, change| {
            let home = [&change.old, &change.new].into_iter().flatten().map(|node| node.key.namespace.clone()).next();
            home.filter(|name| !name.is_empty() && ends(name)).map(Key::cluster).into_iter().collect()
        });
        wakeups.watch(&namespaces, |old, new| old.or(new).map(Key::of).into_iter().collect());
        Self { client, namespaces: namespaces.lister(), inventory }
    }

    /// Whether the API itself, and not just the inventory, has nothing of this kind there.
    async fn left(&self, kind: &Kind, namespace: &str) -> Result<bool, Refused> {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => Ok(!list.items.is_empty()),
            // The kind itself is gone.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused> {
        let Some(namespace) = self.namespaces.get(key).filter(|n| n.metadata.deletion_timestamp.is_some()) else {
            return Ok(Plan::default());
        };
        let content = self.inventory.read(|g| g.namespace(&key.name));
        let kinds = self.inventory.namespaced_kinds();
        let mut hidden = Vec::new();
        if plan::is_terminating(&namespace) {
            // Once nothing is known to be left, the API is asked; of pods before anything else is deleted.
            let known = |kind: &Kind| content.iter().any(|n| plan::goes_first(&n.kind) || !plan::goes_first(&kind.resource));
            for kind in kinds.iter().filter(|kind| !known(kind)) {
                if self.left(kind, &key.name).await? {
                    hidden.push(kind.clone());
                }
            }
        }
        let failures: Vec<String> = past.failures.iter().filter(|f| f.verb == "delete").map(|f| f.refused.message.clone()).collect();
        Ok(plan::plan(&plan::Observed {
            namespace: &namespace,
            content: &content,
            kinds: &kinds,
            hidden: &hidden,
            failures: &failures,
            now,
        }))
    }

    fn keys(&self) -> Vec<Key> {
        let ending = self.namespaces.list().into_iter().filter(|n| n.metadata.deletion_timestamp.is_some());
        ending.map(|n| Key::of(&*n)).collect()
    }
}
