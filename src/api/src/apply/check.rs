//! Whether a configuration fits its schema: server-side apply takes nothing that it cannot own.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::shape;
use crate::schema::{ListType, Schema, Type};

/// Problems that are told; more would only blow up the answer.
const MAX_PROBLEMS: usize = 20;

/// What is wrong with a configuration, each with its path; empty when nothing is.
pub(super) fn check(schema: &Schema, config: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    walk(schema, config, &mut String::new(), &mut problems);
    problems
}

fn walk(schema: &Schema, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    if problems.len() >= MAX_PROBLEMS {
        return;
    }
    let expected = match (schema.kind, value) {
        (_, Value::Null) => return,
        (Type::Object | Type::Map, Value::Object(map)) => {
            let length = path.len();
            for (name, value) in map {
                let _ = write!(path, ".{name}");
                if schema.kind == Type::Object && !schema.preserve_unknown && schema.field(name).is_none() {
                    problems.push(format!("{path}: field not declared in schema"));
                } else {
                    walk(shape::member(schema, name), value, path, problems);
                }
                path.truncate(length);
            }
            return;
        }
        (Type::List, Value::Array(list)) => return elements(schema, list, path, problems),
        (Type::Any | Type::SchemaOrList | Type::SchemaOrBool | Type::SchemaOrNames, _) => return,
        (Type::Object | Type::Map, _) => "map",
        (Type::List, _) => "list",
        (Type::Boolean, Value::Bool(_)) | (Type::String | Type::Bytes, Value::String(_)) => return,
        (Type::Int32 | Type::Int64 | Type::Number, Value::Number(_)) => return,
        (Type::Boolean, _) => "boolean",
        (Type::String | Type::Bytes, _) => "string",
        (Type::Int32 | Type::Int64 | Type::Number, _) => "numeric (int or float)",
        (_, Value::Bool(_) | Value::Number(_) | Value::String(_)) => return,
        _ => "any scalar",
    };
    problems.push(format!("{path}: expected {expected}, got {}", shown(value)));
}

fn elements(schema: &Schema, list: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut seen = HashSet::new();
    let length = path.len();
    for (i, value) in list.iter().enumerate() {
        let mut step = format!("[{i}]");
        if schema.list_type != ListType::Atomic {
            match shape::item(schema, value) {
                Ok(element) => {
                    step = element.to_string();
                    if !seen.insert(element) {
                        problems.push(format!("{path}: duplicate entries for key {step}"));
                    }
                }
                Err(why) => {
                    problems.push(format!("{path}: element {i}: {why}"));
                    return;
                }
            }
        }
        path.push_str(&step);
        walk(shape::element(schema), value, path, problems);
        path.truncate(length);
    }
}

/// Characters of a value that a message shows.
const MAX_SHOWN_CHARS: usize = 60;

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "map".into(),
        Value::Array(_) => "list".into(),
        scalar => scalar.to_string().chars().take(MAX_SHOWN_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::builtin;

    #[test]
    fn a_configuration_must_fit() {
        let schema = &builtin().resource("apps", "v1", "deployments").unwrap().schema;
        for (spec, wrong) in [
            (json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}}}), None),
            (json!({"replicas": null, "selector": null, "template": null}), None),
            (json!({"foo": 1}), Some(".spec.foo: field not declared in schema")),
            (json!({"replicas": "1"}), Some(".spec.replicas: expected numeric (int or float), got \"1\"")),
            (json!({"template": []}), Some(".spec.template: expected map, got list")),
            (
                json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}),
                Some(".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
            ),
            (
                json!({"template": {"spec": {"containers": [{"name": "a", "imagee": "x"}]}}}),
                Some(".spec.template.spec.containers[name=\"a\"].imagee: field not declared in schema"),
            ),
            (
                json!({"template": {"spec": {"containers": [{"image": "x"}]}}}),
                Some(".spec.template.spec.containers: element 0: an element has none of the key fields [\"name\"]"),
            ),
        ] {
            let problems = check(schema, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}));
            assert_eq!(problems.first().map(String::as_str), wrong, "{spec}");
        }
    }
}
