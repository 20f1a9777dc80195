//! WATCH: a stream of events from the cache's changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_api::{catalogue, protobuf, status::Status};
use futures::{Stream, stream};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Inner,
    convert::Converter,
    options::ListOptions,
    read::{self, include},
    select::Selection,
    target::Target,
    watches::Place,
};
use crate::{
    body::{Body, BodyError},
    cache::{
        Cache,
        collection::{Change, Expired},
        object::{Action, Object},
        watcher::Watcher,
    },
    catalogue::Live,
    metrics::Counted,
    output::{
        format::{Format, Media, Shape},
        no_cache,
        transform::{self, Include},
    },
    request::Context,
};

/// A watch without `timeoutSeconds` ends after between this and twice this, so that clients spread their reconnects.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);
/// Between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A bookmark comes this long before the watch ends.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Events of one batch are sent as one piece up to about this size, and converted by one call.
const PIECE_BYTES: usize = 64 << 10;
/// Marks the bookmark after the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Where a watch begins.
enum Start {
    /// With the objects that are there.
    Now { mark_end: bool },
    /// With the changes after a revision.
    After(u64),
}

/// Everything that one watch needs until it ends.
struct Stage {
    cache: Cache,
    live: Live,
    converter: Arc<Converter>,
    target: Target,
    selection: Selection,
    watcher: Watcher,
    encoder: Encoder,
    start: Option<(Start, u64)>,
    /// Objects that were there at the start and are still to be told of.
    initial: Option<Initial>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    last_bookmark_sent: bool,
    /// Of a custom resource, which may become another one while it is watched.
    definition: Option<Definition>,
    /// It is not served any more: what had happened before is still told.
    over: bool,
    _place: Place,
}

/// When to look for the resource again.
struct Definition {
    changes: tokio::sync::watch::Receiver<u64>,
    options: ListOptions,
}

/// The rest of a watch's initial events.
struct Initial {
    objects: std::vec::IntoIter<Arc<Object>>,
    revision: u64,
    mark_end: bool,
}

/// Writes events in the form that was asked for.
struct Encoder {
    target: Target,
    format: Format,
    include: Include,
    headings_sent: bool,
    /// Counts what is sent.
    events: Arc<Counted>,
}

/// Answers a watch.
pub async fn watch(inner: &Inner, target: &Target, cx: &Context, format: &Format) -> Result<Response<Body>, Status> {
    let cache = &inner.cache;
    let options = ListOptions::read(cx)?;
    let selection = Selection::of(target, &options)?;
    let revision: u64 = match options.resource_version.as_str() {
        "" => 0,
        text => text.parse().map_err(|_| Status::new(500, "", format!("the resourceVersion {text:?} is not a number")))?,
    };
    let place = inner.watches.enter(&cx.user.name)?;
    let start = match options.send_initial_events {
        Some(true) => Start::Now { mark_end: options.bookmarks },
        // Upstream: from the newest revision.
        Some(false) if revision == 0 => Start::After(0),
        None if revision == 0 => Start::Now { mark_end: false },
        _ => Start::After(revision),
    };
    if options.resource_version.is_empty() {
        cache.catch_up().await;
    }
    let begin = match start {
        Start::After(0) | Start::Now { .. } => cache.revision(),
        Start::After(revision) => revision,
    };
    let timeout = options.timeout_seconds.map_or_else(random_timeout, Duration::from_secs);
    let now = Instant::now();
    let stage = Stage {
        cache: cache.clone(),
        live: inner.catalogue.clone(),
        converter: Arc::clone(&inner.converter),
        target: target.clone(),
        selection,
        watcher: cache.watch(&target.stored.group, &target.stored.plural, begin),
        encoder: Encoder {
            target: target.clone(),
            format: format.clone(),
            include: include(cx)?,
            headings_sent: false,
            events: inner.metrics.events(&target.resource.group, &target.resource.version, &target.resource.plural),
        },
        start: Some((start, revision)),
        initial: None,
        bookmarks: options.bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        ends: now + timeout,
        last_bookmark_sent: timeout <= LAST_BOOKMARK,
        definition: target.resource.custom.then(|| Definition { changes: inner.catalogue.changes(), options }),
        over: false,
        _place: place,
    };
    let mut response = Response::new(Body::new(StreamBody::new(frames(stage))));
    let content_type = match format.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Media::Json | Media::Yaml => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    no_cache(&mut response);
    Ok(response)
}

fn random_timeout() -> Duration {
    let spread = u64::from(super::chance::byte()) * MIN_TIMEOUT.as_secs() / 256;
    MIN_TIMEOUT + Duration::from_secs(spread)
}

fn frames(stage: Stage) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> {
    stream::unfold(Some(stage), |stage| async move {
        let mut stage = stage?;
        match tokio::time::timeout_at(stage.ends, stage.step()).await {
            Ok(Ok(Some(piece))) => Some((Ok(Frame::data(piece)), Some(stage))),
            Ok(Ok(None)) => None,
            // One ERROR event, then the end.
            Ok(Err(status)) => Some((Ok(Frame::data(stage.encoder.error(&status))), None)),
            Err(_) => None,
        }
    })
}

