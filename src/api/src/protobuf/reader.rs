//! Protobuf to values. What the schema does not know is skipped, as protobuf wants.

use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::layout::{Layout, Slot};
use crate::decode::{DecodeError, MAX_DEPTH, MAX_OBJECTS};
use crate::schema::{Schema, Type};
use crate::structural::{format_duration, format_time};

/// A field as it lies on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

fn broken(why: &str) -> DecodeError {
    DecodeError::Protobuf(why.into())
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| broken("a text is not UTF-8"))
}

fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, tail) = rest.split_first().ok_or_else(|| broken("it ends in a number"))?;
        *rest = tail;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken("a number is longer than 64 bits"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| broken("it ends in a field"))?;
    *rest = tail;
    Ok(head)
}

/// Calls `each` with every field of a message.
pub(super) fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u32, Wire<'a>) -> Result<(), DecodeError>) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n != 0).ok_or_else(|| broken("a field has no valid number"))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(take(&mut rest, 8)?.try_into().unwrap_or_default())),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| broken("a field is too long"))?;
                Wire::Bytes(take(&mut rest, length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(take(&mut rest, 4)?.try_into().unwrap_or_default())),
            _ => return Err(broken("a field has an unknown wire type")),
        };
        each(number, wire)?;
    }
    Ok(())
}

/// How deep a message lies, and how many there are.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    depth: usize,
    messages: &'a Cell<usize>,
}

impl<'a> Place<'a> {
    /// Of the whole body.
    pub(super) fn of(messages: &'a Cell<usize>) -> Self {
        Self { depth: 0, messages }
    }

    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn check(self) -> Result<(), DecodeError> {
        self.messages.set(self.messages.get() + 1);
        match (self.depth >= MAX_DEPTH, self.messages.get() > MAX_OBJECTS) {
            (true, _) => Err(DecodeError::TooDeep { limit: MAX_DEPTH }),
            (_, true) => Err(DecodeError::TooMany { limit: MAX_OBJECTS }),
            _ => Ok(()),
        }
    }
}

pub(super) fn message(schema: &Schema, body: &[u8], out: &mut Map<String, Value>, place: Place<'_>) -> Result<(), DecodeError> {
    laid_out(schema, schema.layout(), body, out, place)
}

fn laid_out(schema: &Schema, layout: &Layout, body: &[u8], out: &mut Map<String, Value>, place: Place<'_>) -> Result<(), DecodeError> {
    place.check()?;
    fields(body, |number, wire| match (layout.slot(number), wire) {
        (Some(Slot::Inlined(inner)), Wire::Bytes(body)) => laid_out(schema, inner, body, out, place.deeper()),
        (Some(Slot::Member(index)), wire) => {
            let property = &schema.properties()[*index];
            member(property.schema(), &property.name, wire, out, place)
        }
        _ => Ok(()),
    })
}

fn member(schema: &Schema, name: &str, wire: Wire<'_>, out: &mut Map<String, Value>, place: Place<'_>) -> Result<(), DecodeError> {
    match (schema.kind, wire) {
        (Type::List, wire) => {
            let Some(items) = schema.items() else { return Ok(()) };
            let list = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            if schema.is_named_list() {
                list.append(&mut named_list(items, wire, place)?);
            } else if let (Type::Boolean | Type::Int32 | Type::Int64, Wire::Bytes(mut packed)) = (items.kind, wire) {
                while !packed.is_empty() {
                    list.push(value(items, Wire::Varint(varint(&mut packed)?), place)?);
                }
            } else {
                list.push(value(items, wire, place)?);
            }
            Ok(())
        }
        (Type::Map, Wire::Bytes(entry)) => {
            let Some(values) = schema.items() else { return Ok(()) };
            let (mut key, mut content) = ("", None);
            fields(entry, |number, wire| {
                match (number, wire) {
                    (1, Wire::Bytes(name)) => key = text(name)?,
                    (2, wire) => {
                        content = Some(if values.is_named_list() {
                            named_list(items_of(values), wire, place)?.into()
                        } else {
                            value(values, wire, place)?
                        })
                    }
                    _ => {}
                }
                Ok(())
            })?;
            let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key.to_owned(), content.unwrap_or_else(|| crate::structural::zero(values)));
            }
            Ok(())
        }
        (_, wire) => {
            let value = value(schema, wire, place)?;
            out.insert(name.to_owned(), value);
            Ok(())
        }
    }
}

fn items_of(schema: &Schema) -> &Schema {
    schema.items().map_or(schema, |items| items)
}

