//! ResourceQuota: wakes, counts and plans.
//!
//! Admission adds what comes; this controller takes off what goes. It counts everything anew when something that a quota is about has gone or
//! become less, and when the quota itself has changed, but not for each charge of admission.

pub mod plan;
mod usage;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use coracle_api::{
    amounts::Map,
    quota::{Kind, Measure, Scope, forgiven_at, total},
};
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota, Service};
use kube::{Api, Client, api::ListParams, core::DynamicObject};

use crate::{
    inventory::Inventory,
    plan::{Plan, document, soonest},
    runner::{Controller, Past, Wakeups},
    writer::{Refused, refused},
};
use usage::{lighter_claim, lighter_pod, lighter_service};

/// A count may miss what came while it was made: it is checked after this time.
const SECOND_LOOK: SignedDuration = SignedDuration::from_secs(2);
/// A kind whose objects make new kinds: those are known a moment later.
const DEFINITION: &str = "CustomResourceDefinition";

/// Serves ResourceQuotas.
pub struct ResourceQuotas {
    client: Client,
    inventory: Inventory,
    quotas: Lister<ResourceQuota>,
    pods: Lister<Pod>,
    services: Lister<Service>,
    claims: Lister<PersistentVolumeClaim>,
    dirty: Dirty,
    /// When a count is to be checked.
    again: Mutex<HashMap<Key, Timestamp>>,
    /// What each pod of a namespace with quotas takes, by its uid, as of its revision.
    measured: Mutex<HashMap<Arc<str>, Measured>>,
}

type Measured = HashMap<String, (String, Arc<Measure>)>;

/// Quotas that have to be counted anew.
#[derive(Clone, Default)]
struct Dirty(Arc<Mutex<HashSet<Key>>>);

impl Dirty {
    fn mark(&self, keys: Vec<Key>) -> Vec<Key> {
        lock(&self.0).extend(keys.iter().cloned());
        keys
    }

