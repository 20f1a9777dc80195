//! The metadata of objects, read and set.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A point in time as `metav1.Time` writes it.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A string under `metadata`; `""` when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata`, made when it is not there.
pub fn of(object: &mut Value) -> &mut Map<String, Value> {
    map(object, "metadata")
}

/// A field that is an object, made when it is none; `object` itself must be one (canonical form sees to that).
pub fn map<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    map_of(map_of(object).entry(field).or_insert(Value::Null))
}

/// Sets a field or, with `None`, removes it.
pub fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(map.insert(field.to_owned(), value)),
        None => drop(map.remove(field)),
    }
}

/// Makes `field` of `to` what it is in `from`.
pub fn keep(to: &mut Value, from: &Value, field: &str) {
    let value = from.get(field).cloned();
    if let Value::Object(map) = to {
        put(map, field, value);
    }
}

/// `metadata.generation`; 0 when absent.
pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// Whether `metadata.deletionTimestamp` is set.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<String> {
    let list = object["metadata"]["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Sets `metadata.finalizers`.
pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let value = (!finalizers.is_empty()).then(|| finalizers.iter().map(|f| Value::from(f.as_str())).collect());
    put(of(object), "finalizers", value);
}

/// What the system fills in for a new object.
pub fn fill(object: &mut Value, uid: String, now: Timestamp) {
    let metadata = of(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time(now).into());
}

/// Takes off owners that are told twice in the same words; the uids of these.
pub fn single_owners(object: &mut Value) -> Vec<String> {
    let mut doubled = Vec::new();
    if let Some(owners) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) {
        let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
        for owner in owners.drain(..) {
            if kept.contains(&owner) {
                doubled.push(owner["uid"].as_str().unwrap_or_default().to_owned());
            } else {
                kept.push(owner);
            }
        }
        *owners = kept;
    }
    doubled
}

/// What an update cannot change, whatever it says.
pub fn carry_over(new: &mut Value, old: &Value) {
    let metadata = of(new);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        put(metadata, field, old["metadata"].get(field).cloned());
    }
    metadata.remove("selfLink");
    metadata.remove("resourceVersion");
}

/// The object's own fields.
pub fn map_of(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(map) => map,
        // Was made one above.
        _ => unreachable!("an object"),
    }
}