impl Stage {
    /// The next piece of the stream; `None` at its end.
    async fn step(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some((start, revision)) = self.start.take() {
            self.begin(start, revision).await?;
        }
        if let Some(piece) = self.initial().await? {
            return Ok(Some(piece));
        }
        loop {
            if self.over {
                let Ok(changes) = self.watcher.ready() else { return Ok(None) };
                if changes.is_empty() {
                    return Ok(None);
                }
                let piece = self.write(&changes).await?;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
                continue;
            }
            let bookmark_at = if self.last_bookmark_sent { self.next_bookmark } else { self.next_bookmark.min(self.ends - LAST_BOOKMARK) };
            let changes = tokio::select! {
                biased;
                () = changed(self.definition.as_mut()) => {
                    self.over = !self.look_again();
                    continue;
                }
                changes = self.watcher.next() => changes.map_err(gone)?,
                () = tokio::time::sleep_until(bookmark_at), if self.bookmarks => {
                    let now = Instant::now();
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    self.last_bookmark_sent |= now >= self.ends - LAST_BOOKMARK;
                    return Ok(Some(self.encoder.bookmark(self.watcher.position(), false)));
                }
            };
            let piece = self.write(&changes).await?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// Goes on with the resource as it is served now; false when it is not any more.
    fn look_again(&mut self) -> bool {
        let Some(Definition { options, .. }) = &self.definition else { return true };
        let catalogue = self.live.now();
        let old = &self.target.resource;
        let Some(new) = catalogue.resource(&old.group, &old.version, &old.plural).filter(|new| new.namespaced == old.namespaced) else {
            return false;
        };
        let target = Target::to(&catalogue, &self.cache, new).named(&self.target.namespace, &self.target.name);
        let Ok(selection) = Selection::of(&target, options) else { return false };
        self.encoder.target = target.clone();
        self.selection = selection;
        self.target = target;
        true
    }

    /// Finds the first change to tell of, and what comes before it.
    async fn begin(&mut self, start: Start, revision: u64) -> Result<(), Status> {
        match start {
            Start::After(0) => {}
            // A revision of the future comes, or the client's patience ends.
            Start::After(_) => self.cache.wait(revision).await,
            Start::Now { mark_end } => {
                if revision > 0 {
                    read::wait_for(&self.cache, revision).await?;
                }
                let snapshot = self.target.collection.snapshot(self.selection.prefix(), self.cache.revision());
                let (group, plural) = (&self.target.stored.group, &self.target.stored.plural);
                self.watcher = self.cache.watch(group, plural, snapshot.revision);
                self.initial = Some(Initial { objects: snapshot.objects.into_iter(), revision: snapshot.revision, mark_end });
            }
        }
        Ok(())
    }

    /// The next piece of the initial events; `None` when all are told.
    async fn initial(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(initial) = self.initial.as_mut() {
            let mut events = Vec::new();
            let mut bytes = 0;
            while bytes < PIECE_BYTES
                && let Some(object) = initial.objects.next()
            {
                if self.selection.matches(&object) {
                    bytes += object.size();
                    events.push(Told { action: Action::Added, revision: object.revision(), object });
                }
            }
            let at_end = bytes < PIECE_BYTES;
            if self.selection.needs_form() {
                let objects = events.iter().map(|event: &Told| Arc::clone(&event.object)).collect();
                let meant = self.meant(objects).await?;
                events.retain(|event| meant.contains(&address(&event.object)));
            }
            let mark = self.initial.as_ref().filter(|initial| at_end && initial.mark_end).map(|initial| initial.revision);
            if at_end {
                self.initial = None;
            }
            let mut out = self.tell(&events).await?;
            if let Some(revision) = mark {
                out.extend_from_slice(&self.encoder.bookmark(revision, true));
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    async fn write(&mut self, changes: &[Arc<Change>]) -> Result<Bytes, Status> {
        let selected: Vec<(&Change, Action)> = if self.selection.needs_form() {
            let objects = changes.iter().flat_map(|change| change.previous.iter().chain([&change.object]));
            let meant = self.meant(objects.filter(|object| self.selection.matches(object)).cloned().collect()).await?;
            let told = |change| Selection::told(change, |object| meant.contains(&address(object)));
            changes.iter().filter_map(|change| Some((&**change, told(change)?))).collect()
        } else {
            changes.iter().filter_map(|change| Some((&**change, self.selection.action(change)?))).collect()
        };
        if let [(change, action)] = selected[..] {
            // The usual case, and the one that shares bytes among all watchers.
            if self.encoder.plain(&change.object) && (action == Action::Deleted) == (change.action == Action::Deleted) {
                let event = change.object.event(action);
                self.encoder.events.value.sent(event.len());
                return Ok(event);
            }
        }
        let told = selected.into_iter().map(|(change, action)| {
            // Who leaves a selection is shown as it last was in it.
            let left = action == Action::Deleted && change.action != Action::Deleted;
            let object = change.previous.as_ref().filter(|_| left).unwrap_or(&change.object);
            Told { action, revision: change.revision, object: Arc::clone(object) }
        });
        let told: Vec<Told> = told.collect();
        self.tell(&told).await.map(Bytes::from)
    }

    /// Those of these objects that are meant in the form of the watch's version, by address.
    async fn meant(&self, objects: Vec<Arc<Object>>) -> Result<BTreeSet<usize>, Status> {
        let meant = self.converter.meant(&self.live, &self.target, &self.selection, objects).await?;
        Ok(meant.iter().map(address).collect())
    }

    /// The bytes of some events; what has another version than the watch is converted first, all of it at once.
    async fn tell(&mut self, events: &[Told]) -> Result<Vec<u8>, Status> {
        let values = events.iter().filter(|event| !self.encoder.plain(&event.object)).map(|event| event.object.value()).collect::<Vec<_>>();
        let mut converted =
            if values.is_empty() { values } else { self.converter.outward(&self.live, &self.target, values).await? }.into_iter();
        let mut out = Vec::with_capacity(PIECE_BYTES.min(events.len() * 2048));
        for event in events {
            let before = out.len();
            if self.encoder.plain(&event.object) {
                event.write(&mut out);
            } else if let Some(value) = converted.next() {
                self.encoder.event(event.action, value, event.revision, &mut out);
            }
            self.encoder.events.value.sent(out.len() - before);
        }
        Ok(out)
    }
}

/// An event that a watcher is told of.
struct Told {
    action: Action,
    /// Of the change, which may be later than the object.
    revision: u64,
    object: Arc<Object>,
}

impl Told {
    /// The cache's own bytes.
    fn write(&self, out: &mut Vec<u8>) {
        if self.revision == self.object.revision() {
            self.object.write_event(self.action, out);
        } else {
            out.extend_from_slice(&self.object.event_at(self.action, self.revision));
        }
    }
}

/// Tells one object of a batch from another.
fn address(object: &Arc<Object>) -> usize {
    Arc::as_ptr(object) as usize
}

/// Until the catalogue changes; for ever where it cannot matter.
async fn changed(definition: Option<&mut Definition>) {
    match definition {
        // The sender lives as long as the registry, whose streams these are.
        Some(definition) => drop(definition.changes.changed().await),
        None => std::future::pending().await,
    }
}

fn gone(expired: Expired) -> Status {
    read::expired(expired.to_string())
}

impl Encoder {
    /// Whether an object's events are the cache's own bytes.
    fn plain(&self, object: &Object) -> bool {
        let bytes = self.format.media == Media::Json && self.format.shape == Shape::Whole && self.target.as_stored();
        bytes && (!self.target.asks() || self.target.is_shown(&object.json()))
    }

    /// Appends the event of an object in the version of the watch.
    fn event(&mut self, action: Action, mut value: Value, revision: u64, out: &mut Vec<u8>) {
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let value = self.shaped(value);
        self.write(action.word(), &value, out);
    }

    /// A bookmark at a revision.
    fn bookmark(&mut self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        // Go writes the zero time of an object without one.
        if !self.target.resource.custom {
            metadata["creationTimestamp"] = Value::Null;
        }
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({"kind": self.target.resource.kind, "apiVersion": self.target.resource.api_version(), "metadata": metadata});
        let object = self.shaped(object);
        let mut out = Vec::new();
        self.write("BOOKMARK", &object, &mut out);
        out.into()
    }

    /// The ERROR event that ends a watch.
    fn error(&self, status: &Status) -> Bytes {
        let mut out = Vec::new();
        self.write_as("ERROR", "Status", &status.to_value(), &mut out);
        out.into()
    }

    fn shaped(&mut self, object: Value) -> Value {
        match &self.format.shape {
            Shape::Whole => object,
            Shape::Partial(version) => transform::partial(&object, version),
            Shape::Table(version) => {
                let resource = &self.target.resource;
                let headings = (!self.headings_sent).then(|| transform::headings(resource));
                self.headings_sent = true;
                let metadata = Map::from_iter([("resourceVersion".to_owned(), object["metadata"]["resourceVersion"].clone())]);
                let row = transform::row(resource, &object, version, self.include, Timestamp::now());
                transform::table(version, metadata, headings, vec![row])
            }
        }
    }

    fn write(&self, word: &str, object: &Value, out: &mut Vec<u8>) {
        let message = match self.format.shape {
            Shape::Whole => "",
            Shape::Partial(_) => "PartialObjectMetadata",
            Shape::Table(_) => "Table",
        };
        self.write_as(word, message, object, out);
    }

    fn write_as(&self, word: &str, message: &str, object: &Value, out: &mut Vec<u8>) {
        if self.format.media == Media::Protobuf {
            let schema = catalogue::builtin().message(message).unwrap_or(&self.target.resource.schema);
            let event = protobuf::encode_event(word, &protobuf::encode(schema, object));
            // Frames of a stream have their length before them.
            out.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&event);
            return;
        }
        // A Value can always be written.
        let _ = serde_json::to_writer(&mut *out, &json!({"type": word, "object": object}));
        out.push(b'\n');
    }
}
