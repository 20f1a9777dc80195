//! `metadata.managedFields`: the managers of an object, read and written.

use serde_json::{Map, Value};

use super::{fields::FieldSet, fieldsv1};

/// Managers that have updated an object and are told apart; the oldest are one beyond that. Upstream's bound.
const MAX_UPDATERS: usize = 10;
/// Name of the managers that are no longer told apart.
const ANCIENT: &str = "ancient-changes";

/// Why `managedFields` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagedFieldsError {
    /// An element has no known form.
    #[error("{text:?} is no path element of fieldsV1")]
    Element {
        /// The element's beginning.
        text: String,
    },
    /// Not a tree of objects.
    #[error("fieldsV1 is a tree of objects")]
    Shape,
    /// Not a list of entries.
    #[error("managedFields is a list of entries")]
    List,
    /// Neither Apply nor Update.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    Version,
    /// Another encoding.
    #[error("fieldsType must be FieldsV1")]
    Type,
}

/// What tells managers of one object apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// It applies, so that its version is no part of its identity.
    pub applies: bool,
    /// Its name.
    pub name: String,
    /// Version that it updates in; empty when it applies.
    pub update_version: String,
    /// Empty for the main resource.
    pub subresource: String,
}

impl Id {
    /// The manager of a write.
    pub fn new(act: &super::Act<'_>, applies: bool) -> Self {
        let update_version = if applies { String::new() } else { act.api_version.to_owned() };
        Self { applies, name: act.name().to_owned(), update_version, subresource: act.subresource.to_owned() }
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who.
    pub id: Id,
    /// Version that the fields are named in.
    pub version: String,
    /// Time of its last change; none for who has only ever claimed what was there.
    pub time: Option<String>,
    fields: FieldSet,
    /// The fields as they were read, for as long as they are the same: most writes touch one manager of several.
    raw: Option<Value>,
}

impl Entry {
    /// Of a manager.
    pub fn new(id: Id, version: &str, time: Option<String>, fields: FieldSet) -> Self {
        Self { id, version: version.to_owned(), time, fields, raw: None }
    }

    /// What it owns.
    pub fn fields(&self) -> &FieldSet {
        &self.fields
    }

    /// Makes it own this.
    pub fn set_fields(&mut self, fields: FieldSet) {
        self.fields = fields;
        self.raw = None;
    }

    fn read(value: &Value) -> Result<Self, ManagedFieldsError> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let applies = match value["operation"].as_str() {
            Some("Apply") => true,
            Some("Update") => false,
            _ => return Err(ManagedFieldsError::Operation),
        };
        let version = text("apiVersion");
        if version.is_empty() {
            return Err(ManagedFieldsError::Version);
        }
        if value["fieldsType"] != "FieldsV1" {
            return Err(ManagedFieldsError::Type);
        }
        let update_version = if applies { String::new() } else { version.clone() };
        let id = Id { applies, name: text("manager"), update_version, subresource: text("subresource") };
        let raw = value["fieldsV1"].clone();
        let fields = fieldsv1::decode(&raw)?;
        Ok(Self { id, version, time: value["time"].as_str().map(str::to_owned), fields, raw: raw.is_object().then_some(raw) })
    }

    fn write(self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, text: String| {
            if !text.is_empty() {
                out.insert(name.to_owned(), text.into());
            }
        };
        put("manager", self.id.name);
        put("operation", if self.id.applies { "Apply" } else { "Update" }.to_owned());
        put("apiVersion", self.version);
        put("time", self.time.unwrap_or_default());
        put("subresource", self.id.subresource);
        put("fieldsType", "FieldsV1".to_owned());
        let fields = self.raw.unwrap_or_else(|| fieldsv1::encode(&self.fields));
        out.insert("fieldsV1".to_owned(), fields);
        Value::Object(out)
    }
}

/// The managers of an object, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers {
    entries: Vec<Entry>,
}

/// Whether a client asks with these `managedFields` that nobody manage the object.
pub fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

impl Managers {
    /// Of `metadata.managedFields`; absent is nobody.
    pub fn read(managed_fields: &Value) -> Result<Self, ManagedFieldsError> {
        let list = match managed_fields {
            Value::Null => return Ok(Self::default()),
            Value::Array(list) => list,
            _ => return Err(ManagedFieldsError::List),
        };
        let mut out = Self::default();
        for entry in list {
            out.put(Entry::read(entry)?);
        }
        Ok(out)
    }

    /// `metadata.managedFields`; null for nobody.
    pub fn write(mut self) -> Value {
        if self.entries.is_empty() {
            return Value::Null;
        }
        self.entries.sort_by(|a, b| {
            let key = |entry: &Entry| (!entry.id.applies, entry.time.clone().unwrap_or_default());
            let rest = |entry: &Entry| (entry.id.name.clone(), entry.version.clone(), entry.id.subresource.clone());
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
        self.entries.into_iter().map(Entry::write).collect()
    }

    /// Whether nobody manages anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One of them.
    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// Takes one out.
    pub fn take(&mut self, id: &Id) -> Option<Entry> {
        self.entries.iter().position(|entry| entry.id == *id).map(|at| self.entries.remove(at))
    }

    /// Sets what a manager owns, in place of what it owned.
    pub fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|other| other.id == entry.id) {
            Some(other) => *other = entry,
            None => self.entries.push(entry),
        }
    }

    /// Changes all; those for whom `change` says false go.
    pub(super) fn retain(&mut self, change: impl FnMut(&mut Entry) -> bool) {
        self.entries.retain_mut(change);
    }

    /// Joins the oldest updaters of each version until no more than the bound are left.
    pub(super) fn cap(&mut self) {
        let mut count = self.entries.iter().filter(|entry| !entry.id.applies).count();
        if count <= MAX_UPDATERS {
            return;
        }
        let mut oldest: Vec<(Option<String>, Id, String)> = self.entries.iter().filter(|e| !e.id.applies).map(age).collect();
        oldest.sort();
        let mut first: Vec<(String, Id)> = Vec::new();
        for (time, id, version) in oldest {
            if count <= MAX_UPDATERS {
                break;
            }
            let Some((_, start)) = first.iter().find(|(other, _)| *other == version) else {
                first.push((version, id));
                continue;
            };
            let bucket = Id { applies: false, name: ANCIENT.into(), update_version: version.clone(), subresource: String::new() };
            if self.get(&bucket).is_none()
                && let Some(entry) = self.take(&start.clone())
            {
                self.put(Entry { id: bucket.clone(), ..entry });
            }
            let (Some(mut joined), Some(entry)) = (self.take(&bucket), self.take(&id)) else { continue };
            joined.set_fields(joined.fields.union(&entry.fields));
            joined.time = time; // the newest of those that were joined
            self.put(joined);
            count -= 1;
        }
    }
}

fn age(entry: &Entry) -> (Option<String>, Id, String) {
    (entry.time.clone(), entry.id.clone(), entry.version.clone())
}
