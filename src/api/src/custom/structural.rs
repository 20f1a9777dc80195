//! `openAPIV3Schema` as a [`Schema`]: what pruning, defaulting and apply need of it. Its value rules are read elsewhere.

use std::sync::Arc;

use serde_json::Value;

use crate::catalogue::builtin;
use crate::schema::{ListType, Property, Schema, Type, any};

/// The schema of a whole custom object.
pub(super) fn schema(source: &Value) -> Arc<Schema> {
    let mut root = read(source);
    root.kind = Type::Object;
    Arc::new(whole_object(root))
}

/// The schema of a value.
pub(super) fn value(source: &Value) -> Schema {
    read(source)
}

fn read(source: &Value) -> Schema {
    let flag = |name: &str| source[name] == true;
    let preserve = flag("x-kubernetes-preserve-unknown-fields");
    let additional = &source["additionalProperties"];
    let kind = match source["type"].as_str().unwrap_or_default() {
        _ if flag("x-kubernetes-int-or-string") => Type::IntOrString,
        "boolean" => Type::Boolean,
        "integer" => Type::Int64,
        "number" => Type::Number,
        "string" => Type::String,
        "array" => Type::List,
        "object" if additional.is_object() || *additional == true => Type::Map,
        "object" => Type::Object,
        _ if source["properties"].is_object() => Type::Object,
        _ => Type::Any,
    };
    let mut out = Schema {
        custom: true,
        nullable: flag("nullable"),
        preserve_unknown: preserve || kind == Type::Any,
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        default: source.get("default").filter(|d| !d.is_null()).cloned(),
        atomic: source["x-kubernetes-map-type"] == "atomic",
        ..Schema::of(kind)
    };
    match kind {
        Type::List => {
            let items = &source["items"];
            out = out.with_items(if items.is_object() { Arc::new(finished(read(items))) } else { any().clone() });
            match source["x-kubernetes-list-type"].as_str() {
                Some("set") => out.list_type = ListType::Set,
                Some("map") => {
                    out.list_type = ListType::Map;
                    let keys = source["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                    out.list_keys = keys.filter_map(Value::as_str).map(Into::into).collect();
                }
                _ => {}
            }
        }
        Type::Map => out = out.with_items(if additional.is_object() { Arc::new(finished(read(additional))) } else { any().clone() }),
        Type::Object => {
            let properties = source["properties"].as_object().into_iter().flatten();
            out = out.with_properties(properties.map(|(name, schema)| Property::new(name, Arc::new(finished(read(schema))))).collect());
        }
        _ => {}
    }
    finished(out)
}

fn finished(schema: Schema) -> Schema {
    if schema.embedded_resource && matches!(schema.kind, Type::Object) { whole_object(schema) } else { schema }
}

/// With the fields that every object has; what the definition says of `metadata` are rules for values alone.
fn whole_object(mut schema: Schema) -> Schema {
    let metadata = builtin().message("meta/v1.ObjectMeta").unwrap_or_else(|| any());
    let own = schema.properties().iter().filter(|p| !matches!(&*p.name, "apiVersion" | "kind" | "metadata")).cloned();
    let mut properties: Vec<Property> = own.collect();
    for name in ["apiVersion", "kind"] {
        properties.push(Property::new(name, Arc::new(Schema { custom: true, ..Schema::of(Type::String) })));
    }
    properties.push(Property::new("metadata", Arc::clone(metadata)));
    schema = schema.with_properties(properties);
    schema
}
