//! Namespaces, Secrets, definitions and API services.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::custom::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta;

/// The label that every namespace carries.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace is Active, held by the finalizer `kubernetes`, and labelled with its name.
pub fn prepare_namespace(namespace: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            namespace["status"] = json!({"phase": "Active"});
            let finalizers = meta::map(namespace, "spec").entry("finalizers").or_insert(Value::Null);
            match finalizers {
                Value::Array(list) if list.iter().any(|f| f == "kubernetes") => {}
                Value::Array(list) => list.push("kubernetes".into()),
                other => *other = json!(["kubernetes"]),
            }
        }
        // Only its own subresource changes what holds it.
        Some(old) => meta::put(meta::map(namespace, "spec"), "finalizers", old["spec"].get("finalizers").cloned()),
    }
    let name = meta::text(namespace, "name").to_owned();
    if !name.is_empty() {
        meta::map(&mut namespace["metadata"], "labels").insert(NAME_LABEL.into(), name.into());
    }
}

/// `stringData` is for writing only: it goes over `data`.
pub fn prepare_secret(secret: &mut Value) {
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    let data = meta::map(secret, "data");
    for (key, value) in plain {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
    }
}

/// A definition is born with the versions that are stored, and names that nobody has accepted yet.
pub fn prepare_definition(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<Value> = versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    definition["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
}

/// A version in which objects are stored is remembered until somebody says that none is left.
pub fn remember_storage(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).find(Value::is_string);
    let Some(storage) = storage else { return };
    match meta::map(definition, "status").entry("storedVersions").or_insert(Value::Null) {
        Value::Array(stored) if stored.contains(&storage) => {}
        Value::Array(stored) => stored.push(storage),
        other => *other = json!([storage]),
    }
}

/// A deleted definition says that what it defines will go.
pub fn end_definition(definition: &mut Value, now: Timestamp) {
    const WHY: &str = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let mut conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    names::set(&mut conditions, "Terminating", true, "InstanceDeletionPending", WHY, now);
    meta::map(definition, "status").insert("conditions".into(), conditions.into());
}

/// An API service that this server answers itself is available at once.
pub fn prepare_api_service(service: &mut Value, now: Timestamp) {
    if service["spec"]["service"].is_object() {
        return;
    }
    service["status"] = json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available", "lastTransitionTime": meta::time(now)}]});
}

/// A field of the beta API that v1 only shows where it is stored, and never takes.
pub fn drop_topology(slice: &mut Value) {
    let endpoints = slice.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        endpoint.remove("deprecatedTopology");
    }
}
