//! A value brought into the form that its schema has: unknown fields dropped, types checked, zeros as Go writes them.

mod scalar;

use serde_json::{Map, Value};

use crate::decode::{DecodeError, MAX_DEPTH, MAX_REPORTED_FIELDS, Path};
use crate::schema::{Property, Schema, Type};

pub(crate) use scalar::{format_duration, format_time, parse_duration};

/// Makes `value` canonical. Returns the paths of what the schema does not know (`spec.foo`), also in case only, which are gone from `value`.
/// A value of a wrong type is an error.
pub fn prune(schema: &Schema, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut unknown = Vec::new();
    canonical(schema, value, Path::Root, &mut unknown)?;
    Ok(unknown)
}

/// The value of a Go struct, list or scalar that nobody set.
pub fn zero(schema: &Schema) -> Value {
    match schema.kind {
        Type::Boolean => false.into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::String => "".into(),
        Type::Quantity => "0".into(),
        Type::Duration => "0s".into(),
        Type::Object => Value::Object(schema.written().map(|p| (p.name.to_string(), absent(p))).collect()),
        Type::Any
        | Type::Bytes
        | Type::Time
        | Type::MicroTime
        | Type::Map
        | Type::List
        | Type::SchemaOrList
        | Type::SchemaOrBool
        | Type::SchemaOrNames => Value::Null,
    }
}

/// What Go writes for a property that nobody set but that is always written.
fn absent(property: &Property) -> Value {
    if property.pointer { Value::Null } else { zero(property.schema()) }
}

fn canonical(schema: &Schema, value: &mut Value, path: Path<'_>, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    if value.is_null() {
        if !schema.nullable && !schema.custom {
            *value = zero(schema);
        }
        return Ok(());
    }
    let wrong = |expected, value: &Value| Err(wrong_type(path, expected, value));
    match (schema.kind, &mut *value) {
        _ if path.depth() > MAX_DEPTH => Err(DecodeError::TooDeep { limit: MAX_DEPTH }),
        (Type::Any, _) => Ok(()),
        (Type::Object, Value::Object(fields)) => object(schema, fields, path, unknown),
        (Type::Map, Value::Object(fields)) => {
            let Some(values) = schema.items() else { return Ok(()) };
            if schema.custom && !values.nullable && values.kind != Type::Any {
                fields.retain(|_, value| !value.is_null());
            }
            fields.iter_mut().try_for_each(|(key, value)| {
                canonical(values, value, path.member(key), unknown)?;
                // Storage does not know the difference between no bytes and none.
                if value.is_null() && values.kind == Type::Bytes {
                    *value = "".into();
                }
                Ok(())
            })
        }
        (Type::List, Value::Array(list)) => {
            let Some(items) = schema.items() else { return Ok(()) };
            list.iter_mut().enumerate().try_for_each(|(i, value)| canonical(items, value, path.element(i), unknown))
        }
        (Type::SchemaOrBool, Value::Bool(_)) => Ok(()),
        (Type::SchemaOrList, Value::Array(list)) => {
            let Some(items) = schema.items() else { return Ok(()) };
            list.iter_mut().enumerate().try_for_each(|(i, value)| canonical(items, value, path.element(i), unknown))
        }
        (Type::SchemaOrNames, Value::Array(list)) => match list.iter().find(|name| !name.is_string()) {
            Some(other) => wrong("a list of names", other),
            None => Ok(()),
        },
        (Type::SchemaOrBool | Type::SchemaOrList | Type::SchemaOrNames, Value::Object(_)) => match schema.items() {
            // Upstream's strict decoding does not look inside of these.
            Some(inner) => canonical(inner, value, path, &mut Vec::new()),
            None => Ok(()),
        },
        _ if schema.custom => Ok(()), // of a custom resource: validation tells, not decoding
        (Type::Object | Type::Map, value) => wrong("an object", value),
        (Type::List, value) => wrong("a list", value),
        (Type::SchemaOrBool, value) => wrong("a schema or a boolean", value),
        (Type::SchemaOrList, value) => wrong("a schema or a list of schemas", value),
        (Type::SchemaOrNames, value) => wrong("a schema or a list of names", value),
        (kind, value) => scalar::canonical(kind, value).map_err(|expected| wrong_type(path, expected, value)),
    }
}

fn wrong_type(path: Path<'_>, expected: &'static str, value: &Value) -> DecodeError {
    let found = match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        scalar => {
            let text = scalar.to_string();
            if text.len() <= 60 { text } else { format!("{}...", text.chars().take(57).collect::<String>()) }
        }
    };
    DecodeError::WrongType { path: path.to_string(), expected, found }
}

fn object(schema: &Schema, fields: &mut Map<String, Value>, path: Path<'_>, unknown: &mut Vec<String>) -> Result<(), DecodeError> {
    let mut strays = Vec::new();
    let mut drops = false;
    for (name, value) in fields.iter_mut() {
        match schema.field(name) {
            Some(property) => {
                if value.is_null() {
                    if !property.schema().nullable && property.always_written() {
                        *value = absent(property);
                    }
                    drops |= !kept(property, value);
                } else {
                    canonical(property.schema(), value, path.member(name), unknown)?;
                    let is_list = property.schema().kind == Type::List;
                    if is_list && !property.omit_empty && !schema.custom && value.as_array().is_some_and(Vec::is_empty) {
                        *value = Value::Null; // Go's conversions lose the difference
                    }
                    drops |= !kept(property, value);
                }
            }
            None if !schema.preserve_unknown => strays.push(name.clone()),
            None => {}
        }
    }
    for name in strays {
        if unknown.len() < MAX_REPORTED_FIELDS {
            unknown.push(path.member(&name).to_string());
        }
        fields.remove(&name);
    }
    if drops {
        fields.retain(|name, value| schema.field(name).is_none_or(|property| kept(property, value)));
    }
    for property in schema.written() {
        if !fields.contains_key(&*property.name) {
            fields.insert(property.name.to_string(), absent(property));
        }
    }
    Ok(())
}

/// Whether Go would write this (canonical) value of the property.
fn kept(property: &Property, value: &Value) -> bool {
    match value {
        Value::Null => property.schema().nullable || property.always_written(),
        _ if property.pointer || !property.omit_empty => true,
        Value::Bool(set) => *set || property.schema().is_struct(),
        Value::Number(number) => number.as_f64() != Some(0.0) || property.schema().is_struct(),
        Value::String(text) => !text.is_empty() || property.schema().is_struct(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty() || (property.schema().is_struct() && !property.omit_zero),
    }
}

#[cfg(test)]
mod tests;