    fn take(&self, key: &Key) -> bool {
        lock(&self.0).remove(key)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ResourceQuotas {
    /// Subscribes to what it needs.
    pub fn new(client: Client, informers: &Informers, inventory: Inventory, wakeups: &Wakeups) -> Self {
        let dirty = Dirty::default();
        let quotas = informers.of::<ResourceQuota>();
        let marks = dirty.clone();
        wakeups.watch(&quotas, move |old, new| {
            let keys: Vec<Key> = new.or(old).map(Key::of).into_iter().collect();
            // A change of the status alone, admission's or our own, asks for no new count.
            let asks = new.is_some_and(|new| old.is_none_or(|old| old.spec != new.spec) || !plan::is_settled(new));
            if asks { marks.mark(keys) } else { keys }
        });
        let (pods, services, claims) = (informers.of::<Pod>(), informers.of::<Service>(), informers.of::<PersistentVolumeClaim>());
        let about = |kind: Option<Kind>| {
            let (lister, marks) = (quotas.lister(), dirty.clone());
            move |namespace: Option<&str>| kind.as_ref().map_or(Vec::new(), |kind| marks.mark(governing(&lister, namespace, kind)))
        };
        let wake = about(Kind::of("", "pods"));
        wakeups.watch(&pods, move |old, new| if lighter_pod(old, new) { wake(namespace(old)) } else { Vec::new() });
        let wake = about(Kind::of("", "services"));
        wakeups.watch(&services, move |old, new| if lighter_service(old, new) { wake(namespace(old)) } else { Vec::new() });
        let wake = about(Kind::of("", "persistentvolumeclaims"));
        wakeups.watch(&claims, move |old, new| if lighter_claim(old, new) { wake(namespace(old)) } else { Vec::new() });
        let (lister, marks) = (quotas.lister(), dirty.clone());
        inventory.wake(wakeups, move |_, change| {
            if lister.is_empty() {
                return Vec::new();
            }
            if let Some(definition) = change.new.as_ref().filter(|new| new.kind.kind == DEFINITION) {
                // Its name is that of the resource with the group: as quotas say it.
                let name = format!("count/{}", definition.key.name);
                let names = |quota: &ResourceQuota| quota.spec.iter().flat_map(|s| s.hard.iter().flatten()).any(|(hard, _)| *hard == name);
                return marks.mark(lister.list().iter().filter(|quota| names(quota)).map(|quota| Key::of(&**quota)).collect());
            }
            let (Some(gone), None) = (&change.old, &change.new) else { return Vec::new() };
            if gone.key.namespace.is_empty() {
                return Vec::new();
            }
            let kind = Kind::of(&gone.kind.group, &gone.kind.plural);
            kind.map_or(Vec::new(), |kind| marks.mark(governing(&lister, Some(&gone.key.namespace), &kind)))
        });
        Self {
            client,
            inventory,
            quotas: quotas.lister(),
            pods: pods.lister(),
            services: services.lister(),
            claims: claims.lister(),
            dirty,
            again: Mutex::default(),
            measured: Mutex::default(),
        }
    }

    /// Everything that is used of the names of a quota, and when time alone changes it.
    async fn count(&self, quota: &ResourceQuota, key: &Key, now: Timestamp) -> Result<(Map, Option<Timestamp>), Refused> {
        let names: Vec<&str> = quota.spec.iter().flat_map(|s| s.hard.iter().flatten()).map(|(name, _)| name.as_str()).collect();
        let scopes = Scope::all(&document(&quota.spec));
        let (mut used, mut next) = (Map::new(), None);
        for (group, resource) in [("", "pods"), ("", "services"), ("", "persistentvolumeclaims"), ("resource.k8s.io", "resourceclaims")] {
            let Some(kind) = Kind::of(group, resource).filter(|kind| names.iter().any(|name| kind.governs(name))) else { continue };
            let measures = match resource {
                "pods" => {
                    let (measures, at) = self.pods(&kind, key, now);
                    next = at;
                    measures
                }
                "services" => {
                    self.services.namespace(&key.namespace).iter().map(|s| Arc::new(kind.measure(&document(&**s), now))).collect()
                }
                "persistentvolumeclaims" => {
                    self.claims.namespace(&key.namespace).iter().map(|c| Arc::new(kind.measure(&document(&**c), now))).collect()
                }
                _ => self.device_claims(&kind, key, now).await?,
            };
            used.extend(total(&kind, &names, &scopes, measures.iter().map(AsRef::as_ref)));
        }
        let counts = self.inventory.read(|graph| graph.count(&key.namespace));
        for known in self.inventory.namespaced_kinds().iter().filter(|kind| kind.watched) {
            let id = (known.resource.group.as_str(), known.resource.plural.as_str());
            let kind = Kind::of(id.0, id.1).filter(|kind| !kind.is_measured());
            let Some(kind) = kind.filter(|kind| names.iter().any(|name| kind.governs(name))) else { continue };
            let each = kind.measure(&serde_json::Value::Null, now);
            let there = counts.get(&(id.0.to_owned(), id.1.to_owned())).copied().unwrap_or(0);
            used.extend(total(&kind, &names, &scopes, std::iter::repeat_n(&each, there)));
        }
        Ok((used, next))
    }

    /// What the pods of a namespace take. Each is measured once per revision; one that is on its way out, each time.
    fn pods(&self, kind: &Kind, key: &Key, now: Timestamp) -> (Vec<Arc<Measure>>, Option<Timestamp>) {
        let pods = self.pods.namespace(&key.namespace);
        let mut all = lock(&self.measured);
        let mut before = all.remove(&key.namespace).unwrap_or_default();
        let (mut after, mut next) = (Measured::with_capacity(pods.len()), None);
        for pod in &pods {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let revision = pod.metadata.resource_version.clone().unwrap_or_default();
            let known = before.remove(&uid).filter(|(seen, _)| *seen == revision && pod.metadata.deletion_timestamp.is_none());
            let measure = known.map_or_else(
                || {
                    let object = document(&**pod);
                    let at = forgiven_at(&object).and_then(|at| at.checked_add(SignedDuration::from_secs(1)).ok());
                    next = soonest(next, at.filter(|at| *at > now));
                    Arc::new(kind.measure(&object, now))
                },
                |(_, measure)| measure,
            );
            after.insert(uid, (revision, measure));
        }
        let measures = after.values().map(|(_, measure)| measure.clone()).collect();
        if !after.is_empty() {
            all.insert(key.namespace.clone(), after);
        }
        (measures, next)
    }

    /// Few quotas are about devices: no watch is held for them.
    async fn device_claims(&self, kind: &Kind, key: &Key, now: Timestamp) -> Result<Vec<Arc<Measure>>, Refused> {
        let Some(known) = self.inventory.kind(&("resource.k8s.io".to_owned(), "ResourceClaim".to_owned())) else { return Ok(Vec::new()) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &known.resource);
        let claims = api.list(&ListParams::default()).await.map_err(|error| refused(&error))?;
        Ok(claims.items.iter().map(|claim| Arc::new(kind.measure(&document(claim), now))).collect())
    }
}

fn namespace<K: kube::Resource>(object: Option<&K>) -> Option<&str> {
    object?.meta().namespace.as_deref()
}

/// The quotas of a namespace that are about a kind.
fn governing(quotas: &Lister<ResourceQuota>, namespace: Option<&str>, kind: &Kind) -> Vec<Key> {
    if quotas.is_empty() {
        return Vec::new();
    }
    let about = |quota: &ResourceQuota| {
        let hard: Option<&BTreeMap<_, _>> = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        hard.is_some_and(|hard| hard.keys().any(|name| kind.governs(name)))
    };
    let quotas = quotas.namespace(namespace.unwrap_or_default());
    quotas.iter().filter(|quota| about(quota)).map(|quota| Key::of(&**quota)).collect()
}

#[async_trait]
impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    async fn plan(&self, key: &Key, now: Timestamp, past: &Past) -> Result<Plan, Refused> {
        let due = lock(&self.again).get(key).is_some_and(|at| *at <= now);
        let dirty = self.dirty.take(key);
        if !dirty && !due && past.failures.is_empty() {
            return Ok(Plan { requeue_at: lock(&self.again).get(key).copied(), ..Plan::default() });
        }
        lock(&self.again).remove(key);
        let Some(quota) = self.quotas.get(key) else { return Ok(Plan::default()) };
        let (used, next) = match self.count(&quota, key, now).await {
            Ok(counted) => counted,
            Err(refused) => {
                self.dirty.mark(vec![key.clone()]);
                return Err(refused);
            }
        };
        let mut plan = plan::plan(&quota, &used);
        let hard = quota.spec.iter().flat_map(|s| s.hard.iter().flatten());
        let uncounted = hard.into_iter().any(|(name, _)| !used.contains_key(name));
        let again = soonest(next, (plan.status.is_some() || (dirty && uncounted)).then(|| now + SECOND_LOOK));
        if let Some(at) = again {
            lock(&self.again).insert(key.clone(), at);
        }
        plan.look_again(again);
        Ok(plan)
    }

    fn keys(&self) -> Vec<Key> {
        self.dirty.mark(self.quotas.list().iter().map(|quota| Key::of(&**quota)).collect())
    }
}
