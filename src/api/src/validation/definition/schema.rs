//! `openAPIV3Schema`: structural, with rules and defaults that make sense.

use serde_json::Value;

use super::super::custom::holds;
use super::{Field, doubles, rules};
use crate::custom::checks::{Checks, pattern};
use crate::{custom, structural};

/// Nested schemas: deeper ones are refused. Requests are not read much deeper anyway.
const MAX_DEPTH: usize = 64;
/// Keywords of JSON schema that Kubernetes does not have.
const FORBIDDEN: [&str; 6] = ["$ref", "id", "definitions", "dependencies", "patternProperties", "additionalItems"];
/// What rules about values may not say anything of: only the schema around them may.
const STRUCTURE: [&str; 10] = [
    "description",
    "title",
    "default",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Checks the schema of a version; `old` is the one before.
pub(super) fn check(schema: &Field<'_>, old: &Value) {
    let kind = schema.at("type");
    if !kind.is_empty() && kind.text() != "object" {
        kind.invalid("must be object at the root");
    }
    for name in ["default", "nullable"] {
        if schema.at(name).exists() && !matches!(schema.value()[name], Value::Bool(false)) {
            schema.at(name).forbidden("must not be set at the root");
        }
    }
    if schema.at("additionalProperties").exists() {
        schema.at("additionalProperties").forbidden("must not be used at the root");
    }
    metadata(schema);
    let before = schema.found();
    node(schema, 0, true);
    // Rules are read where the schema can be trusted, and not again when nothing of it changed.
    if schema.found() == before && schema.value() != old {
        rules::check(schema);
    }
}

/// Of `metadata` only rules for its name may be given.
fn metadata(schema: &Field<'_>) {
    let properties = schema.at("properties");
    let metadata = properties.key("metadata");
    let fields = metadata.value().as_object();
    let plain = fields.into_iter().flatten().all(|(name, value)| match name.as_str() {
        "type" | "description" => true,
        "properties" => value.as_object().is_some_and(|inner| inner.keys().all(|k| matches!(k.as_str(), "name" | "generateName"))),
        _ => false,
    });
    if metadata.exists() && !plain {
        metadata.forbidden("must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
}

fn node(schema: &Field<'_>, depth: usize, root: bool) {
    if depth > MAX_DEPTH {
        schema.forbidden("too deep");
        return;
    }
    let value = schema.value();
    let flag = |name: &str| value[name] == true;
    let (kind, int_or_string) = (schema.at("type"), flag("x-kubernetes-int-or-string"));
    if !kind.is_empty() {
        kind.one_of(&TYPES);
        if int_or_string {
            kind.invalid("must be empty if x-kubernetes-int-or-string is true");
        }
    } else if !int_or_string && (root || !flag("x-kubernetes-preserve-unknown-fields")) {
        kind.required("must not be empty");
    }
    for name in FORBIDDEN {
        if !schema.at(name).is_empty() {
            schema.at(name).forbidden("is not supported");
        }
    }
    if flag("uniqueItems") {
        schema.at("uniqueItems").forbidden("cannot be true: it would cost too much");
    }
    let (additional, properties, items) = (schema.at("additionalProperties"), schema.at("properties"), schema.at("items"));
    if additional.exists() && !root {
        if !properties.is_empty() {
            additional.forbidden("additionalProperties and properties are mutual exclusive");
        }
        if *additional.value() == false {
            additional.forbidden("additionalProperties cannot be set to false");
        }
    }
    if items.value().is_array() {
        items.forbidden("must be a schema: a list of schemas is not supported");
    } else if kind.text() == "array" && !items.exists() {
        items.required("must be specified");
    }
    if flag("x-kubernetes-embedded-resource") {
        if kind.text() != "object" {
            kind.invalid("must be object if x-kubernetes-embedded-resource is true");
        }
        if properties.is_empty() && !flag("x-kubernetes-preserve-unknown-fields") {
            properties.required("must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
        }
        metadata(schema);
    }
    if value["x-kubernetes-preserve-unknown-fields"] == false {
        schema.at("x-kubernetes-preserve-unknown-fields").invalid("must be true or undefined");
    }
    let text = schema.at("pattern");
    if let Err(error) = pattern(text.text()) {
        text.invalid(&error.to_string());
    }
    list_type(schema);
    map_type(schema);
    default(schema);
    logic(schema, depth);
    properties.each_key(|name, inner| {
        if !(name == "metadata" && (root || flag("x-kubernetes-embedded-resource"))) {
            node(&inner, depth + 1, false);
        }
    });
    if items.value().is_object() {
        node(&items, depth + 1, false);
    }
    if additional.value().is_object() {
        node(&additional, depth + 1, false);
    }
}

fn list_type(schema: &Field<'_>) {
    let (list_type, keys, kind) = (schema.at("x-kubernetes-list-type"), schema.at("x-kubernetes-list-map-keys"), schema.at("type"));
    if list_type.exists() {
        must_be(&kind, "array");
        list_type.one_of(&["atomic", "map", "set"]);
    }
    let items = schema.at("items");
    if !keys.is_empty() && list_type.text() != "map" {
        if list_type.exists() {
            list_type.invalid("must be map if x-kubernetes-list-map-keys is non-empty");
        } else {
            list_type.required("must be map if x-kubernetes-list-map-keys is non-empty");
        }
    }
    match list_type.text() {
        "set" if items.at("nullable").is_true() => items.at("nullable").forbidden("cannot be nullable when x-kubernetes-list-type is set"),
        "set" if items.at("type").text() == "object" && items.at("x-kubernetes-map-type").text() != "atomic" => {
            items.at("x-kubernetes-map-type").invalid("must be atomic as items of object type in a set list");
        }
        "set" if items.at("type").text() == "array" && !matches!(items.at("x-kubernetes-list-type").text(), "" | "atomic") => {
            items.at("x-kubernetes-list-type").invalid("must be atomic as items of array type in a set list");
        }
        "map" => {
            if keys.is_empty() {
                keys.required("must not be empty if x-kubernetes-list-type is map");
            }
            if items.exists() { list_map(&items, &keys) } else { items.required("must have a schema if x-kubernetes-list-type is map") }
        }
        _ => {}
    }
}

fn list_map(items: &Field<'_>, keys: &Field<'_>) {
    if items.at("type").text() != "object" {
        items.at("type").invalid("must be object if parent array's x-kubernetes-list-type is map");
    }
    if items.at("nullable").is_true() {
        items.at("nullable").forbidden("cannot be nullable when x-kubernetes-list-type is map");
    }
    let list = keys.list();
    let doubled = doubles(list);
    let properties = items.at("properties");
    for (i, key) in list.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        if doubled[i] {
            keys.holding(key).duplicate();
            continue;
        }
        if properties.value().get(name).is_none() {
            keys.holding(key).invalid("entries must all be names of item properties");
            continue;
        }
        let property = properties.key(name);
        if matches!(property.at("type").text(), "array" | "object") {
            property.at("type").invalid("must be a scalar type if parent array's x-kubernetes-list-type is map");
        }
        if property.at("nullable").is_true() {
            property.at("nullable").forbidden("this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
        }
        let required = items.value()["required"].as_array().is_some_and(|r| r.contains(key));
        if !required && !property.at("default").exists() {
            property
                .at("default")
                .required("this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
        }
    }
}

fn map_type(schema: &Field<'_>) {
    let map_type = schema.at("x-kubernetes-map-type");
    if map_type.exists() {
        must_be(&schema.at("type"), "object");
        map_type.one_of(&["atomic", "granular"]);
    }
}

fn must_be(kind: &Field<'_>, wanted: &str) {
    if kind.is_empty() {
        kind.required(&format!("must be {wanted}"));
    } else if kind.text() != wanted {
        kind.invalid(&format!("must be {wanted}"));
    }
}

/// A default is a value that the schema takes, and takes whole.
fn default(schema: &Field<'_>) {
    let default = schema.at("default");
    if !default.exists() {
        return;
    }
    let mut source = schema.value().clone();
    source["default"] = Value::Null;
    let read = custom::value_schema(&source);
    let mut pruned = default.value().clone();
    match structural::prune(&read, &mut pruned) {
        Err(error) => default.invalid(&error.to_string()),
        Ok(unknown) if !unknown.is_empty() => default.invalid(&format!("has fields that the schema does not know: {}", unknown.join(", "))),
        Ok(_) => {
            crate::defaulting::apply_schema(&read, &mut pruned);
            if !holds(&Checks::read(&source), &pruned) {
                default.invalid("is not valid by the schema that it is a default of");
            }
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`: rules about values that are already there.
fn logic(schema: &Field<'_>, depth: usize) {
    let int_or_string = schema.value()["x-kubernetes-int-or-string"] == true;
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.at(name).each(|_, inner| judged(&inner, schema.value(), depth + 1, int_or_string));
    }
    if schema.at("not").exists() {
        judged(&schema.at("not"), schema.value(), depth + 1, false);
    }
}

fn judged(rule: &Field<'_>, around: &Value, depth: usize, types: bool) {
    if depth > MAX_DEPTH {
        rule.forbidden("too deep");
        return;
    }
    for name in STRUCTURE {
        let field = rule.at(name);
        if field.exists() && !matches!(field.value(), Value::Bool(false)) && !field.is_empty() {
            field.forbidden("must be undefined to be structural");
        }
    }
    if !types && !rule.at("type").is_empty() {
        rule.at("type").forbidden("must be empty to be structural");
    }
    let text = rule.at("pattern");
    if let Err(error) = pattern(text.text()) {
        text.invalid(&error.to_string());
    }
    rule.at("properties").each_key(|name, inner| {
        let outer = around["properties"].get(name).unwrap_or(&around["additionalProperties"]);
        judged(&inner, outer, depth + 1, false);
    });
    if rule.at("items").value().is_object() {
        judged(&rule.at("items"), &around["items"], depth + 1, false);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        rule.at(name).each(|_, inner| judged(&inner, around, depth + 1, types));
    }
    if rule.at("not").exists() {
        judged(&rule.at("not"), around, depth + 1, false);
    }
}
