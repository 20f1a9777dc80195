//! How many pods those who control the pods of a budget want: from the informers where the kind is known, else by its scale subresource.

use std::{collections::HashMap, sync::Arc};

use coracle_client::{Key, Lister, pod::Pod};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        autoscaling::v1::Scale as ScaleObject,
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Client, Resource, core::DynamicObject};

use crate::{
    inventory::Inventory,
    owner::controller_of,
    writer::{Refused, refused},
};

/// What is wanted of the pods of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Pods, of all controllers together.
    pub wanted: i32,
    /// Pods that nobody controls.
    pub unmanaged: usize,
}

/// Where scales are read.
pub struct Scales {
    pub client: Client,
    pub inventory: Inventory,
    pub sets: Lister<ReplicaSet>,
    pub controllers: Lister<ReplicationController>,
    pub deployments: Lister<Deployment>,
    pub stateful: Lister<StatefulSet>,
}

impl Scales {
    /// The scale behind the pods; the inner error is a pod whose controller cannot be found.
    pub async fn of(&self, pods: &[Arc<Pod>], namespace: &str) -> Result<Result<Scale, String>, Refused> {
        // By the uid of who says it: a Deployment counts once, however many ReplicaSets it has.
        let (mut wanted, mut known): (HashMap<String, i32>, HashMap<&str, ()>) = (HashMap::new(), HashMap::new());
        let mut unmanaged = 0;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged += 1;
                continue;
            };
            if known.insert(&owner.uid, ()).is_some() {
                continue;
            }
            match self.one(owner, namespace).await? {
                Ok(Some((uid, replicas))) => drop(wanted.insert(uid, replicas)),
                Ok(None) => return Ok(Err(format!("found no controllers for pod {:?}", pod.metadata.name.as_deref().unwrap_or_default()))),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(Scale { wanted: wanted.values().fold(0, |sum, replicas| sum.saturating_add(*replicas)), unmanaged }))
    }

    async fn one(&self, owner: &OwnerReference, namespace: &str) -> Result<Result<Option<(String, i32)>, String>, Refused> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let key = Key::new(namespace, owner.name.as_str());
        let found = match (group, owner.kind.as_str()) {
            ("", "ReplicationController") => scale(self.controllers.get(&key), &owner.uid, |s| s.spec.as_ref()?.replicas),
            ("apps", "StatefulSet") => scale(self.stateful.get(&key), &owner.uid, |s| s.spec.as_ref()?.replicas),
            ("apps", "ReplicaSet") => {
                let set = self.sets.get(&key);
                let deployment = set.as_ref().and_then(|set| controller_of(&set.metadata)).filter(|o| o.kind == "Deployment");
                match deployment {
                    Some(owner) => {
                        let deployment = self.deployments.get(&Key::new(namespace, owner.name.as_str()));
                        scale(deployment, &owner.uid, |d| d.spec.as_ref()?.replicas)
                    }
                    None => scale(set, &owner.uid, |s| s.spec.as_ref()?.replicas),
                }
            }
            _ => return self.asked(owner, group, namespace).await,
        };
        Ok(Ok(found))
    }

    async fn asked(&self, owner: &OwnerReference, group: &str, namespace: &str) -> Result<Result<Option<(String, i32)>, String>, Refused> {
        let Some(kind) = self.inventory.kind(&(group.to_owned(), owner.kind.clone())) else {
            return Ok(Err(format!("no matches for kind {:?} in group {group:?}", owner.kind)));
        };
        let path = DynamicObject::url_path(&kind.resource, Some(namespace).filter(|_| kind.namespaced));
        let request = kube::core::Request::new(path).get_subresource("scale", &owner.name);
        let request = request.map_err(|error| refused(&kube::Error::BuildRequest(error)))?;
        match self.client.request::<ScaleObject>(request).await {
            Ok(scale) => {
                let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Ok(scale.metadata.uid.filter(|uid| *uid == owner.uid).map(|uid| (uid, replicas))))
            }
            Err(error) => {
                let refused = refused(&error);
                if !refused.is_gone() {
                    return Err(refused);
                }
                let plural = &kind.resource.plural;
                let name = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
                // Gone is the object, or there is no such subresource: the latter has no name in its answer.
                Ok(if refused.message.contains(&owner.name) {
                    Ok(None)
                } else {
                    Err(format!("{name} does not implement the scale subresource"))
                })
            }
        }
    }
}

fn scale<K: Resource>(object: Option<Arc<K>>, uid: &str, replicas: impl Fn(&K) -> Option<i32>) -> Option<(String, i32)> {
    let object = object.filter(|object| object.meta().uid.as_deref() == Some(uid))?;
    Some((uid.to_owned(), replicas(&object).unwrap_or(1)))
}
