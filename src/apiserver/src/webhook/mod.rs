//! Calls to webhooks: servers of other people that the API server asks about objects, over TLS, by URL or by Service.

mod connect;
mod place;
pub(crate) mod resolve;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::crypto::CryptoProvider;
use serde_json::Value;
use tokio::time::timeout;

use crate::objects::Objects;
use connect::Dial;
pub(crate) use place::PlaceError;
use place::{Address, Place};

/// Servers whose connections are kept; webhooks in use hold their own.
const MAX_SERVERS: usize = 64;
/// Connections to one server that wait for the next call. Upstream's number.
const MAX_IDLE_CONNECTIONS: usize = 25;
/// How long they wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Characters of a refusal's body that are told on.
const MAX_TOLD_CHARS: usize = 256;
/// What we call ourselves. Upstream's name.
const AGENT: &str = "kube-apiserver-admission";

/// Why a call had no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It took too long. Clients match on these words.
    #[error("Post {url:?}: context deadline exceeded")]
    Late {
        /// What was called.
        url: String,
    },
    /// There was no connection, or it broke.
    #[error("Post {url:?}: {}", told(source))]
    Broken {
        /// What was called.
        url: String,
        /// How.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The body of the answer ended early.
    #[error("Post {url:?}: the answer ends early: {why}")]
    Cut {
        /// What was called.
        url: String,
        /// How.
        why: String,
    },
    /// The body of the answer has no end, or one too far away.
    #[error("Post {url:?}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// What was called.
        url: String,
        /// Bytes.
        limit: usize,
    },
    /// It answers that it will not.
    #[error("Post {url:?}: the server answered {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// What was called.
        url: String,
        /// Of the answer.
        code: StatusCode,
        /// The beginning of the answer's body.
        text: String,
    },
    /// The answer is not JSON.
    #[error("Post {url:?}: the answer is not JSON: {source}")]
    Garbage {
        /// What was called.
        url: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// An error with all that is behind it, in one line.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// The servers that were asked last, each with its connections; who asks for the same one again gets the same connections.
pub(crate) struct Servers {
    objects: Arc<dyn Objects>,
    provider: Arc<CryptoProvider>,
    /// By the text of their `clientConfig`, the one asked last at the end.
    known: Mutex<Vec<(String, Arc<Server>)>>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Servers {
    /// Services are looked up in `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { objects, provider, known: Mutex::default() }
    }

    /// The server of a `clientConfig`. Nothing is connected yet.
    pub fn of(&self, config: &Value) -> Result<Arc<Server>, PlaceError> {
        let key = config.to_string();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match known.iter().position(|(known, _)| *known == key) {
            Some(at) => known.remove(at),
            None => (key, Arc::new(Server::new(Place::read(config, &self.provider)?, Arc::clone(&self.objects)))),
        };
        let server = Arc::clone(&entry.1);
        known.push(entry);
        if known.len() > MAX_SERVERS {
            known.remove(0);
        }
        Ok(server)
    }
}

/// One server and its connections.
pub(crate) struct Server {
    address: Address,
    client: Client<Dial, Full<Bytes>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    fn new(place: Place, objects: Arc<dyn Objects>) -> Self {
        let address = place.address.clone();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Dial::new(place, objects));
        Self { address, client }
    }

    /// Posts JSON and reads JSON: within `patience`, and at most `limit` bytes.
    pub async fn post(&self, body: Vec<u8>, patience: Duration, limit: usize) -> Result<Value, CallError> {
        let url = format!("{}?timeout={}s", self.address.url, patience.as_secs().max(1));
        match timeout(patience, self.exchange(&url, body, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Late { url }),
        }
    }

    async fn exchange(&self, url: &str, body: Vec<u8>, limit: usize) -> Result<Value, CallError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = http::Method::POST;
        // The address was read as one; only the query is new.
        *request.uri_mut() = url.parse().unwrap_or_else(|_| Uri::default());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, http::HeaderValue::from_static(AGENT));
        let answer = self.client.request(request).await.map_err(|source| CallError::Broken { url: url.to_owned(), source })?;
        let code = answer.status();
        let too_large = || CallError::TooLarge { url: url.to_owned(), limit };
        // What says that it is too large need not be waited for.
        if answer.body().size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let bytes = match Limited::new(answer.into_body(), limit).collect().await {
            Ok(whole) => whole.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(error) => return Err(CallError::Cut { url: url.to_owned(), why: told(&*error) }),
        };
        if !code.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            let plain = text.trim().chars().take(MAX_TOLD_CHARS).map(|c| if c.is_control() { ' ' } else { c });
            return Err(CallError::Refused { url: url.to_owned(), code, text: plain.collect() });
        }
        serde_json::from_slice(&bytes).map_err(|source| CallError::Garbage { url: url.to_owned(), source })
    }
}
