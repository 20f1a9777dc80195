//! What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, Scope};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use crate::{
    plan::{Create, Patch, Plan, Target},
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Name of the account that pods have when they name none.
const ACCOUNT: &str = "default";
/// Name of the map that pods trust the API server by.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Key in that map.
const ROOT_CA_KEY: &str = "ca.crt";
/// Annotation that tells people what the map is for.
const DESCRIPTION: &str = "kubernetes.io/description";

/// Serves namespaces.
#[derive(Debug)]
pub struct Baseline {
    namespaces: Lister<Namespace>,
    accounts: Lister<ServiceAccount>,
    maps: Lister<ConfigMap>,
    ca_bundle: Arc<str>,
}

impl Baseline {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups, ca_bundle: Arc<str>) -> Self {
        let (namespaces, accounts) = (informers.of::<Namespace>(), informers.of::<ServiceAccount>());
        // Of a cluster's ConfigMaps, which may be many and large, only these.
        let maps = informers.scoped::<ConfigMap>(Scope::fields(format!("metadata.name={ROOT_CA}")));
        wakeups.watch(&namespaces, |old, new| old.or(new).map(Key::of).into_iter().collect());
        wakeups.watch(&accounts, |old, new| old.or(new).map(home).into_iter().collect());
        wakeups.watch(&maps, |old, new| old.or(new).map(home).into_iter().collect());
        Self { namespaces: namespaces.lister(), accounts: accounts.lister(), maps: maps.lister(), ca_bundle }
    }
}

fn home<K: kube::Resource>(object: &K) -> Key {
    Key::cluster(object.meta().namespace.as_deref().unwrap_or_default())
}

#[async_trait]
impl Controller for Baseline {
    fn name(&self) -> &'static str {
        "namespace-baseline"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Plan::default()) };
        let account = self.accounts.get(&Key::new(key.name.clone(), ACCOUNT));
        let map = self.maps.get(&Key::new(key.name.clone(), ROOT_CA));
        Ok(plan(&namespace, account.as_deref(), map.as_deref(), &self.ca_bundle))
    }

    fn keys(&self) -> Vec<Key> {
        self.namespaces.list().iter().map(|n| Key::of(&**n)).collect()
    }
}

/// What the namespace lacks. Nothing, when it is ending.
pub fn plan(namespace: &Namespace, account: Option<&ServiceAccount>, map: Option<&ConfigMap>, ca_bundle: &str) -> Plan {
    let mut plan = Plan::default();
    let ending = namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating");
    if ending || namespace.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let meta = |name: &str| ObjectMeta { name: Some(name.into()), namespace: namespace.metadata.name.clone(), ..ObjectMeta::default() };
    if account.is_none() {
        plan.creates.push(Create::of(&ServiceAccount { metadata: meta(ACCOUNT), ..ServiceAccount::default() }));
    }
    if ca_bundle.is_empty() {
        return plan;
    }
    match map {
        None => {
            let mut metadata = meta(ROOT_CA);
            let text = "The certificate authorities by which pods of this cluster know its API server at kubernetes.default.svc.";
            metadata.annotations = Some([(DESCRIPTION.to_owned(), text.to_owned())].into());
            let data = Some(BTreeMap::from([(ROOT_CA_KEY.to_owned(), ca_bundle.to_owned())]));
            plan.creates.push(Create::of(&ConfigMap { metadata, data, ..ConfigMap::default() }));
        }
        Some(map) if map.data.as_ref().and_then(|d| d.get(ROOT_CA_KEY)).map(String::as_str) != Some(ca_bundle) => {
            plan.patches.push(Patch::merge(Target::of(map), json!({"data": {ROOT_CA_KEY: ca_bundle}})));
        }
        Some(_) => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(namespace: serde_json::Value, account: bool, ca: Option<&str>, bundle: &str, expected: &str) {
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        let account = account.then(ServiceAccount::default);
        let map = ca.map(|ca| ConfigMap { data: Some([(ROOT_CA_KEY.to_owned(), ca.to_owned())].into()), ..ConfigMap::default() });
        let plan = plan(&namespace, account.as_ref(), map.as_ref(), bundle);
        let lines: Vec<String> =
            plan.creates.iter().map(ToString::to_string).chain(plan.patches.iter().map(|p| format!("patch {}", p.body))).collect();
        assert_eq!(lines.join("; "), expected);
    }

    #[test]
    fn a_namespace_gets_what_it_lacks() {
        let active = json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}});
        check(active.clone(), false, None, "PEM", "create ServiceAccount a/default; create ConfigMap a/kube-root-ca.crt");
        check(active.clone(), true, Some("PEM"), "PEM", "");
        check(active.clone(), true, Some("OLD"), "PEM", r#"patch {"data":{"ca.crt":"PEM"}}"#);
        check(active, true, None, "", "");
        check(json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}), false, None, "PEM", "");
        check(json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}), false, None, "PEM", "");
    }
}
