//! Answers that are no streams.

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A short text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    of(status, TEXT, Body::from(text.into()))
}

/// A JSON document.
pub fn json(value: &serde_json::Value) -> Response {
    of(StatusCode::OK, JSON, Body::from(value.to_string()))
}

/// A text that comes bit by bit.
pub fn streamed(body: Body) -> Response {
    of(StatusCode::OK, TEXT, body)
}

fn of(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
