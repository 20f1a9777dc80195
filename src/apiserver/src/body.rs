//! Bodies of requests and answers: whole or streamed, one type for every stage.

use bytes::Bytes;

/// Why a streamed body ends early.
pub type BodyError = axum::BoxError;

/// The body of a request or an answer.
pub type Body = axum::body::Body;

/// A body that is there at once.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::from(bytes.into())
}
