//! The ReplicaSets of a Deployment: which one is new, which are old, what they are called and what is noted on them.

use std::{cmp::Reverse, collections::BTreeMap};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::Value;

use crate::{owner::controller_ref, plan::document};

/// Label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the number of a rollout; kubectl's history and undo live on it.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the revisions that a reused set had before.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the Deployment's replicas when the set was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the most pods that were allowed when the set was last scaled.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that are not copied to its sets.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];
/// Bytes of [`REVISION_HISTORY`]; the oldest go first.
const HISTORY_BYTES: usize = 2_000;

/// A ReplicaSet with what the plan makes of it.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// As it was seen.
    pub seen: &'a ReplicaSet,
    /// Replicas that it shall have.
    pub size: i32,
    /// Whether the notes on its size shall be renewed.
    pub note_size: bool,
}

impl<'a> Member<'a> {
    /// The set as it is.
    pub fn new(seen: &'a ReplicaSet) -> Self {
        Self { seen, size: spec_replicas(seen), note_size: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.seen.metadata.name.as_deref().unwrap_or_default()
    }

    /// Pods that are available and will be after the planned size is reached, as far as the status says.
    pub fn available(&self) -> i32 {
        available(self.seen).min(spec_replicas(self.seen))
    }

    /// Sets the size and renews the notes.
    pub fn scale(&mut self, size: i32) {
        self.size = size.max(0);
        self.note_size = true;
    }

    /// Whether it wants pods.
    pub fn is_active(&self) -> bool {
        spec_replicas(self.seen) > 0
    }
}

/// `spec.replicas` of a set.
pub fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a set.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// `status.replicas` of a set.
pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

/// The newest state of the Deployment among its sets: the oldest set whose template is the Deployment's, and the others, oldest first.
pub fn split<'a>(spec: &DeploymentSpec, mut sets: Vec<&'a ReplicaSet>) -> (Option<&'a ReplicaSet>, Vec<&'a ReplicaSet>) {
    sets.sort_by(|a, b| by_creation(a).cmp(&by_creation(b)));
    let wanted = template_without_hash(&spec.template);
    let new = sets.iter().position(|set| {
        let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|t| template_without_hash(t) == wanted)
    });
    let new = new.map(|i| sets.remove(i));
    (new, sets)
}

fn by_creation(set: &ReplicaSet) -> (Option<jiff::Timestamp>, Option<&str>) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.as_deref())
}

/// The larger first; of one size the newer.
pub fn by_size_newer(a: &Member<'_>, b: &Member<'_>) -> std::cmp::Ordering {
    (Reverse(spec_replicas(a.seen)), Reverse(by_creation(a.seen))).cmp(&(Reverse(spec_replicas(b.seen)), Reverse(by_creation(b.seen))))
}

/// The larger first; of one size the older.
pub fn by_size_older(a: &Member<'_>, b: &Member<'_>) -> std::cmp::Ordering {
    (Reverse(spec_replicas(a.seen)), by_creation(a.seen)).cmp(&(Reverse(spec_replicas(b.seen)), by_creation(b.seen)))
}

/// Templates are compared as documents, without the hash and without empty lists and maps: those are the same to Kubernetes.
fn template_without_hash(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    let mut value = document(&template);
    drop_empty(&mut value);
    value
}

fn drop_empty(value: &mut Value) {
    if let Value::Object(fields) = value {
        for field in fields.values_mut() {
            drop_empty(field);
        }
        // An empty `emptyDir: {}` says something: only metadata, lists and nulls can be empty without meaning.
        fields.retain(|name, field| match field {
            Value::Array(items) => !items.is_empty(),
            Value::Object(inner) => {
                !inner.is_empty() || !matches!(name.as_str(), "metadata" | "labels" | "annotations" | "resources" | "securityContext")
            }
            Value::Null => false,
            _ => true,
        });
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(drop_empty);
    }
}

/// The revision noted on a set; 0 when there is none.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A number noted on a set.
pub fn noted(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// The annotations that the new set has at this revision: the Deployment's, the revision, the history.
pub fn annotations(deployment: &Deployment, set: Option<&ReplicaSet>, revision: i64) -> BTreeMap<String, String> {
    let before = set.and_then(|s| s.metadata.annotations.clone()).unwrap_or_default();
    let mut after = before.clone();
    for (name, value) in deployment.metadata.annotations.iter().flatten().filter(|(n, _)| !OWN_ANNOTATIONS.contains(&n.as_str())) {
        after.insert(name.clone(), value.clone());
    }
    let old = before.get(REVISION).and_then(|r| r.parse::<i64>().ok());
    if old.unwrap_or(0) < revision {
        after.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old {
            let mut history: Vec<&str> = before.get(REVISION_HISTORY).map(|h| h.split(',').collect()).unwrap_or_default();
            let old = old.to_string();
            history.push(&old);
            while history.len() > 1 && history.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_BYTES {
                history.remove(0);
            }
            after.insert(REVISION_HISTORY.into(), history.join(","));
        }
    }
    after
}

/// Notes the Deployment's size on a set's annotations.
pub fn note_size(annotations: &mut BTreeMap<String, String>, spec: &DeploymentSpec) {
    let replicas = replicas(spec);
    annotations.insert(DESIRED_REPLICAS.into(), replicas.to_string());
    annotations.insert(MAX_REPLICAS.into(), (replicas + max_surge(spec)).to_string());
}

/// The new set of a Deployment, at its first size.
pub fn new_set(deployment: &Deployment, spec: &DeploymentSpec, collisions: i32, size: i32, revision: i64) -> ReplicaSet {
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let mut annotations = annotations(deployment, None, revision);
    note_size(&mut annotations, spec);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec { replicas: Some(size), min_ready_seconds: spec.min_ready_seconds, selector, template: Some(template) }),
        status: None,
    }
}

/// Names a template: FNV-1a over its canonical JSON and the collisions so far, in letters and digits that make no words.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u32 = 0x811c_9dc5;
    let text = document(template).to_string();
    for byte in text.bytes().chain(collisions.to_be_bytes().into_iter().filter(|_| collisions > 0)) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

/// `spec.replicas`.
pub fn replicas(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

/// Pods beyond `spec.replicas` during a rollout.
pub fn max_surge(spec: &DeploymentSpec) -> i32 {
    bounds(spec).0
}

/// Pods that may be missing during a rollout; never more than there are to be.
pub fn max_unavailable(spec: &DeploymentSpec) -> i32 {
    bounds(spec).1.min(replicas(spec))
}

/// Surge rounds up, unavailability down; both zero would stand still, so then one may be missing.
fn bounds(spec: &DeploymentSpec) -> (i32, i32) {
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = part(rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter), replicas(spec), true);
    let unavailable = part(rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter), replicas(spec), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn part(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent.clamp(0, 1_000_000) * i64::from(of.max(0));
            let n = if up { (hundredths + 99) / 100 } else { hundredths / 100 };
            i32::try_from(n).unwrap_or(i32::MAX)
        }
    }
}
