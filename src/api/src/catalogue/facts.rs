//! Reads the facts of Kubernetes 1.36 that lie in `catalogue/` (format: the README beside them).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Catalogue, Column, Resource, Storage, Subresource, key};
use crate::schema::{Link, ListType, Property, Schema, Type, any};

const TYPES: &str = include_str!("../../catalogue/types-1.36.tsv");
const DISCOVERY: &str = include_str!("../../catalogue/discovery-1.36.tsv");
const COLUMNS: &str = include_str!("../../catalogue/columns-1.36.tsv");

/// Kinds whose objects are stored under another group or version than the one asked for.
const STORED_ELSEWHERE: [(&str, &str, &str, [&str; 3]); 2] = [
    ("autoscaling", "v1", "horizontalpodautoscalers", ["autoscaling", "v2", "horizontalpodautoscalers"]),
    ("events.k8s.io", "v1", "events", ["", "v1", "events"]),
];

/// The catalogue of built-in kinds.
pub(super) fn read() -> Catalogue {
    let types = Types::read(TYPES);
    let mut out = Catalogue::default();
    let mut kinds = HashMap::new();
    let mut messages: HashMap<Box<str>, Arc<Schema>> = HashMap::new();
    for name in types.messages.keys() {
        messages.insert((*name).into(), types.message(name).get().clone());
    }
    for line in TYPES.lines().filter(|l| l.starts_with("K\t")) {
        let mut cells = line.split('\t').skip(1);
        let [group, version, kind, message] = std::array::from_fn(|_| cells.next().unwrap_or_default());
        let schema = types.message(message).get().clone();
        kinds.insert(key(group, version, kind), schema.clone());
        messages.entry(kind.into()).or_insert(schema);
    }
    let columns = columns();
    let mut open: Option<Resource> = None;
    for line in DISCOVERY.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        match cells[..] {
            ["R", group, version, plural, singular, kind, scope, verbs, short, categories] => {
                if let Some(done) = open.take() {
                    out = out.with(Arc::new(done));
                }
                let stored = STORED_ELSEWHERE.iter().find(|s| (s.0, s.1, s.2) == (group, version, plural));
                let [g, v, p] = stored.map_or([group, version, plural], |s| s.3);
                let storable = verbs.contains("watch");
                open = Some(Resource {
                    group: group.into(),
                    version: version.into(),
                    plural: plural.into(),
                    singular: singular.into(),
                    kind: kind.into(),
                    list_kind: format!("{kind}List"),
                    namespaced: scope == "Namespaced",
                    verbs: words(verbs),
                    short_names: words(short),
                    categories: words(categories),
                    subresources: Vec::new(),
                    schema: kinds.get(&key(group, version, kind)).unwrap_or_else(|| any()).clone(),
                    columns: columns.get(&(group, version, plural)).cloned().unwrap_or_else(name_and_age),
                    storage: Storage { group: g.into(), version: v.into(), plural: p.into() },
                    storage_version_hash: if storable { version_hash(g, v, kind) } else { String::new() },
                    custom: false,
                    definition: None,
                });
            }
            ["S", group, version, path, _, kind, _, verbs, ..] => {
                let Some(resource) = &mut open else { continue };
                let body: Vec<&str> = kind.split('/').collect();
                let [g, v, k] = match body[..] {
                    [g, v, k] => [g, v, k],
                    _ => [group, version, kind],
                };
                resource.subresources.push(Subresource {
                    name: path.split('/').nth(1).unwrap_or_default().into(),
                    group: g.into(),
                    version: v.into(),
                    kind: k.into(),
                    verbs: words(verbs),
                    schema: kinds.get(&key(g, v, k)).unwrap_or_else(|| any()).clone(),
                });
            }
            _ => {}
        }
    }
    if let Some(done) = open {
        out = out.with(Arc::new(done));
    }
    out.messages = Arc::new(messages);
    out.kinds = Arc::new(kinds);
    out
}

fn words(list: &str) -> Vec<String> {
    list.split('|').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// What discovery publishes so that clients notice a changed storage version.
pub fn version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn name_and_age() -> Vec<Column> {
    let column = |name: &str, kind: &str, format: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: String::new(),
        priority: 0,
        json_path: String::new(),
    };
    vec![column("Name", "string", "name"), column("Created At", "date", "")]
}

