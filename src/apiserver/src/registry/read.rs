//! GET and LIST, from the cache's bytes.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use coracle_api::{protobuf, status::Status};
use http::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    options::{ListOptions, VersionMatch},
    select::Selection,
    target::Target,
};
use crate::{
    body::Body,
    cache::{Cache, collection::Snapshot, object::Object},
    output::{
        self,
        format::{Format, Media, Shape},
        gzip,
        list::{self, Head},
        transform::{self, Include},
    },
    request::Context,
};

/// How long a read waits for a revision that has not come yet. Upstream's bound.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// Where a list goes on.
#[derive(Debug, PartialEq, Eq)]
struct Continuation {
    /// At this revision; `None` is now, inconsistent with the pages before.
    revision: Option<u64>,
    /// After this key.
    after: String,
}

impl Continuation {
    fn read(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let revision = value["rv"].as_i64()?;
        if value["v"] != "meta.k8s.io/v1" || revision == 0 || revision < -1 {
            return None;
        }
        // Upstream's token holds the first key of the next page: the last one's successor ends in a zero byte.
        let start = value["start"].as_str()?;
        Some(Self { revision: u64::try_from(revision).ok(), after: start.strip_suffix('\0').unwrap_or(start).to_owned() })
    }

    fn write(revision: Option<u64>, after: &str) -> String {
        let revision = revision.map_or(Value::from(-1), Value::from);
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{after}\0")}).to_string())
    }
}

/// 504: the revision has not come.
pub fn too_large(wanted: u64, current: u64) -> Status {
    let mut status = Status::new(504, "Timeout", format!("Too large resource version: {wanted}, current: {current}")).about("", "", "");
    let details = status.details.get_or_insert_default();
    details.retry_after_seconds = 1;
    details.causes.push(coracle_api::status::Cause {
        reason: "ResourceVersionTooLarge",
        field: String::new(),
        message: "Too large resource version".into(),
    });
    status
}

/// 410: the revision is forgotten.
pub fn expired(message: impl Into<String>) -> Status {
    Status::new(410, "Expired", message)
}

/// Waits, within a bound, until the cache has seen `revision`.
pub async fn wait_for(cache: &Cache, revision: u64) -> Result<(), Status> {
    match tokio::time::timeout(FUTURE_WAIT, cache.wait(revision)).await {
        Ok(()) => Ok(()),
        Err(_) => Err(too_large(revision, cache.revision())),
    }
}

/// GET of one object.
pub async fn get(inner: &Inner, target: &Target, cx: &Context, format: &Format) -> Result<Response<Body>, Status> {
    let cache = &inner.cache;
    match cx.param("resourceVersion").unwrap_or_default() {
        "" => cache.catch_up().await,
        "0" => {}
        text => {
            let revision = text.parse().map_err(|_| Status::new(500, "", format!("the resourceVersion {text:?} is not a number")))?;
            wait_for(cache, revision).await?;
        }
    }
    let object = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?;
    answer(inner, 200, target, format, include(cx)?, object.json()).await
}

/// `?includeObject=` of a request.
pub fn include(cx: &Context) -> Result<Include, Status> {
    Include::parse(cx.param("includeObject")).ok_or_else(|| {
        Status::bad_request(format!("unrecognized includeObject value: {:?}", cx.param("includeObject").unwrap_or_default()))
    })
}

/// One object (JSON in its stored version) in the form that was asked for.
pub async fn answer(
    inner: &Inner,
    code: u16,
    target: &Target,
    format: &Format,
    include: Include,
    json: Bytes,
) -> Result<Response<Body>, Status> {
    if format.media == Media::Json && format.shape == Shape::Whole && !format.pretty && target.is_shown(&json) {
        return Ok(output::respond(code, "application/json", json));
    }
    // The bytes come from the cache or from our own encoder.
    let object: Value = serde_json::from_slice(&json).unwrap_or_default();
    let object = inner.shown(target, &object).await?;
    Ok(match &format.shape {
        Shape::Whole => output::value(code, format, &object, |object| protobuf::encode(&target.resource.schema, object)),
        Shape::Partial(version) => plain(code, format, &transform::partial(&object, version), target),
        Shape::Table(version) => {
            let metadata = list_meta(object["metadata"]["resourceVersion"].as_str().unwrap_or_default());
            let row = transform::row(&target.resource, &object, version, include, Timestamp::now());
            plain(code, format, &transform::table(version, metadata, Some(transform::headings(&target.resource)), vec![row]), target)
        }
    })
}

