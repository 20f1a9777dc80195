//! `/openapi/v2` and `/openapi/v3`: the schemas, made when they are asked for and not kept.
//!
//! A document takes tens of megabytes while it is made. So one is made at a time, what it took is given back to the system at once,
//! and a client that has the document (its ETag is remembered) costs nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use coracle_api::{catalogue::Catalogue, openapi, status::Status};
use http::{
    HeaderValue,
    header::{ACCEPT, CACHE_CONTROL},
};

use serde_json::{Value, json};

use super::{etag, route::Named};
use crate::{
    aggregation::{Aggregation, forward},
    answer,
    request::Context,
    server::Shared,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF_TYPE: HeaderValue = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
/// A document under its hash never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, immutable");

/// One of the documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Document {
    V2,
    V2Protobuf,
    Index,
    /// Of a group and version.
    V3(String, String),
}

/// What is remembered of the documents.
#[derive(Debug, Default)]
pub struct Documents {
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
    /// Those of documents that exist, as many as there are groups and versions, and three; with the revision that they belong to.
    tags: Mutex<(Revision, HashMap<Document, HeaderValue>)>,
}

/// Of the catalogue, and of what extension API servers have.
type Revision = (u64, u64);

impl Documents {
    /// The tag of a document, if it was made of this revision.
    fn tag(&self, revision: Revision, document: &Document) -> Option<HeaderValue> {
        let (of, tags) = &*self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.get(document).filter(|_| *of == revision).cloned()
    }

    fn remember(&self, revision: Revision, document: Document, tag: &HeaderValue) {
        let (of, tags) = &mut *self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if *of != revision {
            *of = revision;
            tags.clear();
        }
        tags.insert(document, tag.clone());
    }
}

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/openapi/v2", any(v2))
        .route("/openapi/v3", any(index))
        .route("/openapi/v3/api/{version}", any(core))
        .route("/openapi/v3/apis/{group}/{version}", any(group))
}

async fn v2(State(shared): State<Arc<Shared>>, cx: Context) -> Response {
    answer(&shared, &cx, if accepts_protobuf(&cx) { Document::V2Protobuf } else { Document::V2 }).await
}

async fn index(State(shared): State<Arc<Shared>>, cx: Context) -> Response {
    answer(&shared, &cx, Document::Index).await
}

async fn core(State(shared): State<Arc<Shared>>, Named(version): Named<String>, cx: Context) -> Response {
    answer(&shared, &cx, Document::V3(String::new(), version)).await
}

async fn group(
    State(shared): State<Arc<Shared>>,
    Named((group, version)): Named<(String, String)>,
    cx: Context,
    request: Request,
) -> Response {
    if let Some(remote) = shared.aggregation.remote(&group, &version) {
        return forward::answer(&shared, &remote, &cx, request).await;
    }
    answer(&shared, &cx, Document::V3(group, version)).await
}

async fn answer(shared: &Shared, cx: &Context, document: Document) -> Response {
    let catalogue = shared.catalogue();
    let documents = &shared.documents;
    let revision = (catalogue.revision(), shared.aggregation.documents_revision());
    let known = documents.tag(revision, &document);
    let mut answer = match known.filter(|tag| etag::client_has(cx, tag)) {
        Some(tag) => etag::not_modified(&tag),
        None => {
            let bytes = match make(shared, catalogue, document.clone()).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return answer::page_not_found(),
                Err(status) => return answer::status(&status),
            };
            let tag = etag::of(&bytes);
            let content_type = if document == Document::V2Protobuf { V2_PROTOBUF_TYPE } else { JSON };
            documents.remember(revision, document, &tag);
            etag::answer(cx, &tag, bytes, content_type)
        }
    };
    if cx.param("hash").is_some() {
        answer.headers_mut().insert(CACHE_CONTROL, FOREVER);
    }
    answer
}

fn accepts_protobuf(cx: &Context) -> bool {
    let mut clauses = cx.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    clauses.any(|clause| clause.trim().starts_with(V2_PROTOBUF))
}

async fn make(shared: &Shared, catalogue: Arc<Catalogue>, document: Document) -> Result<Option<Bytes>, Status> {
    let _one_at_a_time = shared.documents.making.lock().await;
    let aggregation = Arc::clone(&shared.aggregation);
    let made = tokio::task::spawn_blocking(move || {
        // One copy of the right size: the maker's buffer may be twice as large.
        let bytes = written(&catalogue, &aggregation, &document).map(|bytes| Bytes::copy_from_slice(&bytes));
        give_back();
        bytes
    });
    made.await.map_err(|error| Status::internal(format!("the document could not be made: {error}")))
}

fn written(catalogue: &Catalogue, aggregation: &Aggregation, document: &Document) -> Option<Vec<u8>> {
    let further = || aggregation.openapi_v2().iter().filter_map(|part| serde_json::from_slice(part).ok()).collect::<Vec<_>>();
    match document {
        Document::V2 => Some(openapi::v2(catalogue, &further())),
        Document::V2Protobuf => Some(openapi::v2_protobuf(catalogue, &further())),
        Document::Index => Some(index_of(catalogue, aggregation).to_string().into_bytes()),
        Document::V3(group, version) => openapi::v3(catalogue, group, version),
    }
}

/// `/openapi/v3`, with the documents that extension API servers have.
fn index_of(catalogue: &Catalogue, aggregation: &Aggregation) -> Value {
    let mut index = openapi::v3_index(catalogue);
    let Some(paths) = index["paths"].as_object_mut() else { return index };
    for (path, url) in aggregation.openapi_v3() {
        match url {
            Some(url) => drop(paths.insert(path, json!({"serverRelativeURL": url}))),
            None => drop(paths.remove(&path)),
        }
    }
    index
}

/// Returns freed memory to the system, which the allocator would keep for a next time that may not come.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
