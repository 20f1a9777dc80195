//! Bootstrap tokens: those whose time is over are removed, and those that may sign vouch for the ConfigMap `kube-public/cluster-info`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, Scope};
use coracle_pki::tokens::detached;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Map, Value, json};

use crate::{
    plan::{Delete, Patch, Plan, Target},
    runner::{Controller, Past, Wakeups},
    waiting::Waiting,
    writer::Refused,
};

/// Type of their Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
/// What a new node reads before it trusts anybody.
const INFO: (&str, &str) = ("kube-public", "cluster-info");
const KUBECONFIG: &str = "kubeconfig";
/// Before the id of the token whose signature it is.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// The Secrets of bootstrap tokens alone.
fn scope() -> Scope {
    Scope::fields(format!("metadata.namespace={NAMESPACE},type={TYPE}"))
}

/// Removes tokens whose time is over.
pub struct TokenCleaner {
    secrets: Lister<Secret>,
}

impl TokenCleaner {
    /// Subscribes to tokens.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let secrets = informers.scoped::<Secret>(scope());
        wakeups.watch(&secrets, |_, new| new.map(Key::of).into_iter().collect());
        Self { secrets: secrets.lister() }
    }
}

#[async_trait]
impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        Ok(self.secrets.get(key).map(|secret| clean(&secret, now)).unwrap_or_default())
    }

    fn keys(&self) -> Vec<Key> {
        self.secrets.list().iter().map(|secret| Key::of(&**secret)).collect()
    }
}

fn clean(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if secret.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    match expires(secret) {
        None => {}
        Some(Some(at)) if at > now => {
            plan.waiting.push(Waiting::Time { until: at });
            plan.requeue_at = Some(at);
        }
        // What nobody can read has expired.
        Some(_) => plan.deletes.push(Delete::one(Target::of(secret))),
    }
    plan
}

/// When a token ends, if it does, and if that can be read.
fn expires(secret: &Secret) -> Option<Option<Timestamp>> {
    let text = data(secret, "expiration");
    (!text.is_empty()).then(|| text.parse().ok())
}

fn data(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

/// Signs `cluster-info` with every token that may.
pub struct InfoSigner {
    secrets: Lister<Secret>,
    maps: Lister<ConfigMap>,
}

impl InfoSigner {
    /// Subscribes to tokens and to the one ConfigMap.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let secrets = informers.scoped::<Secret>(scope());
        let (namespace, name) = INFO;
        let maps = informers.scoped::<ConfigMap>(Scope::fields(format!("metadata.namespace={namespace},metadata.name={name}")));
        wakeups.watch(&secrets, |_, _| vec![info_key()]);
        wakeups.watch(&maps, |_, _| vec![info_key()]);
        Self { secrets: secrets.lister(), maps: maps.lister() }
    }
}

fn info_key() -> Key {
    Key::new(INFO.0, INFO.1)
}

#[async_trait]
impl Controller for InfoSigner {
    fn name(&self) -> &'static str {
        "bootstrap-signer"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        Ok(self.maps.get(key).map(|map| sign(&map, &self.secrets.list(), now)).unwrap_or_default())
    }

    fn keys(&self) -> Vec<Key> {
        vec![info_key()]
    }
}

/// The signatures that the map should have, and none besides.
fn sign(map: &ConfigMap, secrets: &[Arc<Secret>], now: Timestamp) -> Plan {
    let empty = BTreeMap::new();
    let there = map.data.as_ref().unwrap_or(&empty);
    let Some(kubeconfig) = there.get(KUBECONFIG) else { return Plan::default() };
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    for secret in secrets {
        let Some((id, token)) = signing(secret, now) else { continue };
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), detached(kubeconfig, &id, &token));
        plan.look_again(expires(secret).flatten());
    }
    let gone = there.keys().filter(|key| key.starts_with(SIGNATURE_PREFIX) && !wanted.contains_key(*key));
    let mut changes: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    changes.extend(wanted.into_iter().filter(|(key, value)| there.get(key) != Some(value)).map(|(key, value)| (key, value.into())));
    if !changes.is_empty() {
        plan.patches.push(Patch::merge(Target::of(map), json!({"data": changes})));
    }
    plan
}

/// Id and secret of a token that may sign now.
fn signing(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let (id, token) = (data(secret, "token-id"), data(secret, "token-secret"));
    let named = secret.metadata.name.as_deref()?.strip_prefix(NAME_PREFIX)? == id;
    let lives = expires(secret).is_none_or(|at| at.is_some_and(|at| at > now)) && secret.metadata.deletion_timestamp.is_none();
    (named && lives && !token.is_empty() && data(secret, "usage-bootstrap-signing") == "true").then_some((id, token))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    fn token(id: &str, data: &[(&str, &str)]) -> Secret {
        let fixed = [("token-id", id), ("token-secret", "0123456789abcdef")];
        let data = fixed.iter().chain(data).map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { type_: Some(TYPE.into()), data: Some(data.collect()), ..Secret::default() };
        secret.metadata.name = Some(format!("{NAME_PREFIX}{id}"));
        secret.metadata.namespace = Some(NAMESPACE.into());
        secret
    }

    #[test]
    fn a_token_goes_when_its_time_is_over() {
        for (expiration, deletes, again) in [
            (None, 0, None),
            (Some("2026-01-01T00:00:01Z"), 0, Some("2026-01-01T00:00:01Z")),
            (Some("2026-01-01T00:00:00Z"), 1, None),
            (Some("soon"), 1, None),
        ] {
            let data: Vec<_> = expiration.map(|text| ("expiration", text)).into_iter().collect();
            let plan = clean(&token("abcdef", &data), now());
            assert_eq!(plan.deletes.len(), deletes, "{expiration:?}");
            assert_eq!(plan.requeue_at, again.map(|text| text.parse().expect("a time")), "{expiration:?}");
        }
    }

    #[test]
    fn tokens_vouch_for_the_info_as_long_as_they_live() {
        let map = |data: Value| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"namespace": "kube-public", "name": "cluster-info"}, "data": data})).expect("a map")
        };
        let may = ("usage-bootstrap-signing", "true");
        let tokens: Vec<_> = [
            token("aaaaaa", &[may]),
            token("bbbbbb", &[]),
            token("cccccc", &[may, ("expiration", "2025-01-01T00:00:00Z")]),
            token("dddddd", &[may, ("expiration", "2027-01-01T00:00:00Z")]),
        ]
        .map(Arc::new)
        .into();
        let plan = sign(&map(json!({"kubeconfig": "here", "jws-kubeconfig-cccccc": "old"})), &tokens, now());
        let data = plan.patches[0].body["data"].as_object().expect("data");
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-aaaaaa", "jws-kubeconfig-cccccc", "jws-kubeconfig-dddddd"]);
        assert_eq!(data["jws-kubeconfig-cccccc"], Value::Null);
        assert_eq!(plan.requeue_at, Some("2027-01-01T00:00:00Z".parse().expect("a time")));
        let mut signed = json!({"kubeconfig": "here"});
        crate::merge::apply(&mut signed, &plan.patches[0].body["data"]);
        assert!(sign(&map(signed), &tokens, now()).patches.is_empty(), "what is signed stays");
        assert!(sign(&map(json!({})), &tokens, now()).is_idle(), "nothing to vouch for");
    }
}