fn columns() -> HashMap<(&'static str, &'static str, &'static str), Vec<Column>> {
    let mut out: HashMap<_, Vec<Column>> = HashMap::new();
    for line in COLUMNS.lines().filter(|l| !l.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        if let [group, version, plural, name, kind, format, priority] = cells[..] {
            out.entry((group, version, plural)).or_default().push(Column {
                name: name.into(),
                kind: kind.into(),
                format: format.into(),
                description: String::new(),
                priority: priority.parse().unwrap_or(0),
                json_path: String::new(),
            });
        }
    }
    out
}

struct Message<'a> {
    flags: &'a str,
    fields: Vec<&'a str>,
}

/// The messages, turned into schemas as they are asked for.
struct Types<'a> {
    messages: HashMap<&'a str, Message<'a>>,
    built: RefCell<HashMap<&'a str, Link>>,
    shared: RefCell<HashMap<(&'a str, &'a str), Link>>,
}

impl<'a> Types<'a> {
    fn read(text: &'a str) -> Self {
        let mut messages: HashMap<&str, Message<'a>> = HashMap::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("M\t") {
                let (name, flags) = rest.split_once('\t').unwrap_or((rest, ""));
                current = name;
                messages.insert(name, Message { flags, fields: Vec::new() });
            } else if let Some(rest) = line.strip_prefix("F\t")
                && let Some(message) = messages.get_mut(current)
            {
                message.fields.push(rest);
            }
        }
        Self { messages, built: RefCell::default(), shared: RefCell::default() }
    }

    fn message(&self, name: &'a str) -> Link {
        if let Some(link) = self.built.borrow().get(name) {
            return link.clone();
        }
        let Some((name, facts)) = self.messages.get_key_value(name) else { return Link::Ready(any().clone()) };
        let cell = Arc::new(OnceLock::new());
        self.built.borrow_mut().insert(name, Link::Later(cell.clone()));
        let schema = Arc::new(self.build(name, facts));
        cell.get_or_init(|| schema.clone());
        self.built.borrow_mut().insert(name, Link::Ready(schema.clone()));
        Link::Ready(schema)
    }

    fn build(&self, name: &'a str, facts: &Message<'a>) -> Schema {
        let special = match name {
            "meta/v1.Time" => Some(Type::Time),
            "meta/v1.MicroTime" => Some(Type::MicroTime),
            "meta/v1.Duration" => Some(Type::Duration),
            "resource/Quantity" => Some(Type::Quantity),
            "intstr/IntOrString" => Some(Type::IntOrString),
            "meta/v1.FieldsV1" | "runtime/RawExtension" | "apiextensions.v1.JSON" => Some(Type::Any),
            "apiextensions.v1.JSONSchemaPropsOrArray" => Some(Type::SchemaOrList),
            "apiextensions.v1.JSONSchemaPropsOrBool" => Some(Type::SchemaOrBool),
            "apiextensions.v1.JSONSchemaPropsOrStringArray" => Some(Type::SchemaOrNames),
            _ => None,
        };
        let mut schema = Schema::of(special.unwrap_or(Type::Object));
        schema.message = name.into();
        schema.atomic = facts.flags.contains("map-type=atomic");
        match special {
            Some(Type::Any) => schema.preserve_unknown = true,
            Some(Type::SchemaOrList | Type::SchemaOrBool | Type::SchemaOrNames) => {
                schema.items = Some(self.message("apiextensions.v1.JSONSchemaProps"));
            }
            Some(_) => {}
            None => {
                let mut properties = Vec::with_capacity(facts.fields.len());
                self.fields(facts, &[], &mut properties);
                schema = schema.with_properties(properties);
            }
        }
        schema
    }

    fn fields(&self, facts: &Message<'a>, through: &[u32], out: &mut Vec<Property>) {
        for line in &facts.fields {
            let mut cells = line.split('\t');
            let [name, kind, wire, flags] = std::array::from_fn(|_| cells.next().unwrap_or_default());
            let number = wire.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let has = |flag: &str| flags.split(',').any(|f| f == flag);
            if has("inline") {
                let deeper = [through, &[number]].concat();
                let start = out.len();
                if let Some(inner) = self.messages.get(kind) {
                    self.fields(inner, &deeper, out);
                }
                if number == 0 {
                    // TypeMeta: the envelope has it.
                    out[start..].iter_mut().for_each(|property| property.number = 0);
                }
                continue;
            }
            if name.is_empty() || name == "-" {
                continue;
            }
            out.push(Property {
                name: name.into(),
                number,
                through: through.into(),
                required: has("required"),
                pointer: has("ptr"),
                omit_empty: has("omitempty"),
                omit_zero: has("omitzero"),
                schema: match (name, kind, wire) {
                    ("verbs", "[]string", "4 bytes") => Link::Ready(Arc::new(named_list(self.of_type("string")))),
                    _ => self.value(kind, flags),
                },
            });
        }
    }

    /// The schema of a field's value: its type with what the field adds to it.
    fn value(&self, kind: &'a str, flags: &'a str) -> Link {
        if let Some(link) = self.shared.borrow().get(&(kind, flags)) {
            return link.clone();
        }
        let plain = self.of_type(kind);
        let link = match decorated(plain.get_now(), kind, flags) {
            Some(schema) => Link::Ready(Arc::new(schema)),
            None => plain,
        };
        self.shared.borrow_mut().insert((kind, flags), link.clone());
        link
    }

    fn of_type(&self, kind: &'a str) -> Link {
        if let Some(link) = self.shared.borrow().get(&(kind, "")) {
            return link.clone();
        }
        let of = |kind| Schema::of(kind);
        let link = if let Some(items) = kind.strip_prefix("[]") {
            Link::Ready(Arc::new(Schema { items: Some(self.of_type(items)), ..of(Type::List) }))
        } else if let Some(values) = kind.strip_prefix("map[string]") {
            let items = match values.strip_prefix("[]") {
                Some(names) => Link::Ready(Arc::new(named_list(self.of_type(names)))),
                None => self.of_type(values),
            };
            Link::Ready(Arc::new(Schema { items: Some(items), ..of(Type::Map) }))
        } else {
            match kind {
                "bool" => Link::Ready(Arc::new(of(Type::Boolean))),
                "int32" => Link::Ready(Arc::new(of(Type::Int32))),
                "int64" => Link::Ready(Arc::new(of(Type::Int64))),
                "float64" => Link::Ready(Arc::new(of(Type::Number))),
                "string" => Link::Ready(Arc::new(of(Type::String))),
                "bytes" => Link::Ready(Arc::new(of(Type::Bytes))),
                message => self.message(message),
            }
        };
        // A link to a message in progress would stay a detour for all who ask later.
        if matches!(link, Link::Ready(_)) {
            self.shared.borrow_mut().insert((kind, ""), link.clone());
        }
        link
    }
}

