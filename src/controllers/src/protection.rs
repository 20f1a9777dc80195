//! Storage objects in use: a finalizer keeps claims, volumes and volume attributes classes until nobody uses them any more.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, informer::Watched, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use kube::{Api, Client, api::ListParams};
use serde_json::json;

use crate::{
    plan::{Patch, Plan, Target},
    runner::{Controller, Past, Wakeups},
    waiting::Waiting,
    writer::{Refused, refused},
};

/// Index of pods by the claims that they name.
const BY_CLAIM: &str = "claims of pods";
/// Indexes of claims and volumes by the classes that they name.
const BY_CLASS: &str = "volume attributes classes";

/// What is kept by a finalizer.
#[async_trait]
trait Protected: Watched {
    const CONTROLLER: &'static str;
    const FINALIZER: &'static str;

    /// Who uses it as the API server tells: caches of other kinds can be behind that of its own, and what goes for a user unseen is lost.
    async fn user(&self, client: &Client) -> kube::Result<Option<String>>;
}

#[async_trait]
impl Protected for PersistentVolumeClaim {
    const CONTROLLER: &'static str = "persistentvolumeclaim-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pvc-protection";

    async fn user(&self, client: &Client) -> kube::Result<Option<String>> {
        let own = Key::of(self);
        let pods = Api::<Pod>::namespaced(client.clone(), &own.namespace).list(&ListParams::default()).await?;
        let user = pods.items.iter().find(|pod| claims_of(pod).any(|key| key == own) && uses(pod, self));
        Ok(user.map(|pod| in_words("pod", pod)))
    }
}

#[async_trait]
impl Protected for PersistentVolume {
    const CONTROLLER: &'static str = "persistentvolume-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pv-protection";

    /// What it is bound to stands in itself.
    async fn user(&self, _client: &Client) -> kube::Result<Option<String>> {
        Ok(None)
    }
}

#[async_trait]
impl Protected for VolumeAttributesClass {
    const CONTROLLER: &'static str = "volumeattributesclass-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/vac-protection";

    async fn user(&self, client: &Client) -> kube::Result<Option<String>> {
        let name = self.metadata.name.as_deref();
        let claims = Api::<PersistentVolumeClaim>::all(client.clone()).list(&ListParams::default()).await?;
        if let Some(claim) = claims.items.iter().find(|claim| classes_of_claim(claim).any(|class| Some(class) == name)) {
            return Ok(Some(in_words("claim", claim)));
        }
        let volumes = Api::<PersistentVolume>::all(client.clone()).list(&ListParams::default()).await?;
        let volume = volumes.items.iter().find(|volume| class_of_volume(volume).is_some() && class_of_volume(volume) == name);
        Ok(volume.map(|volume| in_words("volume", volume)))
    }
}

fn in_words<K: kube::Resource>(kind: &str, user: &K) -> String {
    format!("{kind} {}", Key::of(user))
}

/// Who uses an object of this name, in words, as the caches tell.
type User<K> = Box<dyn Fn(&K) -> Option<String> + Send + Sync>;

/// Serves the objects of one kind.
pub struct Protection<K: Watched> {
    client: Client,
    objects: Lister<K>,
    user: User<K>,
}

impl Protection<PersistentVolumeClaim> {
    /// Claims are used by pods that have a node.
    pub fn of_claims(client: Client, informers: &Informers, wakeups: &Wakeups) -> Self {
        let (claims, pods) = (informers.of::<PersistentVolumeClaim>(), informers.of::<Pod>());
        pods.index(BY_CLAIM, |pod| claims_of(pod).map(|key| key.to_string()).collect());
        wakeups.watch(&claims, own);
        wakeups.watch(&pods, |old, new| [old, new].into_iter().flatten().flat_map(claims_of).collect());
        let pods = pods.lister();
        let user = move |claim: &PersistentVolumeClaim| {
            let naming = pods.indexed(BY_CLAIM, &Key::of(claim).to_string());
            naming.iter().find(|pod| uses(pod, claim)).map(|pod| in_words("pod", &**pod))
        };
        Self { client, objects: claims.lister(), user: Box::new(user) }
    }
}

