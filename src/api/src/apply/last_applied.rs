//! The move from kubectl's client-side apply: its annotation says what it applied.

use serde_json::{Map, Value};

use super::{check::check, collect::collect, compare::compare, fields::FieldSet};
use crate::schema::Schema;

/// The one manager that the annotation is honoured for; others never had it.
pub(super) const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps its last configuration.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes of all annotations of an object. Upstream's bound.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// The fields that were applied and still have the value that was applied.
pub(super) fn owned(schema: &Schema, live: &Value, api_version: &str) -> Option<FieldSet> {
    let text = live["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"] != api_version || !check(schema, &last).is_empty() {
        return None;
    }
    let differences = compare(schema, &last, live);
    Some(collect(schema, &last).difference(&differences.changed()).difference(&differences.removed))
}

/// Makes the annotation tell what is applied now, where there is one.
pub(super) fn renew(object: &mut Value, config: &Value) {
    let Some(annotations) = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(ANNOTATION).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.get_mut("metadata").and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut) {
        own.remove(ANNOTATION);
    }
    annotations.insert(ANNOTATION.to_owned(), escaped(&config.to_string()).into());
    if size(annotations) > MAX_ANNOTATION_BYTES {
        annotations.remove(ANNOTATION);
    }
}

fn size(annotations: &Map<String, Value>) -> usize {
    annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}

/// As Go writes JSON, which kubectl compares byte by byte, with a newline at the end.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out.push('\n');
    out
}
