//! The protocol: pages of a list, then events from its revision on, resumed where they broke. Objects are bytes here.

use std::{borrow::Cow, io, mem, pin::Pin, sync::Arc, time::Duration, vec};

use futures::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _,
    stream::{self, BoxStream, StreamExt as _},
};
use kube::{
    Client,
    api::{ListParams, WatchParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Scope, Step, WatchError};
use crate::backoff::Reconnect;

/// Objects of a page of a list: its bytes are in memory as a whole.
const PAGE_OBJECTS: u32 = 250;
/// Seconds after which the server ends a watch, so that a half-dead one does not last.
const WATCH_SECONDS: u32 = 290;
/// A watch that tells nothing for so long, not even its end, is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// Bytes of one event: twice the largest object that a store here takes.
const EVENT_BYTES: u64 = 8 << 20;
/// Room for events that an idle watch keeps.
const KEPT_BYTES: usize = 16 << 10;
/// `Expired`: what was asked for lies behind the server's history.
const GONE: u16 = 410;

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

/// What is followed, and how far it is.
pub(super) struct Source {
    client: Client,
    path: Arc<str>,
    scope: Scope,
    metadata_only: bool,
    at: At,
    /// The last event of the open watch, as it came; its revision is looked for when the watch ends, and never before.
    last: Vec<u8>,
    line: Vec<u8>,
    reconnect: Reconnect,
    /// The next attempt waits.
    failed: bool,
}

enum At {
    /// Before a list.
    Start,
    /// Before a page of it, the first without a token.
    List { token: Option<String> },
    /// Within a page.
    Page { objects: vec::IntoIter<Box<RawValue>>, then: Then },
    /// Before a watch from this revision on.
    Behind { revision: String },
    /// In a watch that began there.
    Open { events: Reader, revision: String, heard: bool },
}

enum Then {
    Page(String),
    Watch(String),
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: u16,
    message: String,
}

impl Source {
    pub(super) fn new(client: Client, path: Arc<str>, scope: Scope, metadata_only: bool) -> Self {
        let (last, line, reconnect) = (Vec::new(), Vec::new(), Reconnect::default());
        Self { client, path, scope, metadata_only, at: At::Start, last, line, reconnect, failed: false }
    }

    /// Everything from now on; no end.
    pub(super) fn steps(self) -> BoxStream<'static, Result<Step<Box<RawValue>>, WatchError>> {
        let next = |mut source: Self| async move {
            let step = source.next().await;
            Some((step, source))
        };
        stream::unfold(self, next).boxed()
    }

    async fn next(&mut self) -> Result<Step<Box<RawValue>>, WatchError> {
        loop {
            if mem::take(&mut self.failed) {
                tokio::time::sleep(self.reconnect.next_delay()).await;
            }
            match self.advance().await {
                // Only progress begins the delays anew: a refused list comes right behind its beginning.
                Ok(Some(Step::Begin)) => return Ok(Step::Begin),
                Ok(Some(step)) => {
                    self.reconnect.reset();
                    return Ok(step);
                }
                Ok(None) => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// One move; `None`: nothing to tell of.
    async fn advance(&mut self) -> Result<Option<Step<Box<RawValue>>>, WatchError> {
        match mem::replace(&mut self.at, At::Start) {
            At::Start => {
                self.at = At::List { token: None };
                Ok(Some(Step::Begin))
            }
            At::List { token } => {
                // One that fails is begun anew: a token may be what was wrong.
                let (objects, then) = self.page(token).await?;
                self.at = At::Page { objects: objects.into_iter(), then };
                Ok(None)
            }
            At::Page { mut objects, then } => match (objects.next(), then) {
                (Some(object), then) => {
                    self.at = At::Page { objects, then };
                    Ok(Some(Step::Listed(object)))
                }
                (None, Then::Page(token)) => {
                    self.at = At::List { token: Some(token) };
                    Ok(None)
                }
                (None, Then::Watch(revision)) => {
                    self.at = At::Behind { revision };
                    Ok(Some(Step::Complete))
                }
            },
            At::Behind { revision } => match self.open(&revision).await {
                Ok(events) => {
                    self.last.clear();
                    self.at = At::Open { events, revision, heard: false };
                    Ok(None)
                }
                Err(source) => {
                    let expired = matches!(&source, kube::Error::Api(status) if status.code == GONE);
                    if !expired {
                        self.at = At::Behind { revision };
                    }
                    Err(WatchError::Open { path: Arc::clone(&self.path), source: Box::new(source) })
                }
            },
            At::Open { mut events, revision, heard } => {
                let came = tokio::time::timeout(SILENCE, read_line(&mut events, &mut self.line)).await;
                match came.unwrap_or(Ok(false)) {
                    Ok(true) => {
                        mem::swap(&mut self.line, &mut self.last);
                        let step = self.event();
                        if !matches!(step, Err(WatchError::Ended { .. })) {
                            self.at = At::Open { events, revision, heard: true };
                        }
                        step
                    }
                    Ok(false) => {
                        // A server that ends every watch at once is not asked in a circle.
                        self.failed = !heard;
                        self.at = At::Behind { revision: self.reached(revision) };
                        Ok(None)
                    }
                    Err(source) => {
                        self.at = At::Behind { revision: self.reached(revision) };
                        Err(WatchError::Broken { path: Arc::clone(&self.path), source })
                    }
                }
            }
        }
    }

    async fn page(&mut self, token: Option<String>) -> Result<(Vec<Box<RawValue>>, Then), WatchError> {
        let path = Arc::clone(&self.path);
        let listed = |source| WatchError::List { path: Arc::clone(&path), source: Box::new(source) };
        let params = ListParams {
            field_selector: self.scope.fields.clone(),
            label_selector: self.scope.labels.clone(),
            limit: Some(PAGE_OBJECTS),
            continue_token: token,
            ..ListParams::default()
        };
        let request = Request::new(&*self.path);
        let request = if self.metadata_only { request.list_metadata(&params) } else { request.list(&params) };
        let request = request.map_err(|error| listed(kube::Error::BuildRequest(error)))?;
        let text = self.client.request_text(request).await.map_err(listed)?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(|source| self.unreadable(source))?;
        let objects = page.items.unwrap_or_default().into_iter().map(ToOwned::to_owned).collect();
        let then = match page.metadata.r#continue.filter(|token| !token.is_empty()) {
            Some(token) => Then::Page(token),
            None => Then::Watch(page.metadata.resource_version.unwrap_or_default()),
        };
        Ok((objects, then))
    }

    async fn open(&mut self, revision: &str) -> Result<Reader, kube::Error> {
        let params = WatchParams {
            field_selector: self.scope.fields.clone(),
            label_selector: self.scope.labels.clone(),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let request = Request::new(&*self.path);
        let request = if self.metadata_only { request.watch_metadata(&params, revision) } else { request.watch(&params, revision) };
        Ok(Box::pin(self.client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?))
    }

    /// What the last event tells; `None` for a bookmark.
    fn event(&self) -> Result<Option<Step<Box<RawValue>>>, WatchError> {
        let Event { r#type, object } = serde_json::from_slice(&self.last).map_err(|source| self.unreadable(source))?;
        Ok(match &*r#type {
            "ADDED" | "MODIFIED" => Some(Step::Put(object.to_owned())),
            "DELETED" => Some(Step::Deleted(object.to_owned())),
            "ERROR" => {
                let Refusal { code, message } = serde_json::from_str(object.get()).unwrap_or_default();
                return Err(WatchError::Ended { path: Arc::clone(&self.path), code, message });
            }
            // A bookmark, or what a later server has more.
            _ => None,
        })
    }

    /// The revision of the last event; `before` when there was none.
    fn reached(&self, before: String) -> String {
        #[derive(Deserialize)]
        struct Object {
            metadata: PageMeta,
        }
        #[derive(Deserialize)]
        struct Revised {
            object: Object,
        }
        let revised: Option<Revised> = serde_json::from_slice(&self.last).ok();
        revised.and_then(|event| event.object.metadata.resource_version).unwrap_or(before)
    }

    fn unreadable(&self, source: serde_json::Error) -> WatchError {
        WatchError::Decode { path: Arc::clone(&self.path), source }
    }
}

/// The next line; false: there is none any more.
async fn read_line(events: &mut Reader, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    // The room of a large event need not stay.
    line.shrink_to(KEPT_BYTES);
    let read = events.take(EVENT_BYTES).read_until(b'\n', line).await?;
    match line.last() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if read as u64 == EVENT_BYTES => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("an event of more than {EVENT_BYTES} bytes")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within an event")),
    }
}