/// A list that is a message of its own.
fn named_list(items: &Schema, wire: Wire<'_>, place: Place<'_>) -> Result<Vec<Value>, DecodeError> {
    let Wire::Bytes(body) = wire else { return Err(broken("a list is not a message")) };
    let mut list = Vec::new();
    fields(body, |number, wire| {
        if number == 1 {
            list.push(value(items, wire, place)?);
        }
        Ok(())
    })?;
    Ok(list)
}

fn value(schema: &Schema, wire: Wire<'_>, place: Place<'_>) -> Result<Value, DecodeError> {
    Ok(match (schema.kind, wire) {
        (Type::Boolean, Wire::Varint(n)) => (n != 0).into(),
        (Type::Int32 | Type::Int64, Wire::Varint(n)) => (n as i64).into(),
        (Type::Number, Wire::Fixed64(n)) => number(f64::from_bits(n))?,
        (Type::Number, Wire::Fixed32(n)) => number(f64::from(f32::from_bits(n)))?,
        (Type::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Object, Wire::Bytes(body)) => {
            let mut fields = Map::new();
            message(schema, body, &mut fields, place.deeper())?;
            fields.into()
        }
        (Type::Time | Type::MicroTime, Wire::Bytes(body)) => time(body, if schema.kind == Type::Time { 0 } else { 6 })?,
        (Type::Duration, Wire::Bytes(body)) => format_duration(numbers(body)?[1] as i64).into(),
        (Type::Quantity, Wire::Bytes(body)) => match part(body, 1)? {
            Some(bytes) if !bytes.is_empty() => text(bytes)?.into(),
            _ => "0".into(),
        },
        (Type::IntOrString, Wire::Bytes(body)) => {
            let numbers = numbers(body)?;
            if numbers[1] == 0 { (numbers[2] as i64).into() } else { text(part(body, 3)?.unwrap_or_default())?.into() }
        }
        (Type::Any, Wire::Bytes(body)) => match part(body, 1)? {
            None | Some([]) => Value::Null,
            Some(raw) => crate::decode::json(raw)?.value,
        },
        (Type::SchemaOrBool, Wire::Bytes(body)) => match part(body, 2)? {
            Some(inner) => nested(schema, inner, place)?,
            None => (numbers(body)?[1] != 0).into(),
        },
        (Type::SchemaOrList | Type::SchemaOrNames, Wire::Bytes(body)) => match part(body, 1)? {
            Some(inner) => nested(schema, inner, place)?,
            None => {
                let mut list = Vec::new();
                fields(body, |number, wire| {
                    match (number, wire) {
                        (2, Wire::Bytes(name)) if schema.kind == Type::SchemaOrNames => list.push(text(name)?.into()),
                        (2, Wire::Bytes(inner)) => list.push(nested(schema, inner, place)?),
                        _ => {}
                    }
                    Ok(())
                })?;
                list.into()
            }
        },
        _ => return Err(broken("a field has the wire type of another")),
    })
}

fn number(value: f64) -> Result<Value, DecodeError> {
    // JSON writes whole numbers without a point, so that both forms are equal.
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Ok((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number).ok_or_else(|| broken("a number is not finite"))
}

fn nested(schema: &Schema, body: &[u8], place: Place<'_>) -> Result<Value, DecodeError> {
    let mut fields = Map::new();
    message(items_of(schema), body, &mut fields, place.deeper())?;
    Ok(fields.into())
}

/// The numbers of the small messages' first fields.
fn numbers(body: &[u8]) -> Result<[u64; 3], DecodeError> {
    let mut out = [0; 3];
    fields(body, |number, wire| {
        if let (Some(slot), Wire::Varint(value)) = (out.get_mut(number as usize), wire) {
            *slot = value;
        }
        Ok(())
    })?;
    Ok(out)
}

/// The last occurrence of a field that has a length.
fn part(body: &[u8], wanted: u32) -> Result<Option<&[u8]>, DecodeError> {
    let mut out = None;
    fields(body, |number, wire| {
        if let (true, Wire::Bytes(bytes)) = (number == wanted, wire) {
            out = Some(bytes);
        }
        Ok(())
    })?;
    Ok(out)
}

fn time(body: &[u8], digits: usize) -> Result<Value, DecodeError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let numbers = numbers(body)?;
    let nanos = i32::try_from(numbers[2] as i64).map_err(|_| broken("a time is out of range"))?;
    let time = Timestamp::new(numbers[1] as i64, nanos).map_err(|_| broken("a time is out of range"))?;
    Ok(format_time(time, digits).into())
}
