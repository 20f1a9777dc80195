//! Schemas as OpenAPI writes them, with Kubernetes' extensions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Form;
use super::descriptions::Descriptions;
use crate::catalogue::Resource;
use crate::schema::{ListType, Property, Schema, Type};

/// The schemas that a document refers to.
pub(super) struct Schemas<'a> {
    form: Form,
    texts: &'a Descriptions,
    /// By the name in the document.
    wanted: BTreeMap<String, Arc<Schema>>,
    /// Lists and custom kinds, which have no message.
    made: BTreeMap<String, Value>,
    /// Which kinds a schema is.
    kinds: BTreeMap<String, Vec<[String; 3]>>,
}

/// Packages of the messages' short names, with the beginnings that OpenAPI knows them by.
const PACKAGES: [(&str, &str); 6] = [
    ("meta/v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."),
    ("resource/", "io.k8s.apimachinery.pkg.api.resource."),
    ("intstr/", "io.k8s.apimachinery.pkg.util.intstr."),
    ("runtime/", "io.k8s.apimachinery.pkg.runtime."),
    ("apiextensions.v1.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."),
    ("apiregistration.v1.", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1."),
];

/// `io.k8s.api.core.v1.Pod` for `core.v1.Pod`.
pub(super) fn name_of(message: &str) -> String {
    for (ours, theirs) in PACKAGES {
        if let Some(rest) = message.strip_prefix(ours) {
            return format!("{theirs}{rest}");
        }
    }
    format!("io.k8s.api.{message}")
}

impl<'a> Schemas<'a> {
    pub(super) fn new(form: Form, texts: &'a Descriptions) -> Self {
        Self { form, texts, wanted: BTreeMap::new(), made: BTreeMap::new(), kinds: BTreeMap::new() }
    }

    /// A reference to the schema of a body that has this group, version and kind.
    pub(super) fn kind(&mut self, gvk: [&str; 3], schema: &Arc<Schema>) -> Value {
        let gvk = gvk.map(str::to_owned);
        let name = name_of(&schema.message);
        let known = self.kinds.entry(name).or_default();
        if !known.contains(&gvk) {
            known.push(gvk);
        }
        self.link(schema)
    }

    /// A reference to the schema of a custom kind, which is published as its definition has it.
    pub(super) fn custom(&mut self, gvk: [&str; 3], source: &str) -> Value {
        let group: Vec<&str> = gvk[0].rsplit('.').collect();
        let name = format!("{}.{}.{}", group.join("."), gvk[1], gvk[2]);
        let mut body: Value = serde_json::from_str(source).unwrap_or_else(|_| json!({}));
        // Without structure of its own the whole is free, and v2 can say so only by saying nothing.
        let free = self.form == Form::V2 && body["x-kubernetes-preserve-unknown-fields"] == true;
        if free {
            body = json!({"type": "object"});
        } else if self.form == Form::V2 {
            plainer(&mut body);
        }
        let metadata = self.message("meta/v1.ObjectMeta");
        let metadata = self.described(metadata, Some(&"Standard object's metadata.".to_owned()));
        let text = |text: &str| json!({"type": "string", "description": text});
        if let Some(fields) = body.as_object_mut() {
            if !free && let Some(properties) = fields.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
                // What the conformance suite looks for begins the sentence.
                properties.insert("apiVersion".into(), text("APIVersion defines which schema, of which group, this object follows."));
                properties.insert("kind".into(), text("Kind is the name of what this object is."));
                properties.insert("metadata".into(), metadata);
            }
            fields.insert("x-kubernetes-group-version-kind".into(), kinds(&[gvk.map(str::to_owned)]));
        }
        self.made.insert(name.clone(), body);
        self.reference(&name)
    }

    /// A reference to the list of a resource's objects.
    pub(super) fn list(&mut self, resource: &Resource, item: &Value) -> Value {
        let item_name = item["$ref"].as_str().and_then(|r| r.rsplit('/').next()).unwrap_or_default().to_owned();
        let name = format!("{}{}", item_name.strip_suffix(&resource.kind).unwrap_or(&item_name), resource.list_kind);
        let text = |text: &str| json!({"type": "string", "description": text});
        let item = self.described(item.clone(), None);
        let list = json!({
            "type": "object",
            "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
            "required": ["items"],
            "properties": {
                "apiVersion": text("APIVersion of this list."),
                "kind": text("Kind of this list."),
                "metadata": self.message("meta/v1.ListMeta"),
                "items": {"type": "array", "description": "The objects.", "items": item},
            },
            "x-kubernetes-group-version-kind": kinds(&[[resource.group.clone(), resource.version.clone(), resource.list_kind.clone()]]),
        });
        self.made.insert(name.clone(), list);
        self.reference(&name)
    }

    /// A reference to a built-in message.
    pub(super) fn message(&mut self, message: &str) -> Value {
        match crate::catalogue::builtin().message(message) {
            Some(schema) => self.link(&schema.clone()),
            None => json!({"type": "object"}),
        }
    }

    fn reference(&self, name: &str) -> Value {
        let place = if self.form == Form::V3 { "components/schemas" } else { "definitions" };
        json!({"$ref": format!("#/{place}/{name}")})
    }

    fn link(&mut self, schema: &Arc<Schema>) -> Value {
        let name = name_of(&schema.message);
        self.wanted.entry(name.clone()).or_insert_with(|| schema.clone());
        self.reference(&name)
    }

    /// In v3 nothing may stand beside a reference.
    fn described(&self, reference: Value, description: Option<&String>) -> Value {
        let mut out = match self.form {
            Form::V3 => Map::from_iter([("allOf".to_owned(), json!([reference]))]),
            Form::V2 => reference.as_object().cloned().unwrap_or_default(),
        };
        if let Some(text) = description {
            out.insert("description".into(), text.as_str().into());
        }
        if out.len() == 1 && self.form == Form::V3 {
            return reference;
        }
        out.into()
    }

    /// All schemas that are referred to, also by each other.
    pub(super) fn finish(mut self) -> Value {
        let mut out: Map<String, Value> = Map::new();
        loop {
            let next: Vec<(String, Arc<Schema>)> =
                self.wanted.iter().filter(|(name, _)| !out.contains_key(*name)).map(|(n, s)| (n.clone(), s.clone())).collect();
            if next.is_empty() {
                break;
            }
            for (name, schema) in next {
                let mut body = self.body(&schema);
                if let Some(known) = self.kinds.get(&name) {
                    body.insert("x-kubernetes-group-version-kind".into(), kinds(known));
                }
                out.insert(name, body.into());
            }
        }
        out.extend(self.made);
        out.into()
    }

    /// The schema of a message, without reference.
    fn body(&mut self, schema: &Schema) -> Map<String, Value> {
        let mut out = match schema.kind {
            Type::Object => self.object(schema),
            kind => plain(kind, self.form),
        };
        if let Some(text) = self.texts.message(&schema.message) {
            out.insert("description".into(), text.into());
        }
        out
    }

    fn object(&mut self, schema: &Schema) -> Map<String, Value> {
        let texts = self.texts;
        let descriptions = texts.fields(&schema.message);
        let mut properties = Map::new();
        for property in schema.properties() {
            properties.insert(property.name.to_string(), self.property(property, descriptions.get(&*property.name)));
        }
        let required: Vec<&str> = schema.properties().iter().filter(|p| p.required).map(|p| &*p.name).collect();
        let mut out = Map::new();
        out.insert("type".into(), "object".into());
        if !properties.is_empty() {
            out.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            out.insert("required".into(), required.into());
        }
        extensions(schema, &mut out);
        out
    }

    fn property(&mut self, property: &Property, description: Option<&String>) -> Value {
        let schema = property.schema();
        let mut out = self.value(schema, description);
        // Go's zero, which is what a missing required field becomes.
        if !property.pointer && !out.contains_key("default") && (property.required || schema.kind == Type::Object) {
            let zero = match schema.kind {
                Type::String if schema.enumeration.is_empty() => Some(json!("")),
                Type::Int32 | Type::Int64 => Some(json!(0)),
                Type::Boolean => Some(json!(false)),
                Type::Object if self.form == Form::V3 => Some(json!({})),
                _ => None,
            };
            if let Some(zero) = zero {
                out.insert("default".into(), zero);
            }
        }
        out.into()
    }

    /// A value wherever it stands: messages by reference, the rest spelled out.
    fn value(&mut self, schema: &Arc<Schema>, description: Option<&String>) -> Map<String, Value> {
        let has_name = !schema.message.is_empty() && !schema.is_named_list();
        let mut out = if has_name {
            let reference = self.link(schema);
            self.described(reference, description).as_object().cloned().unwrap_or_default()
        } else {
            match schema.kind {
                Type::Object => self.object(schema),
                Type::List | Type::Map => {
                    let mut out = plain(schema.kind, self.form);
                    if let Some(items) = schema.items() {
                        let items = self.value(&items.clone(), None);
                        out.insert(if schema.kind == Type::List { "items" } else { "additionalProperties" }.into(), items.into());
                    }
                    out
                }
                kind => plain(kind, self.form),
            }
        };
        if let Some(text) = description {
            out.insert("description".into(), text.as_str().into());
        }
        extensions(schema, &mut out);
        out
    }
}

