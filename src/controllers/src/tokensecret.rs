//! Secrets of type `kubernetes.io/service-account-token`: filled with a token of their account, and gone with it.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, Scope};
use coracle_pki::authority::Authority;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use crate::{
    plan::{Delete, Patch, Plan, Target, document},
    runner::{Controller, Past, Wakeups},
    writer::{Refused, refused},
};

const TYPE: &str = "kubernetes.io/service-account-token";
/// Annotations that say whose the token is.
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// Who issues tokens without end.
const ISSUER: &str = "kubernetes/serviceaccount";

/// Serves token Secrets.
pub struct TokenSecrets {
    client: Client,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
    authority: Arc<Authority>,
    ca_bundle: Arc<str>,
}

impl TokenSecrets {
    /// Subscribes to token Secrets and accounts.
    pub fn new(client: Client, informers: &Informers, wakeups: &Wakeups, authority: Arc<Authority>, ca_bundle: Arc<str>) -> Self {
        let secrets = informers.scoped::<Secret>(Scope::fields(format!("type={TYPE}")));
        let accounts = informers.of::<ServiceAccount>();
        wakeups.watch(&secrets, |_, new| new.map(Key::of).into_iter().collect());
        let lister = secrets.lister();
        wakeups.watch(&accounts, move |old, new| match (old, new) {
            (Some(account), None) => {
                let (namespace, name) = (account.metadata.namespace.as_deref().unwrap_or_default(), account.metadata.name.as_deref());
                let of = lister.namespace(namespace).into_iter().filter(|secret| annotation(secret, NAME) == name);
                of.map(|secret| Key::of(&*secret)).collect()
            }
            _ => Vec::new(),
        });
        Self { client, secrets: secrets.lister(), accounts: accounts.lister(), authority, ca_bundle }
    }

    /// The account, from the API itself when the informer has none: it may be younger than the Secret's sight.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Arc<ServiceAccount>>, Refused> {
        if let Some(account) = self.accounts.get(&Key::new(namespace, name)) {
            return Ok(Some(account));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await.map_err(|error| refused(&error))?.map(Arc::new))
    }
}

#[async_trait]
impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "service-account-token"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(secret) = self.secrets.get(key).filter(|secret| secret.metadata.deletion_timestamp.is_none()) else {
            return Ok(Plan::default());
        };
        let Some(name) = annotation(&secret, NAME) else { return Ok(Plan::default()) };
        let account = self.account(&key.namespace, name).await?;
        let unsigned = |error: coracle_pki::tokens::SignError| Refused {
            code: 0,
            reason: "Unsigned".into(),
            message: error.to_string(),
            namespace_ends: false,
        };
        plan(&secret, account.as_deref(), &self.ca_bundle, |claims| self.authority.signer().sign(claims)).map_err(unsigned)
    }

    fn keys(&self) -> Vec<Key> {
        self.secrets.list().iter().map(|secret| Key::of(&**secret)).collect()
    }
}

fn annotation<'s>(secret: &'s Secret, name: &str) -> Option<&'s str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What the Secret lacks; its end, when its account is gone.
fn plan<E>(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    ca_bundle: &str,
    sign: impl FnOnce(&Value) -> Result<String, E>,
) -> Result<Plan, E> {
    let uid = account.and_then(|account| account.metadata.uid.as_deref());
    let claimed = annotation(secret, UID).filter(|claimed| !claimed.is_empty());
    let Some((account, uid)) = account.zip(uid).filter(|(_, uid)| claimed.is_none_or(|claimed| claimed == *uid)) else {
        return Ok(Plan { deletes: vec![Delete::one(Target::of(secret))], ..Plan::default() });
    };
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let mut data = Map::new();
    let mut put = |key: &str, text: String| data.insert(key.to_owned(), document(&ByteString(text.into_bytes())));
    if has("token").is_empty() {
        let claim = |name: &str| format!("kubernetes.io/serviceaccount/{name}");
        let name = account.metadata.name.as_deref().unwrap_or_default();
        let claims = json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"), claim("namespace"): namespace,
            claim("secret.name"): secret.metadata.name, claim("service-account.name"): name, claim("service-account.uid"): uid,
        });
        put("token", sign(&claims)?);
    }
    if has("namespace").is_empty() {
        put("namespace", namespace.to_owned());
    }
    if !ca_bundle.is_empty() && has("ca.crt") != ca_bundle.as_bytes() {
        put("ca.crt", ca_bundle.to_owned());
    }
    let mut plan = Plan::default();
    if !data.is_empty() || claimed.is_none() {
        let body = json!({"data": data, "metadata": {"annotations": {UID: uid}}});
        plan.patches.push(Patch::merge(Target::of(secret), body));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(annotations: Value, data: Value) -> Secret {
        let metadata = json!({"namespace": "ns", "name": "s", "uid": "u", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "type": TYPE, "data": data})).expect("a Secret")
    }

    fn account() -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "web", "uid": "u-web"}})).expect("an account")
    }

    fn check(secret: &Secret, account: Option<&ServiceAccount>) -> Plan {
        plan(secret, account, "PEM", |claims| Ok::<_, ()>(claims["sub"].as_str().unwrap_or_default().to_owned())).expect("signed")
    }

    #[test]
    fn a_secret_is_filled_once() {
        let named = json!({NAME: "web"});
        let plan = check(&secret(named.clone(), json!({})), Some(&account()));
        let body = &plan.patches[0].body;
        let text = |key: &str| {
            let bytes: ByteString = serde_json::from_value(body["data"][key].clone()).expect("base64");
            String::from_utf8(bytes.0).expect("text")
        };
        assert_eq!((text("token"), text("namespace"), text("ca.crt")), ("system:serviceaccount:ns:web".into(), "ns".into(), "PEM".into()));
        assert_eq!(body["metadata"]["annotations"][UID], "u-web");
        let full = secret(json!({NAME: "web", UID: "u-web"}), body["data"].clone());
        assert!(check(&full, Some(&account())).is_idle());
        let mut old = full.clone();
        old.data.as_mut().expect("data").insert("ca.crt".into(), ByteString(b"OLD".to_vec()));
        let body = check(&old, Some(&account())).patches.remove(0).body;
        assert_eq!(body["data"].as_object().expect("data").keys().collect::<Vec<_>>(), ["ca.crt"], "the token stays");
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        let named = secret(json!({NAME: "web"}), json!({}));
        assert_eq!(check(&named, None).deletes.len(), 1);
        let of_another = secret(json!({NAME: "web", UID: "u-old"}), json!({}));
        assert_eq!(check(&of_another, Some(&account())).deletes.len(), 1);
    }
}
