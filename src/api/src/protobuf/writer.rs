//! Values to protobuf. What is absent is not written: the reader's zero says the same.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::layout::{Layout, Slot};
use crate::schema::{Schema, Type};
use crate::structural::parse_duration;

pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(number: u32, wire: u64, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | wire, out);
}

pub(crate) fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    tag(number, 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn integer(number: u32, value: i64, out: &mut Vec<u8>) {
    tag(number, 0, out);
    varint(value as u64, out);
}

/// A field whose length is known only after its content is written.
pub(crate) fn delimited(number: u32, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    tag(number, 2, out);
    let start = out.len();
    content(out);
    let length = out.len() - start;
    varint(length as u64, out);
    let prefix = out.len() - start - length;
    out[start..].rotate_right(prefix);
}

pub(super) fn message(schema: &Schema, fields: &Map<String, Value>, out: &mut Vec<u8>) {
    laid_out(schema, schema.layout(), fields, out);
}

fn laid_out(schema: &Schema, layout: &Layout, fields: &Map<String, Value>, out: &mut Vec<u8>) {
    for (number, slot) in &layout.slots {
        match slot {
            Slot::Member(index) => {
                let property = &schema.properties()[*index];
                if let Some(value) = fields.get(&*property.name) {
                    field(property.schema(), *number, value, out);
                }
            }
            Slot::Inlined(inner) => {
                let before = out.len();
                delimited(*number, out, |out| laid_out(schema, inner, fields, out));
                if out.last() == Some(&0) && out.len() - before <= 3 {
                    out.truncate(before); // nothing in it
                }
            }
        }
    }
}

fn field(schema: &Schema, number: u32, value: &Value, out: &mut Vec<u8>) {
    match (schema.kind, value) {
        (_, Value::Null) => {}
        (Type::List, Value::Array(list)) => {
            let Some(items) = schema.items() else { return };
            let all = |number: u32, out: &mut Vec<u8>| list.iter().for_each(|value| field(items, number, value, out));
            if schema.is_named_list() { delimited(number, out, |out| all(1, out)) } else { all(number, out) }
        }
        (Type::Map, Value::Object(map)) => {
            let Some(values) = schema.items() else { return };
            for (key, value) in map {
                delimited(number, out, |out| {
                    bytes(1, key.as_bytes(), out);
                    field(values, 2, value, out);
                });
            }
        }
        (Type::Object, Value::Object(fields)) => delimited(number, out, |out| message(schema, fields, out)),
        (Type::Boolean, value) => integer(number, i64::from(value == true), out),
        (Type::Int32 | Type::Int64, value) => integer(number, value.as_i64().unwrap_or_default(), out),
        (Type::Number, value) => {
            tag(number, 1, out);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Type::String, Value::String(text)) => bytes(number, text.as_bytes(), out),
        (Type::Bytes, Value::String(text)) => bytes(number, &STANDARD.decode(text).unwrap_or_default(), out),
        (kind, value) => delimited(number, out, |out| special(kind, schema, value, out)),
    }
}

/// Types that are one value in JSON and a message in protobuf.
fn special(kind: Type, schema: &Schema, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let Ok(time) = text.parse::<Timestamp>() else { return };
            // Nanoseconds count upwards from the second, also before 1970.
            let nanos = time.as_nanosecond();
            integer(1, nanos.div_euclid(1_000_000_000) as i64, out);
            integer(2, nanos.rem_euclid(1_000_000_000) as i64, out);
        }
        (Type::Duration, Value::String(text)) => integer(1, parse_duration(text).unwrap_or_default(), out),
        (Type::Quantity, Value::String(text)) => bytes(1, text.as_bytes(), out),
        (Type::IntOrString, Value::String(text)) => {
            integer(1, 1, out);
            integer(2, 0, out);
            bytes(3, text.as_bytes(), out);
        }
        (Type::IntOrString, value) => {
            integer(1, 0, out);
            integer(2, value.as_i64().unwrap_or_default(), out);
            bytes(3, b"", out);
        }
        (Type::SchemaOrBool, Value::Bool(allowed)) => integer(1, i64::from(*allowed), out),
        (Type::SchemaOrBool, Value::Object(fields)) => {
            integer(1, 1, out);
            inner(schema, 2, fields, out);
        }
        (Type::SchemaOrList | Type::SchemaOrNames, Value::Object(fields)) => inner(schema, 1, fields, out),
        (Type::SchemaOrList, Value::Array(list)) => {
            list.iter().filter_map(Value::as_object).for_each(|fields| inner(schema, 2, fields, out));
        }
        (Type::SchemaOrNames, Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).for_each(|name| bytes(2, name.as_bytes(), out));
        }
        (Type::Any, value) => bytes(1, value.to_string().as_bytes(), out),
        _ => {}
    }
}

fn inner(schema: &Schema, number: u32, fields: &Map<String, Value>, out: &mut Vec<u8>) {
    if let Some(inner) = schema.items() {
        delimited(number, out, |out| message(inner, fields, out));
    }
}
