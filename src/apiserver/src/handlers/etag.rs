//! ETags: documents under their hash, and 304 for a client that has them.

use axum::response::Response;
use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
};
use ring::digest;

use crate::{body::full, output::gzip, request::Context};

/// The tag of a document: its SHA-256 in hexadecimal.
pub fn of(document: &[u8]) -> HeaderValue {
    let hash: String = digest::digest(&digest::SHA256, document).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    // Hexadecimal digits and quotes are always a header's value.
    HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client says that it has this very document.
pub fn client_has(cx: &Context, tag: &HeaderValue) -> bool {
    let known = cx.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    known.into_iter().any(|value| value.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes())
}

/// The document, or 304 for a client that has it.
pub fn answer(cx: &Context, tag: &HeaderValue, document: impl Into<Bytes>, content_type: HeaderValue) -> Response {
    if client_has(cx, tag) {
        return not_modified(tag);
    }
    let mut answer = tagged(Response::new(full("")), tag);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    gzip::whole(&cx.headers, answer, document.into())
}

/// 304.
pub fn not_modified(tag: &HeaderValue) -> Response {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    tagged(answer, tag)
}

fn tagged(mut answer: Response, tag: &HeaderValue) -> Response {
    answer.headers_mut().insert(ETAG, tag.clone());
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}
