//! ServiceAccount: every pod runs as an account that exists, and finds its token where clients look for it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::{authentication::service_account::POD_TOKEN_S, objects::Objects, uuid};

/// The account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";
/// Where clients look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the volume's name starts with.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// A pod that stands for one which its node runs from a file.
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// How long the account of a new namespace may take to be made by its controller; upstream waits as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// The plugin.
#[derive(Debug)]
pub struct ServiceAccount {
    /// Where accounts are looked up.
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate, Say::Validate]
    }

    async fn mutate(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !concerns(write) || pod.pointer(MIRROR).is_some() || !pod["spec"].is_object() {
            return Ok(());
        }
        let name = pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT).to_owned();
        let namespace = write.info.namespace.as_str();
        let account = self.objects.appears("", "serviceaccounts", namespace, &name, PATIENCE).await;
        let account = account.ok_or_else(|| {
            refuse(write, &format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"))
        })?;
        pod["spec"]["serviceAccountName"] = name.as_str().into();
        pod["spec"]["serviceAccount"] = name.into();
        if wants_token(pod, &account) {
            mount_token(&mut pod["spec"], &suffix());
        }
        let none = pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
        if none && account["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty()) {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>, pod: Option<&Value>) -> Result<(), Status> {
        match pod {
            Some(pod) if concerns(write) && pod.pointer(MIRROR).is_some() => {
                mirror_refusal(pod).map_or(Ok(()), |why| Err(refuse(write, why)))
            }
            _ => Ok(()),
        }
    }
}

fn concerns(write: &Attributes<'_>) -> bool {
    write.operation == Operation::Create && write.is("", "pods") && write.info.subresource.is_empty()
}

/// What its node runs anyway must not gain rights by its shadow.
fn mirror_refusal(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    let references = crate::authorization::node::References::of(&without_annotations(pod));
    if !references.secrets.is_empty() {
        return Some("a mirror pod may not reference secrets");
    }
    let projects =
        |volume: &Value| volume["projected"]["sources"].as_array().into_iter().flatten().any(|s| s["serviceAccountToken"].is_object());
    let tokens = spec["volumes"].as_array().into_iter().flatten().any(projects);
    tokens.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

fn without_annotations(pod: &Value) -> Value {
    json!({"spec": pod["spec"]})
}

/// The pod's word counts before the account's.
fn wants_token(pod: &Value, account: &Value) -> bool {
    let word = |value: &Value| value["automountServiceAccountToken"].as_bool();
    word(&pod["spec"]).or_else(|| word(account)).unwrap_or(true)
}

/// Mounts the token into every container that has nothing at its path.
fn mount_token(spec: &mut Value, suffix: &str) {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let existing = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array();
            if mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH)) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        push(spec, "volumes", token_volume(&name));
    }
}

fn push(object: &mut Value, field: &str, item: Value) {
    match object[field].as_array_mut() {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": POD_TOKEN_S, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Five characters that make the volume's name unlike any that a user would give.
fn suffix() -> String {
    uuid::random().chars().filter(|c| *c != '-').take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_where_nothing_else_is() {
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "mine", "mountPath": MOUNT_PATH}]}], "initContainers": [{"name": "i"}]});
        mount_token(&mut spec, "abcde");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "mine");
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["readOnly"], true);
        assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
        assert_eq!(spec["volumes"][0]["projected"]["defaultMode"], 420);
        let before = spec.clone();
        mount_token(&mut spec, "other");
        assert_eq!(spec, before, "a second time changes nothing");
    }

    #[test]
    fn the_pod_decides_before_its_account() {
        let word = |value: Option<bool>| value.map_or(json!({}), |value| json!({"automountServiceAccountToken": value}));
        for (pod, account, wants) in [
            (None, None, true),
            (None, Some(false), false),
            (Some(true), Some(false), true),
            (Some(false), Some(true), false),
            (Some(false), None, false),
        ] {
            assert_eq!(wants_token(&json!({"spec": word(pod)}), &word(account)), wants, "{pod:?} {account:?}");
        }
    }

    #[test]
    fn a_mirror_pod_gains_nothing() {
        let mirror =
            |spec: Value| mirror_refusal(&json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": spec}));
        assert_eq!(mirror(json!({})), None);
        assert_eq!(mirror(json!({"serviceAccountName": "x"})), Some("a mirror pod may not reference service accounts"));
        assert_eq!(mirror(json!({"imagePullSecrets": [{"name": "x"}]})), Some("a mirror pod may not reference secrets"));
    }
}
