//! ResourceQuota: nobody takes more of a namespace than its quotas allow, however many ask at once.
//!
//! What a write takes is added to `status.used` before the write itself, by compare and swap, one write of a namespace at a time. That sum is
//! not synced on its own: it lies before the write in the log, and so is durable with it. The controller counts anew when something goes; its
//! sum may miss what is on its way, so the first charge after it is measured against our own count, too.

mod ledger;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use coracle_api::{
    amounts::Map,
    quota::{Ask, Charge, Kind, Limited, Limits, Uncovered, total},
    status::Status,
};
use coracle_store::{Durability, Expect, Store, WriteError};
use jiff::Timestamp;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Reserved, Say, refuse};
use crate::cache::{
    Cache, PREFIX,
    object::{self, Object},
};
use ledger::{Pending, Space};

/// Namespaces whose sums are remembered; one that is forgotten is counted anew.
const MAX_SPACES: usize = 1024;
/// Writes of a quota by others that may come in between before a write gives up.
const MAX_ATTEMPTS: usize = 16;

/// The plugin; clones share it.
#[derive(Clone)]
pub struct ResourceQuota {
    cache: Cache,
    store: Arc<dyn Store>,
    /// What may be taken only where a quota says how much.
    limited: Arc<[Limited]>,
    spaces: Arc<Mutex<HashMap<String, Arc<Space>>>>,
}

impl fmt::Debug for ResourceQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceQuota").finish_non_exhaustive()
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Reserve]
    }

    async fn reserve(&self, write: &Attributes<'_>, object: &Value) -> Result<Option<Box<dyn Reserved>>, Status> {
        let info = write.info;
        if info.namespace.is_empty() || write.is("", "namespaces") || (self.limited.is_empty() && self.quotas(&info.namespace).is_empty()) {
            return Ok(None);
        }
        let Some(kind) = Kind::of(&info.group, &info.resource) else { return Ok(None) };
        let old = if write.operation == Operation::Update { write.old } else { None };
        if !kind.weighs(&info.subresource, old, object) {
            return Ok(None);
        }
        let ask = Ask::of(&kind, object, old, Timestamp::now());
        let space = self.space(&info.namespace);
        let turn = space.turn().await;
        let mut taken = Taken { plugin: self.clone(), space: Arc::clone(&space), namespace: info.namespace.clone(), charges: Vec::new() };
        for _ in 0..MAX_ATTEMPTS {
            match self.charge(write, &kind, &ask, &mut taken).await? {
                Step::Again => {}
                Step::Done => {
                    drop(turn);
                    return Ok(if taken.charges.is_empty() { None } else { Some(Box::new(taken)) });
                }
            }
        }
        Err(Status::new(409, "Conflict", format!("the quotas of namespace {} change too fast; please try again", info.namespace)))
    }
}

enum Step {
    /// Somebody else wrote one of the quotas first.
    Again,
    Done,
}

impl ResourceQuota {
    /// Over the cache, and the store that it is fed by.
    pub fn new(cache: Cache, store: Arc<dyn Store>, limited: Vec<Limited>) -> Arc<Self> {
        Arc::new(Self { cache, store, limited: limited.into(), spaces: Arc::default() })
    }

    /// Refuses what is limited, and no quota of the namespace is about.
    fn covered(&self, write: &Attributes<'_>, ask: &Ask<'_>) -> Result<(), Status> {
        if self.limited.is_empty() {
            return Ok(());
        }
        let quotas: Vec<Limits> = self.quotas(&write.info.namespace).iter().map(|held| Limits::of(&held.value())).collect();
        ask.check((&write.info.group, &write.info.resource), &self.limited, &quotas).map_err(|uncovered| match uncovered {
            Uncovered::Names(_) => refuse(write, &uncovered.to_string()),
            // Upstream's plain error.
            Uncovered::Scopes(_) => Status::new(500, "", uncovered.to_string()),
        })
    }

    fn quotas(&self, namespace: &str) -> Vec<Arc<Object>> {
        let all = self.cache.collection("resourcequotas");
        if all.is_empty() { Vec::new() } else { self.cache.list("", "resourcequotas", namespace).objects }
    }

