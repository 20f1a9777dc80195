//! An extension API server behind an APIService: where it is, how it is asked, and what was last seen of it.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, ETAG, IF_NONE_MATCH},
};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::{sync::Notify, time::timeout};

use super::{
    connect::{Client, Clients, Dialer},
    identity,
    locate::{self, Missing, Place},
    service::{ApiService, Reference},
};
use crate::{authorization::masters, body::Body, objects::Objects, request::User};

/// How long a server may take to answer a question of our own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// One of them.
pub struct Remote {
    /// Of the APIService.
    pub name: String,
    /// Tells the APIService from another of its name.
    pub uid: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The APIService's word on where and how.
    pub reference: Reference,
    clients: Result<Clients, String>,
    places: ArcSwap<Result<Vec<Place>, Missing>>,
    turn: AtomicUsize,
    state: ArcSwap<State>,
    /// Something may have changed: look again.
    pub wake: Notify,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was last seen of it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Requests are sent there.
    pub available: bool,
    /// The last question was answered.
    pub fresh: bool,
    /// Its APIResourceList.
    pub resources: Arc<Value>,
    /// Where it has its OpenAPI v3 document, with the hash that changes with it.
    pub v3: Option<Known<String>>,
    /// Its part of OpenAPI v2, as JSON.
    pub v2: Option<Known<Bytes>>,
}

/// What was read of a document, and its tag if the server gives one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// What was read.
    pub content: T,
    /// Of the document.
    pub etag: Option<HeaderValue>,
}

/// An answer that is there as a whole.
#[derive(Debug)]
pub struct Answer {
    /// 2xx or 304.
    pub code: StatusCode,
    /// Its ETag.
    pub etag: Option<HeaderValue>,
    /// Within the bound.
    pub body: Bytes,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody can be asked.
    #[error("{0}")]
    Client(String),
    /// No connection, or one that broke.
    #[error("failing or missing response from {url}")]
    Failed {
        /// Asked.
        url: Uri,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another answer.
    #[error("failing or missing response from {url}: bad status from {url}: {code}")]
    Code {
        /// Asked.
        url: Uri,
        /// Its status.
        code: u16,
    },
    /// No answer in time.
    #[error("timed out waiting for {url}")]
    Late {
        /// Asked.
        url: Uri,
    },
    /// A path that cannot be asked for.
    #[error("{0:?} is not an address")]
    Address(String),
}

/// An error with its causes.
pub fn told(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Remote {
    /// Behind an APIService that is not served here.
    pub fn new(service: &ApiService, reference: Reference, dialer: &Dialer, objects: &dyn Objects) -> Self {
        let clients = dialer.clients(&reference).map_err(|error| told(&error));
        let places = ArcSwap::from_pointee(locate::find(objects, &reference));
        let state = ArcSwap::from_pointee(State { available: service.is_available(), ..State::default() });
        Self {
            name: service.name.clone(),
            uid: service.uid.clone(),
            group: service.group.clone(),
            version: service.version.clone(),
            reference,
            clients,
            places,
            turn: AtomicUsize::new(0),
            state,
            wake: Notify::new(),
        }
    }

    /// It is still the same APIService with the same server.
    pub fn is(&self, service: &ApiService) -> bool {
        let same = (&self.uid, &self.group, &self.version) == (&service.uid, &service.group, &service.version);
        same && service.remote.as_ref() == Some(&self.reference)
    }

    /// Looks for its addresses anew, and wakes who checks it when they are others.
    pub fn locate(&self, objects: &dyn Objects) {
        let places = locate::find(objects, &self.reference);
        if **self.places.load() != places {
            self.places.store(Arc::new(places));
            self.wake.notify_one();
        }
    }

    /// What was last seen of it.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Remembers what was seen.
    pub fn saw(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// All its addresses.
    pub fn places(&self) -> Arc<Result<Vec<Place>, Missing>> {
        self.places.load_full()
    }

    /// The address of the next request: all have their turn.
    pub fn next_place(&self) -> Option<Place> {
        let places = self.places.load();
        let places = places.as_ref().as_ref().ok()?;
        places.get(self.turn.fetch_add(1, Ordering::Relaxed) % places.len().max(1)).cloned()
    }

    /// How it is asked for an answer that comes at once, or for one that lives on; or why it cannot be.
    pub fn client(&self, long: bool) -> Result<&Client, &str> {
        let Clients { short, long: living } = self.clients.as_ref().map_err(String::as_str)?;
        Ok(if long { living } else { short })
    }

    /// `/apis/GROUP/VERSION`.
    pub fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// A question of our own, answered with at most `limit` bytes.
    pub async fn ask(&self, place: &Place, path: &str, etag: Option<&HeaderValue>, limit: usize) -> Result<Answer, AskError> {
        let client = self.client(false).map_err(|why| AskError::Client(why.to_owned()))?;
        let url = format!("https://{}{path}", place.authority());
        let url: Uri = url.parse().map_err(|_| AskError::Address(url))?;
        let request = question(url.clone(), etag);
        let answered = async {
            let reply = client.request(request).await.map_err(|error| AskError::Failed { url: url.clone(), source: error.into() })?;
            let (code, etag) = (reply.status(), reply.headers().get(ETAG).cloned());
            if !code.is_success() && code != StatusCode::NOT_MODIFIED {
                return Err(AskError::Code { url: url.clone(), code: code.as_u16() });
            }
            let body = Limited::new(reply.into_body(), limit).collect().await;
            let body = body.map_err(|source| AskError::Failed { url: url.clone(), source })?.to_bytes();
            Ok(Answer { code, etag, body })
        };
        timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(|_| Err(AskError::Late { url: url.clone() }))
    }
}

/// In the name of the aggregator itself, which may see everything.
fn question(url: Uri, etag: Option<&HeaderValue>) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(etag) = etag {
        headers.insert(IF_NONE_MATCH, etag.clone());
    }
    identify(headers);
    request
}

fn identify(headers: &mut HeaderMap) {
    let user = User { name: "system:kube-aggregator".into(), groups: vec![masters::GROUP.into()], ..User::default() };
    // Both names can stand in a header.
    let _ = identity::put(headers, &user);
}