fn kinds(known: &[[String; 3]]) -> Value {
    known.iter().map(|[group, version, kind]| json!({"group": group, "version": version, "kind": kind})).collect()
}

/// A schema with what version 2 of the format can say.
fn plainer(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for name in ["allOf", "anyOf", "oneOf", "not", "nullable", "default"] {
        let nullable = name == "nullable" && fields.get(name) == Some(&Value::Bool(true));
        fields.remove(name);
        if nullable {
            ["type", "items", "properties", "additionalProperties"].iter().for_each(|name| drop(fields.remove(*name)));
        }
    }
    if fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        ["items", "properties"].iter().for_each(|name| drop(fields.remove(*name)));
    }
    for name in ["items", "additionalProperties"] {
        fields.get_mut(name).into_iter().for_each(plainer);
    }
    fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(|p| p.values_mut()).for_each(plainer);
}

/// Type and format.
fn plain(kind: Type, form: Form) -> Map<String, Value> {
    let value = match (kind, form) {
        (Type::Boolean, _) => json!({"type": "boolean"}),
        (Type::Int32, _) => json!({"type": "integer", "format": "int32"}),
        (Type::Int64, _) => json!({"type": "integer", "format": "int64"}),
        (Type::Number, _) => json!({"type": "number", "format": "double"}),
        (Type::String | Type::Duration, _) => json!({"type": "string"}),
        (Type::Bytes, _) => json!({"type": "string", "format": "byte"}),
        (Type::Time | Type::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Type::Quantity, Form::V2) => json!({"type": "string"}),
        (Type::Quantity, Form::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Type::IntOrString, Form::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Type::IntOrString, Form::V3) => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        (Type::Object | Type::Map, _) => json!({"type": "object"}),
        (Type::List, _) => json!({"type": "array"}),
        (Type::Any, _) => json!({"type": "object"}),
        (Type::SchemaOrList | Type::SchemaOrBool | Type::SchemaOrNames, _) => json!({}),
    };
    value.as_object().cloned().unwrap_or_default()
}