/// Tables and partial metadata: of the meta group.
fn plain(code: u16, format: &Format, value: &Value, target: &Target) -> Response<Body> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let schema = coracle_api::catalogue::builtin().message(kind).unwrap_or(&target.resource.schema);
    output::value(code, format, value, |value| protobuf::encode(schema, value))
}

fn list_meta(revision: &str) -> Map<String, Value> {
    Map::from_iter([("resourceVersion".to_owned(), Value::from(revision))])
}

/// LIST of a collection.
pub async fn list(inner: &Inner, target: &Target, cx: &Context, format: &Format) -> Result<Response<Body>, Status> {
    let options = ListOptions::read(cx)?;
    let selection = Selection::of(target, &options)?;
    let page = page(inner, target, &options, &selection).await?;
    cx.warnings.extend(target.collection.unreadable_under(selection.prefix()).into_iter().map(|why| format!("left out: {why}")));
    let include = include(cx)?;
    let shown = target.as_stored() && (!target.asks() || page.objects.iter().all(|object| target.is_shown(&object.json())));
    if format.media == Media::Json && format.shape == Shape::Whole && !format.pretty && shown {
        let head = Head {
            kind: target.resource.list_kind.clone(),
            api_version: target.resource.api_version(),
            bare_items: !target.resource.custom,
            metadata: page.metadata,
        };
        return Ok(list::respond_list(&head, page.objects, gzip::accepted(&cx.headers), &inner.packed));
    }
    // What needs no conversion is decoded one at a time.
    let objects = match shown {
        true => Objects::Held(page.objects.iter()),
        false => {
            let values = page.objects.iter().map(|object| object.value()).collect();
            Objects::Converted(inner.outward(target, values).await?.into_iter())
        }
    };
    let now = Timestamp::now();
    Ok(match &format.shape {
        Shape::Whole => {
            let items: Vec<Value> = objects.map(|object| item(target, object)).collect();
            let list = json!({"kind": target.resource.list_kind, "apiVersion": target.resource.api_version(),
                "metadata": page.metadata, "items": items});
            output::value(200, format, &list, |list| protobuf::encode_list(&target.resource.schema, list))
        }
        Shape::Partial(version) => {
            let items: Vec<Value> = objects.map(|object| transform::partial(&object, version)).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": page.metadata, "items": items});
            plain(200, format, &list, target)
        }
        Shape::Table(version) => {
            let rows = objects.map(|object| transform::row(&target.resource, &object, version, include, now)).collect();
            let headings = transform::headings(&target.resource);
            plain(200, format, &transform::table(version, page.metadata, Some(headings), rows), target)
        }
    })
}

/// The objects of a list.
enum Objects<'p> {
    Held(std::slice::Iter<'p, Arc<Object>>),
    Converted(std::vec::IntoIter<Value>),
}

impl Iterator for Objects<'_> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self {
            Self::Held(objects) => objects.next().map(|object| object.value()),
            Self::Converted(values) => values.next(),
        }
    }
}

