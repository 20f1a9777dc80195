//! The kinds that a cluster serves: names, verbs, subresources, columns and schemas, built-in or custom.

pub mod bootstrap;
mod convert;
mod facts;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::custom::Served;
use crate::schema::Schema;

pub use convert::convert;
pub use facts::version_hash;

/// A resource: one plural name under one group and version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version within the group.
    pub version: String,
    /// Name in paths: `pods`.
    pub plural: String,
    /// Name of one: `pod`.
    pub singular: String,
    /// `Pod`.
    pub kind: String,
    /// `PodList`.
    pub list_kind: String,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// What may be done, sorted.
    pub verbs: Vec<String>,
    /// `po`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// `status`, `scale`, ... in discovery order.
    pub subresources: Vec<Subresource>,
    /// Of the whole object.
    pub schema: Arc<Schema>,
    /// Of `kubectl get`.
    pub columns: Vec<Column>,
    /// Version that is stored when the kind is served in several; see [`convert`].
    pub storage: Storage,
    /// What discovery tells clients of the stored form.
    pub storage_version_hash: String,
    /// Comes from a CustomResourceDefinition.
    pub custom: bool,
    /// What is known because it does.
    pub definition: Option<Arc<Served>>,
}

/// Where objects of a resource are kept: resources of one storage show the same objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Storage {
    /// Group of the stored form.
    pub group: String,
    /// Version of the stored form.
    pub version: String,
    /// Plural of the stored form.
    pub plural: String,
}

/// A part or an act of an object with a path of its own.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `exec`, ...
    pub name: String,
    /// Group of its body.
    pub group: String,
    /// Version of its body.
    pub version: String,
    /// Kind of its body.
    pub kind: String,
    /// What may be done, sorted.
    pub verbs: Vec<String>,
    /// Schema of its body.
    pub schema: Arc<Schema>,
}

/// A column of `as=Table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type of the cell.
    pub kind: String,
    /// OpenAPI format of the cell.
    pub format: String,
    /// For people.
    pub description: String,
    /// Above 0: only with `-o wide`.
    pub priority: i32,
    /// Where a custom resource has the value; empty for built-in kinds.
    pub json_path: String,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `pods`, `deployments.apps`: how messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the verb is served.
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Kinds and messages; cheap to extend with custom resources.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    resources: Vec<Arc<Resource>>,
    by_plural: HashMap<[Box<str>; 3], usize>,
    by_kind: HashMap<[Box<str>; 3], usize>,
    /// Stored versions that no path leads to.
    hidden: HashMap<[Box<str>; 3], Arc<Resource>>,
    messages: Arc<HashMap<Box<str>, Arc<Schema>>>,
    kinds: Arc<HashMap<[Box<str>; 3], Arc<Schema>>>,
    revision: u64,
}

impl Catalogue {
    /// The resource at `/apis/group/version/plural`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(&key(group, version, plural)).map(|i| &self.resources[*i])
    }

    /// The resource of objects with this kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&key(group, version, kind)).map(|i| &self.resources[*i])
    }

    /// The resource in the version that is stored, which need not be served.
    pub fn stored<'a>(&'a self, resource: &'a Arc<Resource>) -> &'a Arc<Resource> {
        let Storage { group, version, plural } = &resource.storage;
        self.resource(group, version, plural).or_else(|| self.hidden.get(&key(group, version, plural))).unwrap_or(resource)
    }

    /// Grows with every change of what is served.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All resources in the order of discovery.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// Versions in which a group serves something, preferred first.
    pub fn versions<'a>(&'a self, group: &'a str) -> Vec<&'a str> {
        let mut out: Vec<&str> = Vec::new();
        for resource in self.resources.iter().filter(|r| r.group == group) {
            if !out.contains(&resource.version.as_str()) {
                out.push(&resource.version);
            }
        }
        out
    }

    /// The schema of a type without a resource of its own: by message (`meta/v1.DeleteOptions`, `autoscaling.v1.Scale`) or by kind where
    /// one message only has it (`DeleteOptions`, `Scale`, `Eviction`).
    pub fn message(&self, name: &str) -> Option<&Arc<Schema>> {
        self.messages.get(name)
    }

    /// The schema of any served kind, also lists, options and bodies of subresources.
    pub fn schema(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Schema>> {
        self.kinds.get(&key(group, version, kind)).or_else(|| self.kind(group, version, kind).map(|r| &r.schema))
    }

    /// With one more resource; one of the same group, version and plural is replaced.
    #[must_use]
    pub fn with(mut self, resource: Arc<Resource>) -> Self {
        let at = self.by_plural.get(&key(&resource.group, &resource.version, &resource.plural)).copied();
        let index = at.unwrap_or(self.resources.len());
        self.by_plural.insert(key(&resource.group, &resource.version, &resource.plural), index);
        self.by_kind.insert(key(&resource.group, &resource.version, &resource.kind), index);
        match at {
            Some(index) => self.resources[index] = resource,
            None => self.resources.push(resource),
        }
        self
    }

    /// With a version in which objects are stored, but not served.
    #[must_use]
    pub fn with_hidden(mut self, resource: Arc<Resource>) -> Self {
        self.hidden.insert(key(&resource.group, &resource.version, &resource.plural), resource);
        self
    }

    /// With this revision.
    #[must_use]
    pub fn at(self, revision: u64) -> Self {
        Self { revision, ..self }
    }
}

fn key(group: &str, version: &str, name: &str) -> [Box<str>; 3] {
    [group.into(), version.into(), name.into()]
}

/// All kinds of Kubernetes 1.36, read at the first call.
pub fn builtin() -> &'static Catalogue {
    static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
    BUILTIN.get_or_init(facts::read)
}