/// What Kubernetes adds to OpenAPI.
fn extensions(schema: &Schema, out: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    if schema.kind == Type::List {
        match schema.list_type {
            ListType::Map => {
                set("x-kubernetes-list-map-keys", schema.list_keys.iter().map(|k| Value::from(&**k)).collect());
                set("x-kubernetes-list-type", "map".into());
            }
            ListType::Set => set("x-kubernetes-list-type", "set".into()),
            ListType::Atomic => set("x-kubernetes-list-type", "atomic".into()),
        }
    }
    if schema.atomic {
        set("x-kubernetes-map-type", "atomic".into());
    }
    if let Some(key) = schema.patch_merge_key() {
        set("x-kubernetes-patch-merge-key", key.into());
    }
    let strategies: Vec<&str> = schema.patch_strategies().collect();
    if !strategies.is_empty() {
        set("x-kubernetes-patch-strategy", strategies.join(",").into());
    }
    if !schema.enumeration.is_empty() {
        set("enum", schema.enumeration.to_vec().into());
    }
    if let Some(default) = &schema.default {
        set("default", default.clone());
    }
    if !schema.format.is_empty() {
        set("format", schema.format.to_string().into());
    }
    if schema.preserve_unknown && schema.custom {
        set("x-kubernetes-preserve-unknown-fields", true.into());
    }
    if schema.embedded_resource {
        set("x-kubernetes-embedded-resource", true.into());
    }
}