/// An object as an item of a list: built-in kinds have no kind and apiVersion there.
fn item(target: &Target, mut object: Value) -> Value {
    if !target.resource.custom
        && let Some(map) = object.as_object_mut()
    {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

/// What a list answers.
#[derive(Debug)]
pub struct Page {
    /// In key order.
    pub objects: Vec<Arc<Object>>,
    /// ListMeta.
    pub metadata: Map<String, Value>,
}

/// The objects that a list means.
pub async fn page(inner: &Inner, target: &Target, options: &ListOptions, selection: &Selection) -> Result<Page, Status> {
    let cache = &inner.cache;
    let mut after = None;
    let mut snapshot = if options.continuation.is_empty() {
        at_revision(cache, target, options, selection).await?
    } else {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Continuation::read(&options.continuation)
            .ok_or_else(|| Status::bad_request("continue key is not valid: it is not one that this server gave"))?;
        let snapshot = match token.revision {
            Some(revision) => target.collection.snapshot_at(selection.prefix(), revision).map_err(|_| {
                let mut status = expired(
                    "The provided continue parameter is too old to display a consistent list result. \
                     You can start a new list without the continue parameter, or use the continue token in this response to retrieve the \
                     remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
                     created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                );
                status.continuation = Continuation::write(None, &token.after);
                status
            })?,
            None => target.collection.snapshot(selection.prefix(), cache.revision()),
        };
        after = Some(token.after);
        snapshot
    };
    if selection.needs_form() {
        let start = after.as_deref();
        snapshot.objects.retain(|object| start.is_none_or(|start| object.key() > start) && selection.matches(object));
        snapshot.objects = inner.converter.meant(&inner.catalogue, target, selection, snapshot.objects).await?;
    }
    // Of any revision: all at once, as upstream's cache answers.
    let limit = if options.resource_version == "0" { 0 } else { options.limit };
    Ok(cut(snapshot, after.as_deref(), selection, limit))
}

async fn at_revision(cache: &Cache, target: &Target, options: &ListOptions, selection: &Selection) -> Result<Snapshot, Status> {
    let now = || match selection.only_key() {
        // By name: no need to look at all the others.
        Some(key) => {
            let revision = cache.revision();
            Snapshot { objects: target.collection.get(&key).into_iter().collect(), revision }
        }
        None => target.collection.snapshot(selection.prefix(), cache.revision()),
    };
    let revision: u64 = match options.resource_version.as_str() {
        "" => {
            cache.catch_up().await;
            return Ok(now());
        }
        "0" => return Ok(now()),
        text => text.parse().map_err(|_| Status::bad_request(format!("resourceVersion: Invalid value: {text:?}: it is not a number")))?,
    };
    wait_for(cache, revision).await?;
    let exact = match options.version_match {
        Some(VersionMatch::Exact) => true,
        Some(VersionMatch::NotOlderThan) => false,
        // The rule from before resourceVersionMatch.
        None => options.limit > 0,
    };
    if !exact {
        return Ok(now());
    }
    target
        .collection
        .snapshot_at(selection.prefix(), revision)
        .map_err(|old| expired(format!("The resourceVersion for the provided list is too old: {} ({})", old.wanted, old.oldest)))
}

/// The selected objects after a key, at most `limit` of them.
fn cut(snapshot: Snapshot, after: Option<&str>, selection: &Selection, limit: usize) -> Page {
    let start = after.map_or(0, |after| snapshot.objects.partition_point(|object| object.key() <= after));
    let mut rest = snapshot.objects.into_iter().skip(start).filter(|object| selection.matches(object));
    let mut metadata = list_meta(&snapshot.revision.to_string());
    if limit == 0 {
        return Page { objects: rest.collect(), metadata };
    }
    let objects: Vec<Arc<Object>> = rest.by_ref().take(limit).collect();
    let remaining = rest.count();
    if let Some(last) = objects.last().filter(|_| remaining > 0) {
        metadata.insert("continue".into(), Continuation::write(Some(snapshot.revision), last.key()).into());
        if selection.is_everything() {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
    }
    Page { objects, metadata }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_they_were_written() {
        for (revision, after) in [(Some(7), "default/web"), (None, "a"), (Some(u64::from(u32::MAX)), "é/x")] {
            let token = Continuation::write(revision, after);
            assert_eq!(Continuation::read(&token), Some(Continuation { revision, after: after.to_owned() }), "{token}");
        }
        for token in ["bogus", "", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0"] {
            assert_eq!(Continuation::read(token), None, "{token}");
        }
    }
}
