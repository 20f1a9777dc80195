//! Static pods: pods of manifest files, which this node runs whether there is an API or not, and their mirrors in the API.

pub mod directory;
pub mod manifest;
pub mod mirror;

use k8s_openapi::api::core::v1::Pod;

/// Annotation that says where a pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a pod's manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation of a mirror: the hash of what it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation that says when a manifest was read first.
pub const SEEN: &str = "kubernetes.io/config.seen";

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(name)).map(String::as_str)
}

/// Whether the pod only shows in the API what a node runs from a file.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether the pod comes from a file of this node.
pub fn is_static(pod: &Pod) -> bool {
    !is_mirror(pod) && annotation(pod, SOURCE).is_some_and(|source| source != "api")
}
