//! What a schema cannot say of a kind: fields that a write resets, generations, derived values. Plain functions from values to values.

mod batch;
pub mod certificates;
pub mod cluster;
pub mod devices;
pub mod key_pair;
pub mod meta;
mod pod;
mod reach;
pub mod service;
mod storage;

use coracle_api::custom;
use jiff::Timestamp;
use serde_json::{Value, json};

pub use batch::TEMPLATE_GENERATION;
pub use reach::reach;

/// Kinds whose `metadata.generation` counts the changes of what they ask for.
const GENERATIONS: &[(&str, &[&str])] = &[
    ("", &["pods", "podtemplates", "replicationcontrollers"]),
    ("apps", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
    ("batch", &["jobs", "cronjobs"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "ingressclasses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("resource.k8s.io", &["deviceclasses", "resourceslices"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    (
        "admissionregistration.k8s.io",
        &[
            "validatingwebhookconfigurations",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ],
    ),
];

/// Kinds that a PUT without resourceVersion cannot update.
const CONDITIONAL: &[(&str, &[&str])] = &[
    ("coordination.k8s.io", &["leases"]),
    ("policy", &["poddisruptionbudgets"]),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("storage.k8s.io", &["csidrivers", "csinodes", "csistoragecapacities", "volumeattachments"]),
];

/// Kinds that a PUT creates when they are not there.
const UPSERTED: &[(&str, &[&str])] = &[
    ("", &["endpoints", "events", "limitranges", "services"]),
    ("events.k8s.io", &["events"]),
    ("coordination.k8s.io", &["leases"]),
    ("rbac.authorization.k8s.io", &["roles", "clusterroles", "rolebindings", "clusterrolebindings"]),
    ("networking.k8s.io", &["servicecidrs"]),
    ("node.k8s.io", &["runtimeclasses"]),
];

/// A kind, by its stored group and plural.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    /// `apps`; empty for the core group.
    pub group: &'a str,
    /// `deployments`.
    pub plural: &'a str,
    /// It has a `status` of its own path.
    pub has_status: bool,
    /// Comes from a CustomResourceDefinition.
    pub custom: bool,
}

impl Kind<'_> {
    fn among(&self, table: &[(&str, &[&str])]) -> bool {
        table.iter().any(|(group, plurals)| *group == self.group && plurals.contains(&self.plural))
    }

    fn counts_generations(&self) -> bool {
        self.custom || self.among(GENERATIONS)
    }

    /// Whether a PUT may leave out the resourceVersion.
    pub fn unconditional_updates(&self) -> bool {
        !(self.custom || self.group == "admissionregistration.k8s.io" || self.among(CONDITIONAL))
    }

    /// Whether it defines a kind itself.
    pub fn is_definition(&self) -> bool {
        (self.group, self.plural) == (custom::GROUP, custom::PLURAL)
    }

    /// Whether a PUT creates what is not there.
    pub fn creates_on_update(&self) -> bool {
        self.among(UPSERTED)
    }

    /// Whether DELETE answers with the object instead of a Status.
    pub fn returns_deleted(&self) -> bool {
        let core = ["pods", "services", "serviceaccounts", "persistentvolumeclaims", "resourcequotas", "podtemplates", "namespaces"];
        self.group.is_empty() && core.contains(&self.plural)
    }

    /// Whether objects that this one owns stay when nobody says otherwise.
    pub fn orphans_by_default(&self) -> bool {
        matches!((self.group, self.plural), ("", "replicationcontrollers") | ("batch", "jobs"))
    }

    /// Whether a write of the status changes nothing of the metadata.
    fn keeps_metadata_in_status(&self) -> bool {
        let kept = [
            "customresourcedefinitions",
            "flowschemas",
            "prioritylevelconfigurations",
            "resourceclaims",
            "validatingadmissionpolicies",
            "apiservices",
        ];
        self.custom || kept.contains(&self.plural)
    }

    /// Whether losing the last second of writes at power loss is harmless, as they are written again or only tell of the past.
    pub fn is_lazy(&self) -> bool {
        matches!((self.group, self.plural), ("", "events") | ("coordination.k8s.io", "leases"))
    }
}