    fn space(&self, namespace: &str) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if spaces.len() >= MAX_SPACES && !spaces.contains_key(namespace) {
            spaces.retain(|_, space| Arc::strong_count(space) > 1);
        }
        Arc::clone(spaces.entry(namespace.to_owned()).or_default())
    }

    /// Checks the write against all quotas of its namespace, then adds it to those that it has not been added to yet.
    async fn charge(&self, write: &Attributes<'_>, kind: &Kind, ask: &Ask<'_>, taken: &mut Taken) -> Result<Step, Status> {
        let mut due = Vec::new();
        for held in self.quotas(&write.info.namespace) {
            if taken.charges.iter().any(|charged| charged.quota == held.uid()) {
                continue;
            }
            let quota = held.value();
            let limits = Limits::of(&quota);
            let Some(charge) = ask.charge(&limits).map_err(|refusal| refuse(write, &refusal.to_string()))? else { continue };
            let used = self.used(write, kind, &held, &quota, &limits, &charge, &taken.space);
            let enforce = write.info.subresource != "status";
            let sum = charge.add_to(&limits, &used, enforce).map_err(|refusal| refuse(write, &refusal.to_string()))?;
            due.push((held, quota, charge, sum));
        }
        self.covered(write, ask)?;
        if write.dry_run {
            return Ok(Step::Done);
        }
        for (held, quota, charge, sum) in due {
            let object = format!("{}/{}", write.info.namespace, write.info.name);
            let pending = Pending { object, creates: write.operation == Operation::Create, amounts: charge.0.clone() };
            let charged = Charged { quota: held.uid().to_owned(), number: taken.space.begin(held.uid(), pending), charge };
            match self.put(&held, quota, &sum).await {
                Ok(revision) => {
                    taken.space.wrote(held.uid(), held.revision(), revision);
                    taken.space.trust(held.uid(), kind, revision);
                    taken.charges.push(charged);
                }
                Err(error) => {
                    taken.space.end(&charged.quota, charged.number);
                    return error.map_or(Ok(Step::Again), Err);
                }
            }
        }
        Ok(Step::Done)
    }

    /// What is used before the write: what the status says, and no less than what is there when somebody else wrote the status.
    #[expect(clippy::too_many_arguments, reason = "a look at one quota from all sides")]
    fn used(
        &self,
        write: &Attributes<'_>,
        kind: &Kind,
        held: &Object,
        quota: &Value,
        limits: &Limits,
        charge: &Charge,
        space: &Space,
    ) -> Map {
        let mut used = limits.used.clone();
        if space.trusts(held.uid(), kind, held.revision()) {
            return used;
        }
        let names: Vec<&str> = charge.0.keys().map(String::as_str).collect();
        let mut told_enough = true;
        let mut open = space.open(held.uid());
        let there = self.cache.list(&write.info.group, &write.info.resource, &write.info.namespace).objects;
        if !open.is_empty() {
            // A new object that is there already is on its way no more.
            let keys: HashSet<&str> = there.iter().map(|object| object.key()).collect();
            open.retain(|pending| !(pending.creates && keys.contains(pending.object.as_str())));
        }
        for (name, amount) in count(&there, kind, quota, &names) {
            let least = open.iter().filter_map(|pending| pending.amounts.get(&name)).fold(amount, |sum, amount| sum.plus(*amount));
            if used.get(&name).is_none_or(|told| *told < least) {
                used.insert(name, least);
                told_enough = false;
            }
        }
        // A sum that was too small is believed when we have written a better one, which a refusal does not.
        if told_enough {
            space.trust(held.uid(), kind, held.revision());
        }
        used
    }

    /// Writes what is used. `Err(None)`: another write was first, and the cache shows it.
    async fn put(&self, held: &Object, mut quota: Value, used: &Map) -> Result<u64, Option<Status>> {
        let used: serde_json::Map<String, Value> = used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
        quota["status"]["used"] = used.into();
        let value = object::encode(&quota, None).ok_or_else(|| Some(Status::internal("the quota has no kind, apiVersion or metadata")))?;
        let key = format!("{PREFIX}resourcequotas/{}", held.key());
        match self.store.put(&key, value, Expect::Revision(held.revision()), Durability::Lazy).await {
            Ok(revision) => {
                self.cache.wait(revision).await;
                Ok(revision)
            }
            Err(WriteError::Conflict { current: Some(entry) }) => {
                self.cache.wait(entry.modified).await;
                Err(None)
            }
            Err(WriteError::Conflict { current: None }) => {
                self.cache.catch_up().await;
                Err(None)
            }
            Err(error) => Err(Some(Status::internal(format!("Internal error occurred: the quota was not written: {error}")))),
        }
    }

    /// Takes charges back whose write came to nothing.
    async fn give_back(&self, space: &Space, namespace: &str, charges: Vec<Charged>) {
        let _turn = space.turn().await;
        for Charged { quota: uid, number, charge } in charges {
            space.end(&uid, number);
            for _ in 0..MAX_ATTEMPTS {
                let Some(held) = self.quotas(namespace).into_iter().find(|quota| quota.uid() == uid) else { break };
                // Whoever wrote since has counted what is there; this was not.
                if !space.wrote_last(&uid, held.revision()) {
                    break;
                }
                let quota = held.value();
                let mut used = Limits::of(&quota).used;
                for (name, amount) in &charge.0 {
                    used.entry(name.clone()).and_modify(|sum| *sum = sum.minus(*amount));
                }
                match self.put(&held, quota, &used).await {
                    Ok(revision) => {
                        space.wrote(&uid, held.revision(), revision);
                        break;
                    }
                    Err(None) => {}
                    Err(Some(status)) => {
                        tracing::warn!(
                            namespace,
                            quota = held.name(),
                            reason = status.message,
                            "a charge was not given back, the controller will"
                        );
                        break;
                    }
                }
            }
        }
    }
}

/// Our own count of what is there.
fn count(there: &[Arc<Object>], kind: &Kind, quota: &Value, names: &[&str]) -> Map {
    let (now, scopes) = (Timestamp::now(), coracle_api::quota::Scope::all(&quota["spec"]));
    let measures: Vec<_> = if kind.is_measured() {
        there.iter().map(|object| kind.measure(&object.value(), now)).collect()
    } else {
        // They are all alike.
        vec![kind.measure(&Value::Null, now); there.len()]
    };
    total(kind, names, &scopes, &measures)
}

/// Charges of one write.
struct Taken {
    plugin: ResourceQuota,
    space: Arc<Space>,
    namespace: String,
    charges: Vec<Charged>,
}

/// One charge of one quota.
#[derive(Debug)]
struct Charged {
    /// Its uid.
    quota: String,
    number: u64,
    charge: Charge,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("namespace", &self.namespace).field("charges", &self.charges).finish_non_exhaustive()
    }
}

impl Reserved for Taken {
    fn keep(mut self: Box<Self>) {
        for charged in std::mem::take(&mut self.charges) {
            self.space.end(&charged.quota, charged.number);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let charges = std::mem::take(&mut self.charges);
        if charges.is_empty() {
            return;
        }
        let (plugin, space, namespace) = (self.plugin.clone(), Arc::clone(&self.space), std::mem::take(&mut self.namespace));
        // Without a runtime the server is going down; the count at its next start does without them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { plugin.give_back(&space, &namespace, charges).await });
        }
    }
}
