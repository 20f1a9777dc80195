//! A configuration laid over an object that nobody owns: how mutating admission policies apply theirs.

use serde_json::Value;

use super::{
    check, merge,
    shape::{self, Shape},
};
use crate::schema::{ListType, Schema, Type};

/// Why a configuration cannot be laid over an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// It does not fit the schema.
    #[error("failed to convert patch object to typed object: {}", .0.join(", "))]
    Misfit(Vec<String>),
    /// It would take away what it does not name.
    #[error("may not mutate atomic arrays, maps or structs: {}", .0.join(", "))]
    Atomic(Vec<String>),
}

/// The object with what the configuration says; nothing is taken away from it.
pub fn overlay(schema: &Schema, object: &Value, config: &Value) -> Result<Value, OverlayError> {
    let misfits = check::check(schema, config);
    if !misfits.is_empty() {
        return Err(OverlayError::Misfit(misfits));
    }
    let mut atomics = Vec::new();
    find_atomics(schema, config, &mut String::new(), &mut atomics);
    if atomics.is_empty() { Ok(merge::merge(schema, object, config)) } else { Err(OverlayError::Atomic(atomics)) }
}

/// Lists and maps of the configuration that are replaced as a whole.
fn find_atomics(schema: &Schema, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            if shape::of(schema, value) == Shape::Leaf {
                found.push(path.clone());
            }
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                find_atomics(shape::member(schema, name), value, path, found);
                path.truncate(length);
            }
        }
        Value::Array(list) => {
            if schema.list_type == ListType::Atomic || schema.kind != Type::List {
                found.push(path.clone());
            }
            for (i, value) in list.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                find_atomics(shape::element(schema), value, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::builtin;

    fn laid(config: Value) -> Result<Value, OverlayError> {
        let schema = &builtin().kind("", "v1", "Pod").unwrap().schema;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["x"]}]}});
        overlay(schema, &pod, &config)
    }

    #[test]
    fn it_adds_and_replaces_but_takes_nothing() {
        let out = laid(json!({"metadata": {"labels": {"b": "2"}}, "spec": {"initContainers": [{"name": "new", "image": "j"}],
            "containers": [{"name": "c", "image": "k"}]}}))
        .unwrap();
        assert_eq!(out["metadata"], json!({"name": "p", "labels": {"a": "1", "b": "2"}}));
        assert_eq!(out["spec"]["containers"], json!([{"name": "c", "image": "k", "args": ["x"]}]));
        assert_eq!(out["spec"]["initContainers"][0]["name"], "new");
    }

    #[test]
    fn what_it_would_wipe_out_or_nobody_knows_is_refused() {
        let atomic = laid(json!({"spec": {"containers": [{"name": "c", "args": ["y"]}]}}));
        assert_eq!(atomic, Err(OverlayError::Atomic(vec![".spec.containers[0].args".into()])));
        assert!(matches!(laid(json!({"spec": {"nope": 1}})), Err(OverlayError::Misfit(_))));
        assert!(matches!(laid(json!({"spec": {"hostNetwork": "yes"}})), Err(OverlayError::Misfit(_))));
    }
}
