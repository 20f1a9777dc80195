//! Answers: how values, statuses and plain texts become HTTP.

use axum::response::Response;
use coracle_api::status::Status;
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use serde_json::Value;

use crate::{body::full, output};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A failure as a Status body.
pub fn status(status: &Status) -> Response {
    output::status(status)
}

/// A JSON document.
pub fn json(code: StatusCode, value: &Value) -> Response {
    bytes(code, JSON, output::json(value, false))
}

/// A text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Response {
    let mut answer = bytes(code, TEXT, text.into());
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Bytes of a given type.
pub fn bytes(code: StatusCode, content_type: HeaderValue, content: impl Into<bytes::Bytes>) -> Response {
    let mut answer = Response::new(full(content));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A path that nobody serves: plain text, as upstream has it.
pub fn page_not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A resource that is not served, in a group and version that is.
pub fn resource_not_found() -> Response {
    let mut failure = Status::new(404, "NotFound", "the server could not find the requested resource");
    failure.details = Some(Default::default());
    status(&failure)
}

/// A method that the path does not have.
pub fn method_not_allowed(allowed: &'static str) -> Response {
    let mut answer = status(&Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
