//! Validation: what must hold of an object, with field and reason for each thing that does not.

use serde_json::Value;

use crate::catalogue::Resource;
use crate::status::Cause;

/// What is wrong with a new object (after defaulting); empty when it may be created.
pub fn create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let _ = (resource, object);
    Vec::new()
}

/// What is wrong with an object that takes the place of `old`; `subresource` is empty for the main resource.
pub fn update(resource: &Resource, new: &Value, old: &Value, subresource: &str) -> Vec<Cause> {
    let _ = (resource, new, old, subresource);
    Vec::new()
}
