//! `as=Table`: the cells that `kubectl get` prints.

mod custom;
mod kinds;
mod pod;
mod text;
mod workloads;

use std::collections::HashMap;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::catalogue::{Column, Resource};

/// Headings.
pub fn columns(resource: &Resource) -> &[Column] {
    &resource.columns
}

/// The cells of one object, one for each column.
pub fn row(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let seen = Seen { object, now };
    let mut cells = match (resource.custom, printers().get(&(resource.group.as_str(), resource.plural.as_str()))) {
        (true, _) => custom::cells(&resource.columns, &seen),
        (false, Some(print)) => print(&seen),
        (false, None) => vec![seen.name(), seen.created()],
    };
    cells.resize(resource.columns.len(), Value::Null);
    cells
}

/// One object, looked at now.
struct Seen<'a> {
    object: &'a Value,
    now: Timestamp,
}

type Print = fn(&Seen<'_>) -> Vec<Value>;

fn printers() -> &'static HashMap<(&'static str, &'static str), Print> {
    static PRINTERS: OnceLock<HashMap<(&str, &str), Print>> = OnceLock::new();
    PRINTERS.get_or_init(|| {
        kinds::PRINTERS.iter().chain(workloads::PRINTERS).map(|(group, plural, print)| ((*group, *plural), *print)).collect()
    })
}

impl<'a> Seen<'a> {
    /// The value at a pointer.
    fn at(&self, pointer: &str) -> Option<&'a Value> {
        self.object.pointer(pointer).filter(|value| !value.is_null())
    }

    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn text_or(&self, pointer: &str, otherwise: &str) -> Value {
        match self.text(pointer) {
            "" => otherwise.into(),
            text => text.into(),
        }
    }

    fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).and_then(Value::as_i64).unwrap_or_default()
    }

    fn flag(&self, pointer: &str) -> bool {
        self.at(pointer).and_then(Value::as_bool).unwrap_or_default()
    }

    fn list(&self, pointer: &str) -> &'a [Value] {
        self.at(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn len(&self, pointer: &str) -> usize {
        match self.at(pointer) {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    fn name(&self) -> Value {
        self.text("/metadata/name").into()
    }

    fn created(&self) -> Value {
        self.at("/metadata/creationTimestamp").cloned().unwrap_or_default()
    }

    fn age(&self) -> Value {
        self.since("/metadata/creationTimestamp").unwrap_or_else(|| "<unknown>".into()).into()
    }

    /// How long ago the time at a pointer was.
    fn since(&self, pointer: &str) -> Option<String> {
        text::since(self.text(pointer), self.now)
    }

    fn is_terminating(&self) -> bool {
        self.at("/metadata/deletionTimestamp").is_some()
    }

    /// Status of the condition of a type.
    fn condition(&self, kind: &str) -> Option<&'a Value> {
        self.list("/status/conditions").iter().find(|c| c["type"] == kind)
    }
}

#[cfg(test)]
mod tests;
