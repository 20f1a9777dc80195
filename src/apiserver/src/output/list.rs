//! Lists, written piece by piece from the bytes of their objects.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Map, Value};

use super::{gzip, no_cache, packed::Packed, respond};
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

impl Head {
    /// Everything before the first item.
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + 4096);
        out.extend_from_slice(b"{\"kind\":");
        // Strings and maps of strings can always be written.
        let _ = serde_json::to_writer(&mut out, &self.kind);
        out.extend_from_slice(b",\"apiVersion\":");
        let _ = serde_json::to_writer(&mut out, &self.api_version);
        out.extend_from_slice(b",\"metadata\":");
        let _ = serde_json::to_writer(&mut out, &self.metadata);
        out.extend_from_slice(b",\"items\":[");
        out
    }
}

/// An iterator over the bytes of a list from its first item on.
#[derive(Debug)]
struct Items {
    /// What is written already.
    begun: Vec<u8>,
    bare: bool,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    done: bool,
}

impl Items {
    fn new(begun: Vec<u8>, bare: bool, objects: Vec<Arc<Object>>) -> Self {
        Self { begun, bare, objects: objects.into_iter(), first: true, done: false }
    }
}

impl Iterator for Items {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = std::mem::take(&mut self.begun);
        out.reserve(CHUNK_BYTES + 4096);
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
            if self.bare {
                out.push(b'{');
                out.extend_from_slice(object.headless());
            } else {
                out.extend_from_slice(&object.json());
            }
        }
        Some(out.into())
    }
}

/// The answer to a list of whole objects in their stored version. `packed` remembers it, if it is compressed.
pub fn respond_list(head: &Head, objects: Vec<Arc<Object>>, gzip_accepted: bool, packed: &Arc<Packed>) -> Response<Body> {
    let size: usize = objects.iter().map(|object| object.size()).sum();
    if gzip_accepted && size >= gzip::MIN_BYTES {
        let items: Box<dyn Iterator<Item = gzip::Piece> + Send> = match packed.find(&objects) {
            Some(known) => Box::new(known.into_iter()),
            None => {
                let record = packed.record(&objects);
                Box::new(gzip::Items::new(Items::new(Vec::new(), head.bare_items, objects), record))
            }
        };
        let mut response = streamed(gzip::Stream::new(&head.write(), items));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        return response;
    }
    let chunks = Items::new(head.write(), head.bare_items, objects);
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
