//! CustomResourceDefinitions: from the object to the resources that it serves.

pub mod checks;
pub mod names;
pub(crate) mod paths;
pub mod rules;
mod structural;
mod version;

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::catalogue::{Catalogue, Column, Resource, Storage, Subresource, builtin, version_hash};
use crate::schema::{Schema, any};
use crate::{defaulting, structural as canonical};

use checks::Checks;
pub use version::newest_first;

/// Group of definitions themselves.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Plural of definitions themselves.
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds a deleted definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What may be done with objects of a definition.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// What may be done while the definition is being deleted.
const VERBS_AT_THE_END: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// What a resource knows because it comes from a definition.
#[derive(Debug)]
pub struct Served {
    /// The definition's name.
    pub definition: String,
    /// `openAPIV3Schema` as it was given: what is published.
    pub schema: Box<str>,
    /// Changes with everything that changes how stored objects are read.
    pub tag: u64,
    /// Fields that `fieldSelector` can name, without the leading dot.
    pub selectable: Vec<String>,
    /// Where the scale is.
    pub scale: Option<Scale>,
    /// A webhook converts between versions, not the server.
    pub webhook: Option<Webhook>,
    /// What users of this version are told.
    pub deprecation: Option<String>,
    /// Made at the first write.
    checks: OnceLock<Checks>,
}

impl Served {
    /// The rules for values.
    pub fn checks(&self) -> &Checks {
        self.checks.get_or_init(|| Checks::read(&serde_json::from_str(&self.schema).unwrap_or_default()))
    }

    /// Whether they are made already.
    pub fn is_compiled(&self) -> bool {
        self.checks.get().is_some()
    }
}

/// Who converts objects between versions (`spec.conversion.webhook`).
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// `clientConfig`: where it is.
    pub client: Value,
    /// Versions of ConversionReview that it knows, best first.
    pub review_versions: Vec<String>,
}

impl Webhook {
    fn read(definition: &Value) -> Option<Self> {
        let conversion = &definition["spec"]["conversion"];
        let webhook = &conversion["webhook"];
        let read = || Self { client: webhook["clientConfig"].clone(), review_versions: words(&webhook["conversionReviewVersions"]) };
        (conversion["strategy"] == "Webhook").then(read)
    }
}

/// Paths of `subresources.scale`, as they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `.spec.replicas`
    pub spec_replicas: String,
    /// `.status.replicas`
    pub status_replicas: String,
    /// `.status.selector`; empty when there is none.
    pub label_selector: String,
}

/// The resources of a definition that is established, in the order of its versions; the ones that paths do not lead to come second.
pub fn resources(definition: &Value) -> (Vec<Arc<Resource>>, Vec<Arc<Resource>>) {
    if !is_true(definition, "Established") {
        return (Vec::new(), Vec::new());
    }
    let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().find(|v| v["storage"] == true).map(|v| text(v, "name")).unwrap_or_default();
    let wanted = versions.iter().filter(|v| v["served"] == true || v["storage"] == true);
    let made = wanted.map(|v| (v["served"] == true, Arc::new(resource(definition, v, &storage))));
    let (served, hidden): (Vec<_>, Vec<_>) = made.partition(|(served, _)| *served);
    (served.into_iter().map(|(_, r)| r).collect(), hidden.into_iter().map(|(_, r)| r).collect())
}

/// The built-in kinds with these beside them. Where a built-in resource or kind has the name already, it keeps it.
pub fn catalogue(served: &[Arc<Resource>], hidden: &[Arc<Resource>], revision: u64) -> Catalogue {
    let mut sorted: Vec<&Arc<Resource>> = served.iter().collect();
    sorted.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| newest_first(&a.version, &b.version)).then_with(|| a.plural.cmp(&b.plural)));
    let free = |r: &&Arc<Resource>| builtin().resource(&r.group, &r.version, &r.plural).is_none();
    let with = sorted.into_iter().filter(free).fold(builtin().clone(), |all, one| all.with(Arc::clone(one)));
    hidden.iter().fold(with, |all, one| all.with_hidden(Arc::clone(one))).at(revision)
}

