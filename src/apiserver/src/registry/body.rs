//! Request bodies: media type, kind, unknown fields, canonical form.

use bytes::Bytes;
use coracle_api::{
    catalogue::api_version,
    decode::{self, DecodeError, Decoded},
    protobuf,
    schema::Schema,
    status::Status,
    structural,
};
use http::header;
use serde_json::Value;

use super::options::FieldValidation;
use crate::request::Context;

/// Larger bodies are refused. Upstream's bound.
pub const MAX_BODY_BYTES: usize = 3 << 20;

/// What a body must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Of the kind.
    pub schema: &'a Schema,
}

/// A body as an object in canonical form.
#[derive(Debug)]
pub struct Body {
    /// The object, with its apiVersion and kind.
    pub object: Value,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// 413.
pub fn too_large() -> Status {
    Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
}

/// The media type of a body, without parameters; JSON when there is none.
pub fn media(cx: &Context) -> String {
    let text = cx.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.is_empty() { "application/json".to_owned() } else { media }
}

/// 415.
pub fn unsupported(supported: &str) -> Status {
    Status::new(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - accepted media types include: {supported}"),
    )
}

/// Decodes a body of the media type in the request's header, without looking at what it is.
fn decode(cx: &Context, body: &Bytes, schema: &Schema) -> Result<Decoded, Status> {
    if body.len() > MAX_BODY_BYTES {
        return Err(too_large());
    }
    let decoded = match media(cx).as_str() {
        "application/json" => decode::json(body),
        "application/yaml" => decode::yaml(body),
        "application/vnd.kubernetes.protobuf" if !schema.custom => protobuf::kind(body).and_then(|(api_version, kind)| {
            let mut value = protobuf::decode(schema, body)?;
            value["apiVersion"] = api_version.into();
            value["kind"] = kind.into();
            Ok(Decoded { value, duplicates: Vec::new() })
        }),
        _ => return Err(unsupported("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
    };
    decoded.map_err(|error| refused(&error, None))
}

/// 400 for what cannot be read.
pub fn refused(error: &DecodeError, expected: Option<Expected<'_>>) -> Status {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    match error {
        DecodeError::TooLarge { .. } => return too_large(),
        DecodeError::TooMany { .. } => return Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}")),
        _ => {}
    }
    match expected {
        Some(e) => Status::bad_request(format!("{} in version {:?} cannot be handled as a {}: {why}", e.kind, e.version, e.kind)),
        None => Status::bad_request(why),
    }
}

/// The object in a body; what is doubtful about it goes to the warnings. An absent apiVersion or kind is that of the path.
pub fn object(cx: &Context, body: &Bytes, expected: Expected<'_>, validation: FieldValidation) -> Result<Value, Status> {
    let decoded = decode(cx, body, expected.schema)?;
    let settled = settle(decoded, expected, validation).map_err(|error| match error {
        Settle::Status(status) => status,
        Settle::Strict(problems) => Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            expected.kind,
            expected.version,
            expected.kind,
            problems.join(", ")
        )),
    })?;
    cx.warnings.extend(settled.warnings);
    cx.audit.object(&settled.object);
    Ok(settled.object)
}

/// Why a decoded body is refused.
pub enum Settle {
    /// It is not what it must be.
    Status(Status),
    /// It has unknown or doubled fields, and validation is strict.
    Strict(Vec<String>),
}

/// Checks kind and fields of a decoded body and makes it canonical.
pub fn settle(decoded: Decoded, expected: Expected<'_>, validation: FieldValidation) -> Result<Body, Settle> {
    let Decoded { value: mut object, duplicates } = decoded;
    let wanted = api_version(expected.group, expected.version);
    let Some(map) = object.as_object_mut() else {
        let why = format!(
            "{} in version {:?} cannot be handled as a {}: the body is not an object",
            expected.kind, expected.version, expected.kind
        );
        return Err(Settle::Status(Status::bad_request(why)));
    };
    for (field, default) in [("apiVersion", wanted.as_str()), ("kind", expected.kind)] {
        let given = map.get(field).and_then(Value::as_str).unwrap_or_default();
        let wrong_type = map.get(field).is_some_and(|value| !value.is_string() && !value.is_null());
        if wrong_type || !(given.is_empty() || given == default) {
            let why = if field == "kind" {
                format!(
                    "{given} in version {:?} cannot be handled as a {}: the kind in the data does not match the expected one",
                    expected.version, expected.kind
                )
            } else {
                format!("the API version in the data ({given}) does not match the expected API version ({wanted})")
            };
            return Err(Settle::Status(Status::bad_request(why)));
        }
        if given.is_empty() {
            map.insert(field.to_owned(), default.into());
        }
    }
    // An empty list of managers asks for none, which canonical form would forget; upstream takes one empty entry for the same.
    if let Some(managers) = object.pointer_mut("/metadata/managedFields").filter(|managers| managers.as_array().is_some_and(Vec::is_empty))
    {
        *managers = serde_json::json!([{}]);
    }
    let unknown = structural::prune(expected.schema, &mut object).map_err(|error| Settle::Status(refused(&error, Some(expected))))?;
    let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
    let doubled = duplicates.iter().map(ToString::to_string);
    // Upstream finds both at once in what it has types for; in custom objects it looks for unknown fields after it has read them.
    let problems: Vec<String> = if expected.schema.custom { doubled.chain(unknown).collect() } else { unknown.chain(doubled).collect() };
    match validation {
        FieldValidation::Strict if !problems.is_empty() => Err(Settle::Strict(problems)),
        FieldValidation::Warn => Ok(Body { object, warnings: problems }),
        FieldValidation::Ignore | FieldValidation::Strict => Ok(Body { object, warnings: Vec::new() }),
    }
}

/// DeleteOptions in a body; `None` when it is empty.
pub fn delete_options(cx: &Context, body: &Bytes, schema: &Schema) -> Result<Option<Value>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    let Decoded { value: mut options, .. } = decode(cx, body, schema)?;
    if !options.is_object() || !(options["kind"].is_null() || options["kind"] == "DeleteOptions") {
        return Err(Status::bad_request("the body of a DELETE is no DeleteOptions"));
    }
    structural::prune(schema, &mut options).map_err(|error| refused(&error, None))?;
    cx.audit.sent(&options);
    Ok(Some(options))
}