/// A list that protobuf has as a message of its own.
fn named_list(items: Link) -> Schema {
    Schema { items: Some(items), message: "meta/v1.Names".into(), ..Schema::of(Type::List) }
}

impl Link {
    /// The schema if it is complete.
    fn get_now(&self) -> Option<&Arc<Schema>> {
        match self {
            Self::Ready(schema) => Some(schema),
            Self::Later(cell) => cell.get(),
        }
    }
}

/// The plain schema with a field's own flags, or nothing when the flags add nothing.
fn decorated(plain: Option<&Arc<Schema>>, kind: &str, flags: &str) -> Option<Schema> {
    let mut schema = (**plain?).clone();
    let mut changed = false;
    for flag in flags.split(',') {
        let Some((name, value)) = flag.split_once('=') else { continue };
        changed = true;
        match name {
            "enum" => schema.enumeration = value.split('|').map(Value::from).collect(),
            "default" => schema.default = serde_json::from_str(value).ok(),
            "format" => schema.format = value.into(),
            "map-type" => schema.atomic = value == "atomic",
            "patchStrategy" => schema.patch_strategies = value.split('+').map(Into::into).collect(),
            "patchMergeKey" => schema.patch_merge_key = Some(value.into()),
            "list-type" if kind.starts_with("[]") => match value.strip_prefix("map(").and_then(|v| v.strip_suffix(')')) {
                Some(keys) => {
                    schema.list_type = ListType::Map;
                    schema.list_keys = keys.split(';').map(Into::into).collect();
                }
                None if value == "set" => schema.list_type = ListType::Set,
                None => {}
            },
            _ => {}
        }
    }
    changed.then_some(schema)
}
