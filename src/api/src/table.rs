//! `as=Table`: the cells that `kubectl get` prints.

use jiff::Timestamp;
use serde_json::Value;

use crate::catalogue::{Column, Resource};

/// Headings.
pub fn columns(resource: &Resource) -> &[Column] {
    &resource.columns
}

/// The cells of one object, one for each column.
pub fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let _ = (object, now);
    vec![Value::Null; resource.columns.len()]
}