impl Protection<PersistentVolume> {
    /// Volumes are used while they are bound.
    pub fn of_volumes(client: Client, informers: &Informers, wakeups: &Wakeups) -> Self {
        let volumes = informers.of::<PersistentVolume>();
        wakeups.watch(&volumes, own);
        let user = |volume: &PersistentVolume| {
            let bound = volume.status.as_ref()?.phase.as_deref() == Some("Bound");
            bound.then(|| "the claim that it is bound to".to_owned())
        };
        Self { client, objects: volumes.lister(), user: Box::new(user) }
    }
}

impl Protection<VolumeAttributesClass> {
    /// Classes are used by the claims and volumes that name them.
    pub fn of_classes(client: Client, informers: &Informers, wakeups: &Wakeups) -> Self {
        let classes = informers.of::<VolumeAttributesClass>();
        let (claims, volumes) = (informers.of::<PersistentVolumeClaim>(), informers.of::<PersistentVolume>());
        claims.index(BY_CLASS, |claim| classes_of_claim(claim).map(str::to_owned).collect());
        volumes.index(BY_CLASS, |volume| class_of_volume(volume).map(str::to_owned).into_iter().collect());
        wakeups.watch(&classes, own);
        wakeups.watch(&claims, |old, new| [old, new].into_iter().flatten().flat_map(classes_of_claim).map(Key::cluster).collect());
        wakeups.watch(&volumes, |old, new| [old, new].into_iter().flatten().filter_map(class_of_volume).map(Key::cluster).collect());
        let (claims, volumes) = (claims.lister(), volumes.lister());
        let user = move |class: &VolumeAttributesClass| {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            let claim = claims.indexed(BY_CLASS, name).first().map(|claim| in_words("claim", &**claim));
            claim.or_else(|| volumes.indexed(BY_CLASS, name).first().map(|volume| in_words("volume", &**volume)))
        };
        Self { client, objects: classes.lister(), user: Box::new(user) }
    }
}

#[async_trait]
impl<K: Protected> Controller for Protection<K> {
    fn name(&self) -> &'static str {
        K::CONTROLLER
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(object) = self.objects.get(key) else { return Ok(Plan::default()) };
        if object.meta().deletion_timestamp.is_none() {
            return Ok(plan(&*object, None));
        }
        let user = match (self.user)(&object) {
            None if has::<K>(&object) => object.user(&self.client).await.map_err(|error| refused(&error))?,
            user => user,
        };
        Ok(plan(&*object, user))
    }

    fn keys(&self) -> Vec<Key> {
        self.objects.list().iter().map(|object: &Arc<K>| Key::of(&**object)).collect()
    }
}

fn own<K: Watched>(_: Option<&K>, new: Option<&K>) -> Vec<Key> {
    new.map(Key::of).into_iter().collect()
}

fn has<K: Protected>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|finalizer| finalizer == K::FINALIZER)
}

/// Gives the finalizer to who lacks it, and takes it from who is being deleted and has no user.
fn plan<K: Protected>(object: &K, user: Option<String>) -> Plan {
    let meta = object.meta();
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let wanted: Vec<&str> = match (meta.deletion_timestamp.is_some(), has(object), user) {
        (false, false, _) => held.iter().map(String::as_str).chain([K::FINALIZER]).collect(),
        (true, true, None) => held.iter().map(String::as_str).filter(|finalizer| *finalizer != K::FINALIZER).collect(),
        (true, true, Some(user)) => return Plan { waiting: vec![Waiting::Unused { by: user }], ..Plan::default() },
        _ => return Plan::default(),
    };
    Plan { patches: vec![Patch::merge(Target::of(object), json!({"metadata": {"finalizers": wanted}}))], ..Plan::default() }
}

/// The claims that a pod names, those made for its ephemeral volumes among them.
fn claims_of(pod: &Pod) -> impl Iterator<Item = Key> {
    let (namespace, own) = (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default());
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(move |volume| {
        match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(Key::new(namespace, source.claim_name.as_str())),
            (None, Some(_)) => Some(Key::new(namespace, format!("{own}-{}", volume.name).as_str())),
            (None, None) => None,
        }
    })
}

/// Whether a pod that names the claim may have it mounted: it has a node, and a claim of its own is in use until the pod has ended.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_deref().is_some_and(|node| !node.is_empty())) else { return false };
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    if spec.volumes.iter().flatten().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == name)) {
        return true;
    }
    let ended = pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let owned = claim.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    owned && !ended
}

fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let asked = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let now = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let next = status.and_then(|status| status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [asked, now, next].into_iter().flatten().filter(|name| !name.is_empty())
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    fn claim(metadata: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn pod(metadata: Value, spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn the_finalizer_comes_with_the_object_and_goes_with_its_last_user() {
        let gone = "2026-01-01T00:00:00Z";
        let finalizers = |metadata: Value, user: Option<&str>| {
            let plan = plan(&claim(metadata), user.map(str::to_owned));
            (plan.patches.first().map(|patch| patch.body["metadata"]["finalizers"].clone()), plan.waiting.len())
        };
        let ours = PersistentVolumeClaim::FINALIZER;
        let cases = [
            (json!({"name": "c"}), None, (Some(json!([ours])), 0)),
            (json!({"name": "c", "finalizers": ["x"]}), None, (Some(json!(["x", ours])), 0)),
            (json!({"name": "c", "finalizers": [ours]}), Some("pod a"), (None, 0)),
            (json!({"name": "c", "finalizers": ["x", ours], "deletionTimestamp": gone}), None, (Some(json!(["x"])), 0)),
            (json!({"name": "c", "finalizers": [ours], "deletionTimestamp": gone}), Some("pod a"), (None, 1)),
            (json!({"name": "c", "finalizers": ["x"], "deletionTimestamp": gone}), None, (None, 0)),
        ];
        for (metadata, user, expected) in cases {
            assert_eq!(finalizers(metadata.clone(), user), expected, "{metadata} {user:?}");
        }
    }

    #[test]
    fn a_claim_is_used_by_pods_that_have_a_node() {
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let made = json!([{"name": "v", "ephemeral": {}}]);
        let (c, of_pod) = (
            claim(json!({"name": "c"})),
            claim(json!({"name": "p-v", "ownerReferences": [{"uid": "1", "name": "p", "kind": "Pod", "apiVersion": "v1"}]})),
        );
        let ended = json!({"name": "p", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let cases = [
            (pod(json!({"name": "p"}), json!({"containers": [], "nodeName": "n", "volumes": named})), &c, true),
            (pod(json!({"name": "p"}), json!({"containers": [], "volumes": named})), &c, false),
            (pod(ended.clone(), json!({"containers": [], "nodeName": "n", "volumes": named})), &c, true),
            (pod(json!({"name": "p", "uid": "1"}), json!({"containers": [], "nodeName": "n", "volumes": made})), &of_pod, true),
            (pod(json!({"name": "p", "uid": "2"}), json!({"containers": [], "nodeName": "n", "volumes": made})), &of_pod, false),
            (pod(ended, json!({"containers": [], "nodeName": "n", "volumes": made})), &of_pod, false),
        ];
        for (pod, claim, expected) in cases {
            assert!(claims_of(&pod).any(|key| key == Key::of(claim)), "the index finds it");
            assert_eq!(uses(&pod, claim), expected, "{pod:?}");
        }
    }

    /// A server that has a deleted claim and its user, and whose list of all pods, which is the cache's, does not come.
    async fn serve(request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        let claim = json!({"metadata": {"name": "c", "namespace": "d", "finalizers": [PersistentVolumeClaim::FINALIZER],
            "resourceVersion": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let user = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [], "nodeName": "n",
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
        let items = match (request.uri().path(), request.uri().query().unwrap_or_default()) {
            (_, query) if query.contains("watch=true") => pending().await,
            ("/api/v1/persistentvolumeclaims", _) => [claim],
            ("/api/v1/namespaces/d/pods", _) => [user],
            _ => pending().await,
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
        Ok(http::Response::new(Body::from(list.to_string().into_bytes())))
    }

    #[tokio::test]
    async fn a_claim_waits_for_a_user_that_its_cache_has_not_seen() {
        let client = coracle_client::in_process(tower::service_fn(serve));
        let informers = Informers::new(client.clone());
        let protection = Protection::of_claims(client, &informers, &Wakeups::default());
        informers.of::<PersistentVolumeClaim>().synced().await;
        let plan = protection.plan(&Key::new("d", "c"), Timestamp::now(), &Past::default()).await.expect("the server answers");
        assert!(plan.patches.is_empty(), "{:?}", plan.patches);
        assert_eq!(plan.waiting.len(), 1);
    }
}
