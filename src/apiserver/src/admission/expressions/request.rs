//! The variable `request`: an AdmissionRequest (admission.k8s.io/v1) without the objects.

use coracle_api::catalogue::Resource;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};

/// Of a write that was matched as this resource.
pub fn of(write: &Attributes<'_>, matched: &Resource) -> Value {
    let info = write.info;
    let kind = |resource: &Resource| match resource.subresource(&info.subresource) {
        // A subresource may have a kind of its own: `deployments/scale` is a Scale.
        Some(sub) => json!({"group": sub.group, "version": sub.version, "kind": sub.kind}),
        None => json!({"group": resource.group, "version": resource.version, "kind": resource.kind}),
    };
    let place = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let asked = write.resource;
    let mut request = json!({
        "kind": kind(matched),
        "resource": place(matched),
        "requestKind": kind(asked),
        "requestResource": place(asked),
        "operation": word(write.operation),
        "userInfo": write.user,
        "dryRun": write.dry_run,
    });
    if let Some(options) = write.asked.options(write.operation) {
        request["options"] = options;
    }
    let texts = [
        ("subResource", &info.subresource),
        ("requestSubResource", &info.subresource),
        ("name", &info.name),
        ("namespace", &info.namespace),
    ];
    for (field, text) in texts {
        if !text.is_empty() {
            request[field] = text.as_str().into();
        }
    }
    request
}

/// `CREATE`, ...
pub fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}