/// Shows a stored object as the storage version has it today: its version, no fields that the schema does not know, all its defaults.
pub fn settle(stored: &Resource, object: &mut Value) {
    if stored.definition.as_ref().is_some_and(|d| d.webhook.is_some()) && object["apiVersion"] != stored.api_version() {
        // Only its webhook knows what it would be in the version of today.
        return;
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), stored.api_version().into());
    }
    // Metadata was canonical when it was stored; of the rest nothing is an error.
    let _ = canonical::prune(&stored.schema, object);
    defaulting::apply(stored, object);
}

/// The schema of a value inside of an object.
pub(crate) fn value_schema(source: &Value) -> Schema {
    structural::value(source)
}

/// Whether the definition's condition is true.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|c| c["type"] == condition && c["status"] == "True")
}

fn resource(definition: &Value, version: &Value, storage: &str) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let (group, name, kind, plural) = (text(spec, "group"), text(version, "name"), text(names, "kind"), text(names, "plural"));
    let source = &version["schema"]["openAPIV3Schema"];
    let published = source.to_string();
    let schema = structural::schema(source);
    let status = version["subresources"]["status"].is_object();
    let scale = version["subresources"].get("scale").filter(|s| s.is_object()).map(|s| Scale {
        spec_replicas: text(s, "specReplicasPath"),
        status_replicas: text(s, "statusReplicasPath"),
        label_selector: text(s, "labelSelectorPath"),
    });
    let selectable: Vec<String> = version["selectableFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|f| text(f, "jsonPath").trim_start_matches('.').to_owned())
        .collect();
    let deprecation = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
        Some(words) => words.to_owned(),
        None => format!("{group}/{name} {kind} is deprecated"),
    });
    let ends = is_true(definition, "Terminating");
    let verbs: &[&str] = if ends { &VERBS_AT_THE_END } else { &VERBS };
    Resource {
        version: name.clone(),
        singular: text(names, "singular"),
        list_kind: Some(text(names, "listKind")).filter(|k| !k.is_empty()).unwrap_or_else(|| format!("{kind}List")),
        namespaced: spec["scope"] == "Namespaced",
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        short_names: words(&names["shortNames"]),
        categories: words(&names["categories"]),
        subresources: subresources(&group, &name, &kind, status, scale.is_some(), &schema),
        columns: columns(version),
        storage: Storage { group: group.clone(), version: storage.to_owned(), plural: plural.clone() },
        storage_version_hash: if storage.is_empty() { String::new() } else { version_hash(&group, storage, &kind) },
        custom: true,
        definition: Some(Arc::new(Served {
            definition: text(&definition["metadata"], "name"),
            tag: tag(&[&name, &published, &selectable.join("\n")]),
            schema: published.into(),
            selectable,
            scale,
            webhook: Webhook::read(definition),
            deprecation,
            checks: OnceLock::new(),
        })),
        schema,
        group,
        plural,
        kind,
    }
}

fn subresources(group: &str, version: &str, kind: &str, status: bool, scale: bool, schema: &Arc<Schema>) -> Vec<Subresource> {
    let make = |name: &str, group: &str, version: &str, kind: &str, schema: &Arc<Schema>| Subresource {
        name: name.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        verbs: ["get", "patch", "update"].map(str::to_owned).into(),
        schema: Arc::clone(schema),
    };
    let mut out = Vec::new();
    if status {
        out.push(make("status", group, version, kind, schema));
    }
    if scale {
        let schema = builtin().schema("autoscaling", "v1", "Scale").unwrap_or_else(|| any());
        out.push(make("scale", "autoscaling", "v1", "Scale", schema));
    }
    out
}

fn columns(version: &Value) -> Vec<Column> {
    let name = Column {
        name: "Name".into(),
        kind: "string".into(),
        format: "name".into(),
        description: "Name must be unique within a namespace.".into(),
        priority: 0,
        json_path: String::new(),
    };
    let mut out = vec![name];
    out.extend(version["additionalPrinterColumns"].as_array().into_iter().flatten().map(|c| Column {
        name: text(c, "name"),
        kind: text(c, "type"),
        format: text(c, "format"),
        description: text(c, "description"),
        priority: c["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or_default(),
        json_path: text(c, "jsonPath"),
    }));
    if out.len() == 1 {
        out.push(Column {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "Time since the object was created.".into(),
            priority: 0,
            json_path: ".metadata.creationTimestamp".into(),
        });
    }
    out
}

/// The first eight bytes of the digest of some texts.
fn tag(parts: &[&str]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|w| w.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
