//! Objects as tables and as metadata only.

use coracle_api::{catalogue::Resource, table};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What a row of a table carries of its object (`?includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Of the query parameter; `None` for a word that is none.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or_default() {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object["metadata"]})
}

/// A table's headings.
pub fn headings(resource: &Resource) -> Value {
    let column = |c: &coracle_api::catalogue::Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    table::columns(resource).iter().map(column).collect()
}

/// A table's row.
pub fn row(resource: &Resource, object: &Value, version: &str, include: Include, now: Timestamp) -> Value {
    let held = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object, version),
        Include::Object => object.clone(),
    };
    json!({"cells": table::row(resource, object, now), "object": held})
}

/// A table around rows; `headings` are absent from all but the first event of a watch.
pub fn table(version: &str, metadata: Map<String, Value>, headings: Option<Value>, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": headings.unwrap_or(Value::Null), "rows": rows})
}
