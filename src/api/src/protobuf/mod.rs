//! Kubernetes' protobuf, driven by the schema: objects, lists, watch events.

mod layout;
mod reader;
pub(crate) mod writer;

use std::cell::Cell;

use serde_json::{Map, Value};

use crate::catalogue::builtin;
use crate::decode::{DecodeError, MAX_BODY_BYTES};
use crate::schema::Schema;

pub(crate) use layout::Layout;

/// `application/vnd.kubernetes.protobuf` bodies begin with this.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// An object with its envelope (`k8s\0` + runtime.Unknown); apiVersion and kind are the object's own.
pub fn encode(schema: &Schema, object: &Value) -> Vec<u8> {
    enveloped(object, |out| {
        if let Value::Object(fields) = object {
            writer::message(schema, fields, out);
        }
    })
}

/// A list (`XList`) of objects that have this schema.
pub fn encode_list(item: &Schema, list: &Value) -> Vec<u8> {
    enveloped(list, |out| {
        if let (Some(Value::Object(metadata)), Some(schema)) = (list.get("metadata"), builtin().message("meta/v1.ListMeta")) {
            writer::delimited(1, out, |out| writer::message(schema, metadata, out));
        }
        for object in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            if let Value::Object(fields) = object {
                writer::delimited(2, out, |out| writer::message(item, fields, out));
            }
        }
    })
}

/// A watch event around an object that is already encoded with its envelope; without the length prefix of the stream.
pub fn encode_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + kind.len() + 16);
    writer::bytes(1, kind.as_bytes(), &mut out);
    writer::delimited(2, &mut out, |out| writer::bytes(1, object, out));
    out
}

fn enveloped(object: &Value, content: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().as_bytes();
    let mut out = MAGIC.to_vec();
    writer::delimited(1, &mut out, |out| {
        writer::bytes(1, text("apiVersion"), out);
        writer::bytes(2, text("kind"), out);
    });
    writer::delimited(2, &mut out, content);
    writer::bytes(3, b"", &mut out);
    writer::bytes(4, b"", &mut out);
    out
}

/// What an envelope says of its content, and the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `v1`, `apps/v1`; may be empty.
    pub api_version: &'a str,
    /// `Pod`; may be empty.
    pub kind: &'a str,
    /// The message without envelope.
    pub raw: &'a [u8],
}

/// Opens the envelope without reading the object.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge { size: body.len(), limit: MAX_BODY_BYTES });
    }
    let content = body.strip_prefix(MAGIC).ok_or_else(|| DecodeError::Protobuf("it does not begin with k8s\\0".into()))?;
    let mut envelope = Envelope::default();
    reader::fields(content, |number, value| {
        match (number, value) {
            (1, reader::Wire::Bytes(inner)) => reader::fields(inner, |number, value| {
                match (number, value) {
                    (1, reader::Wire::Bytes(text)) => envelope.api_version = reader::text(text)?,
                    (2, reader::Wire::Bytes(text)) => envelope.kind = reader::text(text)?,
                    _ => {}
                }
                Ok(())
            })?,
            (2, reader::Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
        Ok(())
    })?;
    Ok(envelope)
}

/// apiVersion and kind of an envelope, without reading the object.
pub fn kind(body: &[u8]) -> Result<(String, String), DecodeError> {
    open(body).map(|envelope| (envelope.api_version.to_owned(), envelope.kind.to_owned()))
}

/// The object in an envelope, not yet canonical (see [`crate::structural::prune`]).
pub fn decode(schema: &Schema, body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = open(body)?;
    let mut fields = Map::new();
    for (name, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if !text.is_empty() {
            fields.insert(name.into(), text.into());
        }
    }
    reader::message(schema, envelope.raw, &mut fields, reader::Place::of(&Cell::new(0)))?;
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests;