/// Makes a new object what its kind says it is at birth. Metadata is filled in already.
pub fn prepare_create(kind: Kind<'_>, object: &mut Value, now: Timestamp) {
    if kind.counts_generations() {
        meta::of(object).insert("generation".into(), 1.into());
    }
    if kind.has_status && (kind.group, kind.plural) != ("", "nodes") && !kind.custom {
        reset_status(object);
    } else if kind.custom
        && kind.has_status
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    match (kind.group, kind.plural) {
        ("", "pods") => pod::prepare_create(object, now),
        ("", "namespaces") => cluster::prepare_namespace(object, None),
        ("", "secrets") => cluster::prepare_secret(object),
        ("", "persistentvolumes") => storage::prepare_volume(object, now),
        ("", "persistentvolumeclaims") => storage::prepare_claim(object),
        ("apps", "daemonsets") => batch::prepare_daemon_set(object, None),
        ("batch", "jobs") => batch::prepare_job(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => cluster::prepare_definition(object),
        ("apiregistration.k8s.io", "apiservices") => cluster::prepare_api_service(object, now),
        ("storage.k8s.io", "volumeattributesclasses") => storage::protect(object, "kubernetes.io/vac-protection"),
        ("discovery.k8s.io", "endpointslices") => cluster::drop_topology(object),
        ("storage.k8s.io", "volumeattachments") => object["status"] = json!({"attached": false}),
        ("resource.k8s.io", "resourceslices") => devices::date_taints(object, now),
        _ => {}
    }
}

fn reset_status(object: &mut Value) {
    object["status"] = json!({});
}

/// Makes an update of the main resource leave alone what it may not change, and counts the generation.
pub fn prepare_update(kind: Kind<'_>, new: &mut Value, old: &Value, now: Timestamp) {
    if kind.has_status {
        meta::keep(new, old, "status");
    }
    match (kind.group, kind.plural) {
        ("", "pods") => pod::prepare_update(new, old),
        ("", "namespaces") => cluster::prepare_namespace(new, Some(old)),
        ("", "secrets") => cluster::prepare_secret(new),
        ("", "persistentvolumeclaims") => storage::sources(new, Some(old)),
        ("apps", "daemonsets") => batch::prepare_daemon_set(new, Some(old)),
        (custom::GROUP, custom::PLURAL) => cluster::remember_storage(new),
        ("certificates.k8s.io", "certificatesigningrequests") => meta::keep(new, old, "spec"),
        ("resource.k8s.io", "resourceslices") => devices::date_taints(new, now),
        _ => {}
    }
    let counts = match (kind.group, kind.plural) {
        // What may change of it asks for nothing.
        ("scheduling.k8s.io", "priorityclasses") => false,
        // Counted from the first change on.
        ("storage.k8s.io", "csidrivers") => true,
        _ => kind.counts_generations(),
    };
    if counts && changed(kind, new, old) {
        meta::of(new).insert("generation".into(), (meta::generation(old) + 1).into());
    }
    if (kind.group, kind.plural) == ("discovery.k8s.io", "endpointslices") {
        cluster::drop_topology(new);
    }
}

/// Whether the object asks for something else than before: all but metadata and status, and a Deployment's annotations.
fn changed(kind: Kind<'_>, new: &Value, old: &Value) -> bool {
    let asks = |key: &str| !(matches!(key, "metadata" | "kind" | "apiVersion") || kind.has_status && key == "status");
    let covered = |a: &Value, b: &Value| {
        let fields = a.as_object().into_iter().flatten();
        fields.filter(|(key, _)| asks(key)).all(|(key, value)| b.get(key) == Some(value))
    };
    let annotated =
        (kind.group, kind.plural) == ("apps", "deployments") && new["metadata"]["annotations"] != old["metadata"]["annotations"];
    annotated || !(covered(new, old) && covered(old, new))
}

/// Makes an update of a subresource change nothing else.
pub fn prepare_subresource(kind: Kind<'_>, subresource: &str, new: &mut Value, old: &Value, now: Timestamp) {
    match (kind.plural, subresource) {
        ("pods", "ephemeralcontainers") => pod::only_ephemeral_containers(new, old),
        ("pods", "resize") => pod::only_resources(new, old),
        ("namespaces", "finalize") => {
            let finalizers = new["spec"]["finalizers"].take();
            *new = old.clone();
            new["spec"]["finalizers"] = finalizers;
        }
        ("certificatesigningrequests", "approval") => certificates::prepare_approval(new, old, now),
        ("certificatesigningrequests", "status") => {
            only_status(kind, new, old);
            certificates::prepare_status(new, old, now);
        }
        (_, "status") => only_status(kind, new, old),
        _ => {}
    }
}

fn only_status(kind: Kind<'_>, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let metadata = new["metadata"].clone();
    let mut out = old.clone();
    meta::put(meta::map_of(&mut out), "status", status);
    if !kind.keeps_metadata_in_status() {
        out["metadata"] = metadata;
        let mut kept = vec![];
        match kind.plural {
            "deployments" => kept.push("labels"),
            "pods" => kept.push("ownerReferences"),
            _ => {}
        }
        for field in kept {
            meta::put(meta::of(&mut out), field, old["metadata"].get(field).cloned());
        }
    }
    if kind.plural == "pods" {
        pod::finish_status(&mut out, old);
    }
    *new = out;
}

#[cfg(test)]
mod tests;
