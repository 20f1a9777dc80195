//! Answers: objects, lists, watch events and statuses in the representation that was asked for.

pub mod format;
pub mod gzip;
pub mod list;
pub mod packed;
pub mod transform;

use bytes::Bytes;
use coracle_api::{protobuf, status::Status};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::body::{Body, full};
use format::{Format, Media};

/// An answer with these bytes.
pub fn respond(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    no_cache(&mut response);
    response
}

/// Answers about objects are never cached on the way.
pub fn no_cache(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
}

/// A failure.
pub fn status(status: &Status) -> Response<Body> {
    let mut response = respond(status.code, "application/json", json(&status.to_value(), false));
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A value in the media of `format`; `encode` makes protobuf of it.
pub fn value(code: u16, format: &Format, value: &Value, encode: impl FnOnce(&Value) -> Vec<u8>) -> Response<Body> {
    let bytes = match format.media {
        Media::Json => json(value, format.pretty),
        Media::Yaml => yaml(value),
        Media::Protobuf => encode(value),
    };
    respond(code, format.content_type(), bytes)
}

/// Adds `Warning` headers.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in warnings {
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// JSON as clients get it.
pub fn json(value: &Value, pretty: bool) -> Vec<u8> {
    // A Value has string keys only, so that it can always be written.
    let written = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    let mut out = written.unwrap_or_default();
    out.push(b'\n');
    out
}

/// YAML as clients get it.
pub fn yaml(value: &Value) -> Vec<u8> {
    serde_saphyr::to_string(value).map_or_else(|_| json(value, false), String::into_bytes)
}

/// A `Status` or another message without a schema of its own kind, as protobuf.
pub fn message(catalogue: &coracle_api::catalogue::Catalogue, kind: &str, value: &Value) -> Vec<u8> {
    catalogue.message(kind).map_or_else(Vec::new, |schema| protobuf::encode(schema, value))
}
