//! The keys of one issuer: found by discovery when the first token needs them, kept, and fetched again for a key that is not known.
//!
//! One fetch at a time, in a task of its own: who waits for it may go away, and an issuer that hangs holds up its own tokens alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use coracle_pki::jwk::{JwtError, KeySet, KeySetError, Token};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::{Request, StatusCode, Uri, header::ACCEPT};
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

use super::super::{
    configuration,
    remote::{ClientError, Remote, RemoteError, Trust},
};

/// How long an issuer may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of discovery and of the key set each: real ones have some 10 KiB.
const ANSWER_BOUND: usize = 1 << 20;
/// The soonest that an issuer is asked again, whatever the tokens: strangers make up key ids for nothing.
const REST: Duration = Duration::from_secs(1);
/// Requests that wait for the keys of one issuer; beyond them tokens are refused at once.
const WAITING: usize = 256;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No answer.
    #[error("the issuer does not answer")]
    Remote(#[from] RemoteError),
    /// An answer that is a failure.
    #[error("{uri} answered {status}")]
    Status {
        /// What was asked.
        uri: String,
        /// What it said.
        status: StatusCode,
    },
    /// Not JSON.
    #[error("{0} did not answer with JSON")]
    Form(String),
    /// Somebody else's document.
    #[error("discovery is that of {found:?}, not of {wanted:?}")]
    Issuer {
        /// As it says.
        found: String,
        /// As configured.
        wanted: String,
    },
    /// No place where keys are.
    #[error("discovery names no jwks_uri that is an https address: {0:?}")]
    Address(String),
    /// Not a set of keys.
    #[error("the key set {0}")]
    KeySet(#[from] KeySetError),
    /// Asked a moment ago.
    #[error("the issuer was asked for its keys less than a second ago")]
    Resting,
    /// Everybody waits.
    #[error("{WAITING} requests wait for the keys of this issuer already")]
    Busy,
}

/// Why a token was not verified.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    /// The token's fault.
    #[error(transparent)]
    Token(#[from] JwtError),
    /// The issuer's.
    #[error("the issuer's keys are not known")]
    Keys(#[source] Arc<KeysError>),
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<KeySet>, Arc<KeysError>>>>;

/// One issuer.
#[derive(Debug)]
pub struct Issuer {
    url: String,
    discovery: String,
    remote: Remote,
    state: Mutex<State>,
    waiting: Semaphore,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    under_way: Option<Fetch>,
    asked: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("keys", &self.keys.as_ref().map(|keys| keys.len()))
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// As configured; nobody is asked yet.
    pub fn new(of: &configuration::Issuer) -> Result<Self, ClientError> {
        let trust = Trust { authority: of.certificate_authority.clone(), ..Trust::default() };
        let discovery = match of.discovery_url.as_str() {
            "" => format!("{}{WELL_KNOWN}", of.url.trim_end_matches('/')),
            given => given.to_owned(),
        };
        let (remote, state, waiting) = (Remote::new(&trust)?, Mutex::default(), Semaphore::new(WAITING));
        Ok(Self { url: of.url.clone(), discovery, remote, state, waiting })
    }

    /// Whether the issuer signed the token, by the keys that are known or those that it has by now.
    pub async fn verify(self: &Arc<Self>, token: &Token<'_>) -> Result<(), VerifyError> {
        let known = self.lock().keys.clone();
        if let Some(keys) = &known
            && keys.verify(token).is_ok()
        {
            return Ok(());
        }
        let failed = |error: Arc<KeysError>| match known {
            // With keys at hand it is the token that is not by them.
            Some(_) if matches!(*error, KeysError::Resting) => VerifyError::Token(JwtError::Signature),
            _ => VerifyError::Keys(error),
        };
        let fresh = self.fresher(known.as_ref()).await.map_err(failed)?;
        Ok(fresh.verify(token)?)
    }

    /// Keys that came after those that were seen.
    async fn fresher(self: &Arc<Self>, seen: Option<&Arc<KeySet>>) -> Result<Arc<KeySet>, Arc<KeysError>> {
        let _place = self.waiting.try_acquire().map_err(|_| KeysError::Busy)?;
        let fetch = {
            let mut state = self.lock();
            match (&state.keys, &state.under_way) {
                (Some(keys), _) if !seen.is_some_and(|seen| Arc::ptr_eq(seen, keys)) => return Ok(Arc::clone(keys)),
                (_, Some(fetch)) => fetch.clone(),
                _ if state.asked.is_some_and(|at| at.elapsed() < REST) => return Err(KeysError::Resting.into()),
                _ => {
                    let fetch = self.fetch();
                    state.asked = Some(Instant::now());
                    state.under_way = Some(fetch.clone());
                    fetch
                }
            }
        };
        fetch.await
    }

    /// Begins to fetch; the task goes on whoever waits for it.
    fn fetch(self: &Arc<Self>) -> Fetch {
        let issuer = Arc::clone(self);
        let task = tokio::spawn(async move {
            let fetched = issuer.ask_keys().await.map(Arc::new).map_err(Arc::new);
            let mut state = issuer.lock();
            state.under_way = None;
            match &fetched {
                Ok(keys) => state.keys = Some(Arc::clone(keys)),
                Err(error) => tracing::warn!(issuer = issuer.url, error = &**error as &dyn std::error::Error, "no keys"),
            }
            fetched
        });
        // It neither panics nor is it aborted, save at the end of the process.
        task.map(|ended| ended.unwrap_or_else(|_| Err(KeysError::Resting.into()))).boxed().shared()
    }

    async fn ask_keys(&self) -> Result<KeySet, KeysError> {
        let discovery = self.get(&self.discovery).await?;
        let found = discovery["issuer"].as_str().unwrap_or_default();
        if found != self.url {
            return Err(KeysError::Issuer { found: found.to_owned(), wanted: self.url.clone() });
        }
        let keys = self.get(discovery["jwks_uri"].as_str().unwrap_or_default()).await?;
        Ok(KeySet::read(&keys)?)
    }

    async fn get(&self, uri: &str) -> Result<Value, KeysError> {
        let address = || KeysError::Address(uri.to_owned());
        let parsed: Uri = uri.parse().map_err(|_| address())?;
        let request = Request::get(parsed).header(ACCEPT, "application/json").body(Bytes::new()).map_err(|_| address())?;
        let (status, body) = self.remote.ask(request, PATIENCE, ANSWER_BOUND).await?;
        if status != StatusCode::OK {
            return Err(KeysError::Status { uri: uri.to_owned(), status });
        }
        serde_json::from_slice(&body).map_err(|_| KeysError::Form(uri.to_owned()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
