//! Defaults: what Kubernetes fills in where a request says nothing.

mod pods;
mod procedures;
mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::catalogue::Resource;
use crate::decode::bytes_of;
use crate::quantity::Quantity;
use crate::schema::{Schema, Type};

/// An object's members.
type Fields = Map<String, Value>;

/// Fills in what is missing in a canonical object of this resource; idempotent. Upstream does it whenever it reads an object, also after its
/// strategies have changed one: so does the registry before it stores.
pub fn apply(resource: &Resource, object: &mut Value) {
    apply_schema(&resource.schema, object);
}

/// As [`apply`], for a body that has no resource of its own.
pub fn apply_schema(schema: &Schema, object: &mut Value) {
    walk(schema, object, &mut { MAX_DEFAULTS_BYTES });
}

/// Bytes of defaults that a definition may put into one object. One default in the elements of a long list could otherwise fill all memory;
/// an object that has been given so much, or all but one default, is larger than the store takes, and is refused there.
const MAX_DEFAULTS_BYTES: usize = 8 << 20;

/// What is filled in by looking at other fields.
type Procedure = fn(&mut Fields);

/// What is filled into a message: plain values first, then what needs a look at its other fields.
#[derive(Default)]
struct Rule {
    values: Vec<(&'static str, Value)>,
    procedure: Option<Procedure>,
}

fn rules() -> &'static HashMap<&'static str, Rule> {
    static RULES: OnceLock<HashMap<&'static str, Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let mut rules: HashMap<&str, Rule> = HashMap::new();
        for (messages, field, value) in table::VALUES {
            let value: Value = serde_json::from_str(value).unwrap_or_default();
            for message in messages.split(' ') {
                rules.entry(message).or_default().values.push((field, value.clone()));
            }
        }
        for (message, procedure) in pods::PROCEDURES.iter().chain(procedures::PROCEDURES) {
            rules.entry(message).or_default().procedure = Some(*procedure);
        }
        rules
    })
}

fn walk(schema: &Schema, value: &mut Value, room: &mut usize) {
    match (schema.kind, value) {
        (Type::Object, Value::Object(fields)) => {
            if let Some(rule) = rules().get(&*schema.message) {
                for (name, value) in &rule.values {
                    let pointer = schema.field(name).is_some_and(|p| p.pointer);
                    if fields.get(*name).is_none_or(|v| v.is_null() || (!pointer && is_zero(v))) {
                        fields.insert((*name).to_owned(), value.clone());
                    }
                }
                if let Some(procedure) = rule.procedure {
                    procedure(fields);
                }
            }
            for property in schema.properties() {
                if let Some(default) = &property.schema().default
                    && !fields.contains_key(&*property.name)
                    && let Some(left) = room.checked_sub(property.name.len() + bytes_of(default))
                {
                    *room = left;
                    fields.insert(property.name.to_string(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(property) = schema.field(name) {
                    walk(property.schema(), value, room);
                }
            }
        }
        (Type::Map, Value::Object(fields)) => {
            let Some(values) = schema.items() else { return };
            match values.kind {
                Type::Quantity => fields.values_mut().for_each(round_up_to_milli),
                Type::Object | Type::Map | Type::List => fields.values_mut().for_each(|value| walk(values, value, room)),
                _ => {}
            }
        }
        (Type::List, Value::Array(list)) => {
            let Some(items) = schema.items() else { return };
            list.iter_mut().for_each(|value| walk(items, value, room));
        }
        _ => {}
    }
}

/// Resource lists know no less than a thousandth.
fn round_up_to_milli(value: &mut Value) {
    let Some(text) = value.as_str().filter(|text| text.ends_with(['n', 'u']) || text.contains("e-")) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        *value = Quantity::from_millis(quantity.millis()).to_string().into();
    }
}

/// Absent, null or the empty text that Go cannot tell from absent.
fn is_unset(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_none_or(|value| value.is_null() || value == "")
}

/// What Go cannot tell from absent where there is no pointer.
fn is_zero(value: &Value) -> bool {
    value == "" || value.as_i64() == Some(0) || value == false
}

fn set(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if is_unset(fields, name) {
        fields.insert(name.to_owned(), value.into());
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn object<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields.get_mut(name).and_then(Value::as_object_mut)
}

/// The object at `name`, made when absent.
fn object_or_new<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), Value::Object(Fields::new()));
    }
    object(fields, name)
}

fn has_members(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
