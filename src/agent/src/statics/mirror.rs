//! The mirror of a static pod: an object in the API that shows it, made again when it is deleted or another than the pod. Pure.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{HASH, MIRROR, annotation};

/// What is to be done for a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it shows the pod.
    Stands,
    /// There is none.
    Create,
    /// The one of this uid shows another pod, or goes.
    Delete(String),
}

/// The next step towards a mirror of `pod`, of which the API has `mirror`.
pub fn plan(pod: &Pod, mirror: Option<&Pod>) -> Step {
    let Some(mirror) = mirror else { return Step::Create };
    if mirror.metadata.deletion_timestamp.is_none() && annotation(mirror, MIRROR) == annotation(pod, HASH) {
        return Step::Stands;
    }
    Step::Delete(mirror.metadata.uid.clone().unwrap_or_default())
}

/// The mirror of `pod` as it is created; it goes with its node.
pub fn object(pod: &Pod, node: &str, node_uid: &str) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    if let Some(hash) = annotations.get(HASH).cloned() {
        annotations.insert(MIRROR.to_owned(), hash);
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        annotations: Some(annotations),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: pod.spec.clone(), status: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(hash: &str) -> Pod {
        let metadata = json!({ "name": "p-n", "namespace": "d", "uid": hash, "labels": { "a": "b" },
            "annotations": { "kubernetes.io/config.hash": hash, "kubernetes.io/config.source": "file" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "containers": [{ "name": "c" }] } })).expect("a pod")
    }

    #[test]
    fn a_mirror_shows_its_pod_and_no_other() {
        let pod = pod("x");
        assert_eq!(plan(&pod, None), Step::Create);
        let mut mirror = object(&pod, "n", "node-uid");
        mirror.metadata.uid = Some("u".to_owned());
        assert_eq!(plan(&pod, Some(&mirror)), Step::Stands);
        assert_eq!(plan(&self::pod("y"), Some(&mirror)), Step::Delete("u".to_owned()), "the manifest changed");
        mirror.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&pod, Some(&mirror)), Step::Delete("u".to_owned()), "somebody deletes it");
    }

    #[test]
    fn a_mirror_is_the_nodes() {
        let mirror = object(&pod("x"), "n", "node-uid");
        let owner = &mirror.metadata.owner_references.as_ref().expect("an owner")[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str(), owner.controller), ("Node", "n", "node-uid", Some(true)));
        assert_eq!(mirror.metadata.annotations.expect("annotations")[MIRROR], "x");
        assert_eq!(mirror.metadata.uid, None, "the API gives its own");
    }
}
