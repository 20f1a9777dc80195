//! Rules of `metadata`, for every kind.

use serde_json::Value;

use super::field::Field;
use super::rules::{immutable, labels, qualified_name};
use crate::catalogue::Resource;
use crate::names;

/// All annotations of an object together, in bytes.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;
/// Longest name of a CronJob: its jobs add eleven characters.
const MAX_CRON_JOB_NAME: usize = 52;

/// Rule for names of objects of a resource.
fn name_rule(resource: &Resource) -> fn(&str) -> Result<(), String> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") | ("apps", "statefulsets") => names::dns_label,
        ("", "services") => names::dns_1035_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => names::dns_subdomain,
        ("flowcontrol.apiserver.k8s.io" | "apiregistration.k8s.io" | "certificates.k8s.io", _) | ("", "events") => names::path_segment,
        ("policy", "poddisruptionbudgets") => |_| Ok(()), // upstream does not look
        ("networking.k8s.io", "ipaddresses") => {
            |name| name.parse::<std::net::IpAddr>().map(drop).map_err(|_| "must be a valid IP address".into())
        }
        _ => names::dns_subdomain,
    }
}

/// What the registry asks of all new objects.
pub(super) fn create(resource: &Resource, object: &Field<'_>) {
    let metadata = object.at("metadata");
    let rule = name_rule(resource);
    let (name, generate) = (metadata.at("name"), metadata.at("generateName"));
    if !generate.is_empty() {
        // What comes after the prefix makes its last character an inner one.
        let prefix = generate.text().trim_end_matches('-');
        if let Err(message) = rule(if prefix.is_empty() { "x" } else { prefix }) {
            generate.invalid(&message);
        }
    }
    if name.is_empty() {
        if generate.is_empty() {
            name.required("name or generateName is required");
        }
    } else {
        name.valid_by(rule);
        if resource.plural == "cronjobs" && name.text().len() > MAX_CRON_JOB_NAME {
            name.invalid(&format!("must be no more than {MAX_CRON_JOB_NAME} characters"));
        }
    }
    let namespace = metadata.at("namespace");
    if resource.namespaced {
        namespace.may_be_valid(names::dns_label);
    } else if !namespace.is_empty() {
        namespace.forbidden("not allowed on this type");
    }
    if !are_generated(resource, object.value()) {
        labels(&metadata.at("labels"));
    }
    parts(resource, &metadata);
}

/// Whether a Job's labels are those that the server gave its pods: what is wrong with them is told there.
fn are_generated(resource: &Resource, object: &Value) -> bool {
    let own = &object["metadata"]["labels"];
    let names = own.as_object().map_or(Vec::new(), |labels| labels.keys().map(String::as_str).collect());
    resource.plural == "jobs"
        && !resource.custom
        && own == &object["spec"]["template"]["metadata"]["labels"]
        && names.iter().all(|name| super::workloads::job::LABELS.contains(name))
}

fn parts(resource: &Resource, metadata: &Field<'_>) {
    metadata.at("generation").not_negative();
    annotations(&metadata.at("annotations"));
    let owners = metadata.at("ownerReferences");
    let mut controllers = 0;
    for owner in owners.list() {
        let owner = owners.holding(owner);
        let version = owner.at("apiVersion");
        if version.text().split_once('/').map_or(version.text(), |(_, v)| v).is_empty() {
            version.invalid("version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            let part = owner.at(name);
            if part.is_empty() {
                part.invalid("must not be empty");
            }
        }
        if version.text() == "v1" && owner.at("kind").text() == "Event" {
            owner.invalid("/v1, Kind=Event is disallowed from being an owner");
        }
        controllers += usize::from(owner.at("controller").is_true());
    }
    if controllers > 1 {
        owners.invalid("Only one reference can have Controller set to true");
    }
    finalizers(resource, &metadata.at("finalizers"));
}

pub(super) fn annotations(annotations: &Field<'_>) {
    let mut total = 0;
    for (key, value) in annotations.value().as_object().into_iter().flatten() {
        annotations.holding(&key.as_str().into()).all_invalid(qualified_name(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATIONS_BYTES {
        annotations.too_long(MAX_ANNOTATIONS_BYTES);
    }
}

fn finalizers(resource: &Resource, finalizers: &Field<'_>) {
    for name in finalizers.list() {
        finalizers.holding(name).all_invalid(qualified_name(name.as_str().unwrap_or_default()));
    }
    let has = |name: &str| finalizers.list().iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set");
    }
    let aside = resource.custom || matches!(resource.group.as_str(), "apiextensions.k8s.io" | "apiregistration.k8s.io");
    if !aside {
        finalizers.each(|_, finalizer| standard_finalizer(&finalizer));
    }
}

/// Names without a domain are Kubernetes' own.
pub(super) fn standard_finalizer(finalizer: &Field<'_>) {
    if !finalizer.text().contains('/') && !matches!(finalizer.text(), "orphan" | "foregroundDeletion" | "kubernetes") {
        finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// What must stay when an object is replaced.
pub(super) fn update(resource: &Resource, object: &Field<'_>, old: &Value) {
    let metadata = object.at("metadata");
    let before = &old["metadata"];
    for name in ["name", "namespace", "uid", "creationTimestamp"] {
        // What a request leaves out the registry fills in from the stored object.
        if metadata.at(name).exists() {
            immutable(&metadata.at(name), &before[name]);
        }
    }
    if before["deletionTimestamp"].is_string() {
        let added = metadata.at("finalizers").list().iter().any(|f| !before["finalizers"].as_array().is_some_and(|b| b.contains(f)));
        if added {
            metadata.at("finalizers").forbidden("no new finalizers can be added if the object is being deleted");
        }
    }
    parts(resource, &metadata);
    // Causes are a multiset: upstream looks at these on several of its ways.
    labels(&metadata.at("labels"));
    for _ in 1..passes(resource) {
        labels(&metadata.at("labels"));
        annotations(&metadata.at("annotations"));
    }
}

/// How often labels and annotations of an update are looked at: by the registry twice, by the kind once, and by kinds that
/// look at changed objects as at new ones once more.
fn passes(resource: &Resource) -> usize {
    let thorough = match resource.group.as_str() {
        _ if resource.custom => false,
        "" => matches!(
            resource.plural.as_str(),
            "pods"
                | "namespaces"
                | "services"
                | "configmaps"
                | "secrets"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
        ),
        "apps" => resource.plural == "controllerrevisions",
        "batch" => resource.plural == "jobs",
        "rbac.authorization.k8s.io" => true,
        _ => false,
    };
    if thorough { 4 } else { 3 }
}
