//! What a request can own: the fields that its kind's rules do not reset.

use std::sync::LazyLock;

use coracle_api::apply::{FieldSet, Path, Reach};

use super::Kind;

/// Everything.
static WHOLE: Reach = Reach::Whole;
static NO_STATUS: LazyLock<Reach> = LazyLock::new(|| without(&[&["status"]]));
static NO_SPEC: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"]]));
static NO_SPEC_AND_STATUS: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"], &["status"]]));
static STATUS_ALONE: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"], &["metadata"]]));
static POD_STATUS: LazyLock<Reach> =
    LazyLock::new(|| without(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]));
static DEPLOYMENT_STATUS: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"], &["metadata", "labels"]]));
static REQUEST_STATUS: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"], &["status", "conditions"]]));
static REQUEST_APPROVAL: LazyLock<Reach> = LazyLock::new(|| without(&[&["spec"], &["status", "certificate"]]));
fn without(paths: &[&[&str]]) -> Reach {
    let paths: Vec<Path> = paths.iter().map(|names| Path::of_names(names)).collect();
    Reach::Without(FieldSet::of_paths(&paths))
}

/// What a write of this path can own.
pub fn reach(kind: Kind<'_>, subresource: &str) -> &'static Reach {
    match (kind.group, kind.plural, subresource) {
        ("certificates.k8s.io", "certificatesigningrequests", "") => &NO_SPEC_AND_STATUS,
        ("certificates.k8s.io", "certificatesigningrequests", "status") => &REQUEST_STATUS,
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => &REQUEST_APPROVAL,
        ("", "pods", "status") => &POD_STATUS,
        ("apps", "deployments", "status") => &DEPLOYMENT_STATUS,
        ("", "namespaces", "finalize") => &NO_STATUS,
        (_, _, "") if kind.has_status => &NO_STATUS,
        (_, _, "status") if kind.keeps_metadata_in_status() => &STATUS_ALONE,
        (_, _, "status") => &NO_SPEC,
        _ => &WHOLE,
    }
}
