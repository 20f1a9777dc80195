//! A manifest file as the pod that this node runs. Pure.

use std::path::Path;

use coracle_api::{
    catalogue,
    decode::{self, DecodeError},
    defaulting, validation,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration, Volume};
use sha2::{Digest as _, Sha256};

use super::{HASH, SEEN, SOURCE};
use crate::volume::references;

/// Why a file makes no pod.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be decoded.
    #[error("it is neither YAML nor JSON")]
    Decode(#[source] DecodeError),
    /// It is of another kind, or a field has a wrong type.
    #[error("it is not a v1 Pod")]
    NotAPod(#[source] serde_json::Error),
    /// There is nothing to call it.
    #[error("metadata.name is missing")]
    NoName,
    /// The API would not take it.
    #[error("the pod is invalid: {0}")]
    Invalid(String),
    /// It needs the API, which a static pod must not.
    #[error("static pods may not reference {0}")]
    References(&'static str),
}

/// The pod of a file: named for the node, with the hash of its content as uid, defaulted, validated and bound.
pub fn pod(content: &[u8], path: &Path, node: &str, now: Timestamp) -> Result<Pod, ManifestError> {
    let value = decode::yaml(content).map_err(ManifestError::Decode)?.value;
    let mut pod: Pod = serde_json::from_value(value).map_err(ManifestError::NotAPod)?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty()).ok_or(ManifestError::NoName)?;
    let uid = uid(&pod, path, node)?;
    pod.metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    pod.metadata.uid = Some(uid.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), uid);
    annotations.insert(SEEN.to_owned(), now.to_string());
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    tolerate(spec);
    let pod = checked(&pod)?;
    reference(&pod).map_or(Ok(pod), |what| Err(ManifestError::References(what)))
}

/// Another content, another file or another node is another pod.
fn uid(pod: &Pod, path: &Path, node: &str) -> Result<String, ManifestError> {
    let content = serde_json::to_vec(pod).map_err(ManifestError::NotAPod)?;
    let mut hash = Sha256::new();
    hash.update(content);
    hash.update(format!("host:{node}file:{}", path.display()));
    Ok(hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect())
}

/// Trouble of the node does not drive its own pods away.
fn tolerate(spec: &mut PodSpec) {
    let all = Toleration { operator: Some("Exists".to_owned()), effect: Some("NoExecute".to_owned()), ..Toleration::default() };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
}

/// As the API would have stored it.
fn checked(pod: &Pod) -> Result<Pod, ManifestError> {
    let Some(resource) = catalogue::builtin().resource("", "v1", "pods") else {
        return Err(ManifestError::Invalid("there is no kind Pod".to_owned()));
    };
    let mut value = serde_json::to_value(pod).map_err(ManifestError::NotAPod)?;
    defaulting::apply(resource, &mut value);
    let wrong = validation::create(resource, &value);
    if !wrong.is_empty() {
        let wrong: Vec<_> = wrong.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        return Err(ManifestError::Invalid(wrong.join(", ")));
    }
    serde_json::from_value(value).map_err(ManifestError::NotAPod)
}

/// What of the API the pod needs, if anything.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let used = references::references(pod);
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if !used.secrets.is_empty() {
        return Some("secrets");
    }
    if !used.config_maps.is_empty() {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    volumes.iter().find_map(volume)
}

fn volume(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        return Some("configmaps (via configmap volumes)");
    }
    if volume.secret.is_some() {
        return Some("secrets (via secret volumes)");
    }
    if volume.csi.is_some() {
        return Some("csidrivers (via CSI volumes)");
    }
    if volume.persistent_volume_claim.is_some() {
        return Some("persistentvolumeclaims");
    }
    if volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims (via ephemeral volumes)");
    }
    volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).find_map(|source| {
        [
            (source.config_map.is_some(), "configmaps (via projected volumes)"),
            (source.secret.is_some(), "secrets (via projected volumes)"),
            (source.service_account_token.is_some(), "serviceaccounts (via projected volumes)"),
            (source.cluster_trust_bundle.is_some(), "clustertrustbundles"),
            (source.pod_certificate.is_some(), "podcertificates"),
        ]
        .into_iter()
        .find_map(|(used, what)| used.then_some(what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    fn read(text: &str) -> Result<Pod, ManifestError> {
        pod(text.as_bytes(), Path::new("/manifests/web.yaml"), "node-1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = read(WEB).expect("a pod");
        assert_eq!(spec::full_name(&pod), "default/web-node-1");
        assert_eq!(spec::uid(&pod).len(), 32);
        let annotations = pod.metadata.annotations.clone().expect("annotations");
        assert_eq!((annotations[HASH].as_str(), annotations[SOURCE].as_str()), (spec::uid(&pod), "file"));
        let spec_ = pod.spec.as_ref().expect("a spec");
        assert_eq!(spec_.node_name.as_deref(), Some("node-1"));
        assert_eq!(spec_.restart_policy.as_deref(), Some("Always"), "defaults are filled in");
        let toleration = &spec_.tolerations.as_ref().expect("one")[0];
        assert_eq!((toleration.operator.as_deref(), toleration.effect.as_deref()), (Some("Exists"), Some("NoExecute")));
        assert!(crate::statics::is_static(&pod) && !crate::statics::is_mirror(&pod));
    }

    #[test]
    fn another_content_file_or_node_is_another_pod() {
        let of = |text: &str, path: &str, node: &str| {
            let pod = pod(text.as_bytes(), Path::new(path), node, Timestamp::UNIX_EPOCH).expect("a pod");
            spec::uid(&pod).to_owned()
        };
        let first = of(WEB, "/m/a", "n");
        assert_eq!(first, of(&format!("# a comment\n{WEB}"), "/m/a", "n"), "a comment changes nothing");
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"image":"i","name":"c"}]}}"#;
        assert_eq!(first, of(json, "/m/a", "n"), "nor does the way it is written");
        for other in [of(&WEB.replace("image: i", "image: j"), "/m/a", "n"), of(WEB, "/m/b", "n"), of(WEB, "/m/a", "o")] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn what_is_no_static_pod_says_why() {
        let with = |spec: &str| WEB.replace("spec: {", &format!("spec: {{{spec}, "));
        for (text, why) in [
            ("{".to_owned(), "neither YAML nor JSON"),
            (WEB.replace("kind: Pod", "kind: Service"), "not a v1 Pod"),
            (WEB.replace("name: web", "labels: {a: b}"), "metadata.name is missing"),
            (WEB.replace("image: i", "imagePullPolicy: Sometimes"), "spec.containers[0]"),
            (WEB.replace("name: web", "name: A_B"), "metadata.name"),
            (with("serviceAccountName: x"), "serviceaccounts"),
            (with("imagePullSecrets: [{name: x}]"), "secrets"),
            (with("volumes: [{name: v, configMap: {name: x}}]"), "configmaps"),
            (with("volumes: [{name: v, secret: {secretName: x}}]"), "secrets"),
            (with("volumes: [{name: v, persistentVolumeClaim: {claimName: x}}]"), "persistentvolumeclaims"),
            (
                with("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]"),
                "serviceaccounts (via projected volumes)",
            ),
            (WEB.replace("image: i", "image: i, envFrom: [{secretRef: {name: s}}]"), "secrets"),
        ] {
            let error = read(&text).expect_err("it is refused").to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        read(&with("volumes: [{name: v, emptyDir: {}}, {name: d, downwardAPI: {items: []}}]")).expect("what needs no API is fine");
    }
}
