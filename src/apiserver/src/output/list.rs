//! Lists, written piece by piece from the bytes of their objects.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Map, Value};

use super::{gzip, no_cache, respond};
use crate::{
    body::{Body, BodyError},
    cache::object::Object,
};

/// Pieces of a streamed list: small enough to hold many at once, large enough for one TLS record after the other.
const CHUNK_BYTES: usize = 64 << 10;

/// The head of a list.
#[derive(Clone, Debug)]
pub struct Head {
    /// `PodList`.
    pub kind: String,
    /// `v1`.
    pub api_version: String,
    /// Items of built-in kinds have no kind and apiVersion of their own; custom ones have.
    pub bare_items: bool,
    /// ListMeta: resourceVersion, continue, remainingItemCount.
    pub metadata: Map<String, Value>,
}

/// An iterator over the list's bytes.
#[derive(Debug)]
struct Chunks {
    head: Option<Head>,
    bare_items: bool,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    done: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES + 4096);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(b"{\"kind\":");
            // Strings and maps of strings can always be written.
            let _ = serde_json::to_writer(&mut out, &head.kind);
            out.extend_from_slice(b",\"apiVersion\":");
            let _ = serde_json::to_writer(&mut out, &head.api_version);
            out.extend_from_slice(b",\"metadata\":");
            let _ = serde_json::to_writer(&mut out, &head.metadata);
            out.extend_from_slice(b",\"items\":[");
        }
        while out.len() < CHUNK_BYTES {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !self.first {
                out.push(b',');
            }
            self.first = false;
            if self.bare_items {
                out.push(b'{');
                out.extend_from_slice(object.headless());
            } else {
                out.extend_from_slice(&object.json());
            }
        }
        Some(out.into())
    }
}

/// The answer to a list of whole objects in their stored version.
pub fn respond_list(head: Head, objects: Vec<Arc<Object>>, gzip_accepted: bool) -> Response<Body> {
    let size: usize = objects.iter().map(|object| object.size()).sum();
    let bare_items = head.bare_items;
    let chunks = Chunks { head: Some(head), bare_items, objects: objects.into_iter(), first: true, done: false };
    if gzip_accepted && size >= gzip::MIN_BYTES {
        let mut response = streamed(gzip::Chunks::new(chunks));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        return response;
    }
    if size <= CHUNK_BYTES {
        return respond(200, "application/json", chunks.collect::<Vec<Bytes>>().concat());
    }
    streamed(chunks)
}

fn streamed(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = futures::stream::iter(chunks.map(|chunk| Ok::<_, BodyError>(Frame::data(chunk))));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_cache(&mut response);
    response
}
