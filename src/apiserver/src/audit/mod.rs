//! Audit: who did what, as events of upstream's form in a log on the disk. What a policy does not want costs a look at its rules.

mod event;
mod file;
mod log;
mod policy;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, header::USER_AGENT};
use jiff::Timestamp;
use serde_json::Value;

use self::{
    event::{Answer, Asked, Event, Gathered, Reference},
    log::Log,
    policy::{Level, Policy, Stage},
};
pub use self::{file::Bounds, log::LogError, policy::PolicyError};
use crate::{authorization::Question, catalogue::Live, request::User};

/// Characters of a user agent that are recorded; upstream's bound.
const AGENT_CHARS: usize = 1024;
/// Annotations of one event: a policy may have many bindings, and each may say something.
const ANNOTATIONS: usize = 128;
/// Characters of an annotation; upstream's bound on what policies may say.
const ANNOTATION_CHARS: usize = 10 << 10;

/// What an audit is told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The log; `-` is standard output, `None`: nothing is recorded.
    pub log: Option<PathBuf>,
    /// What is recorded; `None`: who wrote what.
    pub policy: Option<PathBuf>,
    /// What the disk may hold.
    pub bounds: Bounds,
}

/// Why requests cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// By no policy.
    #[error("the audit policy cannot be used")]
    Policy(#[from] PolicyError),
    /// Nowhere.
    #[error("the audit log cannot be used")]
    Log(#[from] LogError),
}

/// The audit of a server.
#[derive(Debug)]
pub struct Audit {
    policy: Policy,
    log: Option<Arc<Log>>,
}

/// What became of audit events since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub events: u64,
    /// Those that are not in the log.
    pub lost: u64,
}

/// A request as its connection sees it.
#[derive(Clone, Copy, Debug)]
pub struct Came<'a> {
    /// Its id.
    pub id: &'a str,
    /// When.
    pub at: Timestamp,
    /// Path and query.
    pub uri: &'a http::Uri,
    /// As they came.
    pub headers: &'a HeaderMap,
    /// Where from; none inside the process.
    pub peer: Option<IpAddr>,
}

impl Audit {
    /// Reads the policy and opens the log.
    pub fn open(config: &Config, catalogue: Live) -> Result<Self, AuditError> {
        let Some(path) = &config.log else { return Ok(Self { policy: Policy::default(), log: None }) };
        let policy = config.policy.as_deref().map_or_else(|| Ok(Policy::writes()), Policy::read)?;
        Ok(Self { policy, log: Some(Arc::new(Log::open(path, config.bounds, catalogue)?)) })
    }

    /// What became of events so far.
    pub fn counts(&self) -> Counts {
        let Some(log) = &self.log else { return Counts::default() };
        Counts { events: log.counts.events.load(Ordering::Relaxed), lost: log.counts.lost.load(Ordering::Relaxed) }
    }

    /// A request begins: what is gathered of it from now on, if anything.
    pub fn begin(&self, question: &Question<'_>, came: Came<'_>) -> Annotations {
        let Some(log) = &self.log else { return Annotations::default() };
        let verdict = self.policy.judge(question);
        if verdict.level == Level::None {
            return Annotations::default();
        }
        let asked = Asked {
            id: came.id.to_owned(),
            uri: came.uri.path_and_query().map(|uri| uri.as_str().to_owned()).unwrap_or_default(),
            verb: question.verb.to_owned(),
            user: question.user.clone(),
            sources: sources(came.headers, came.peer),
            agent: agent(came.headers),
            reference: question.is_resource.then(|| Reference {
                resource: question.resource.to_owned(),
                namespace: question.namespace.to_owned(),
                name: question.name.to_owned(),
                api_group: question.group.to_owned(),
                api_version: question.version.to_owned(),
                subresource: question.subresource.to_owned(),
                ..Reference::default()
            }),
            received: came.at,
            verdict,
        };
        let record = Record { log: Arc::clone(log), asked: Arc::new(asked), state: Mutex::default() };
        record.send(Stage::RequestReceived, came.at, &Gathered::default());
        Annotations(Some(Arc::new(record)))
    }
}

/// What is gathered of a request for its audit event, by whoever has something to say; clones share it. Nothing when the request is not audited.
#[derive(Clone, Default)]
pub struct Annotations(Option<Arc<Record>>);

impl fmt::Debug for Annotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Annotations").field(&self.0.as_ref().map(|record| &record.asked.id)).finish()
    }
}

/// An audited request. Its last event is sent when it is said to be complete, or when nobody holds it any more.
struct Record {
    log: Arc<Log>,
    asked: Arc<Asked>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gathered: Gathered,
    complete: bool,
}

impl Annotations {
    /// Adds what an authorizer or a plugin has to say, under a key of its own (`pod-security.kubernetes.io/exempt`); the first word counts.
    pub fn add(&self, key: &str, value: impl Into<String>) {
        let Some(record) = &self.0 else { return };
        let annotations = &mut record.state().gathered.annotations;
        if annotations.len() < ANNOTATIONS && !annotations.contains_key(key) {
            annotations.insert(key.to_owned(), value.into().chars().take(ANNOTATION_CHARS).collect());
        }
    }

    /// Whether annotations go anywhere: who would have to make them up with some effort may ask.
    pub fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// The object that was sent, decoded.
    pub fn object(&self, object: &Value) {
        let Some(record) = &self.0 else { return };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let reference = Reference {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..Reference::default()
        };
        record.state().gathered.object = reference;
        self.sent(object);
    }

    /// A patch or options that were sent, which say nothing of the object.
    pub fn sent(&self, document: &Value) {
        if let Some(record) = self.0.as_ref().filter(|record| record.asked.verdict.level >= Level::Request) {
            record.state().gathered.request = Some(document.clone());
        }
    }

    /// Whom the user acts as.
    pub(crate) fn impersonates(&self, user: &User) {
        if let Some(record) = &self.0 {
            record.state().gathered.impersonated = Some(user.clone());
        }
    }

    /// Whether it is a deletion: answered with a Status too.
    pub(crate) fn deletes(&self) -> bool {
        self.0.as_ref().is_some_and(|record| record.asked.verb.starts_with("delete"))
    }

    /// Whether the answer's body is to be recorded: a Status always, every other object by the level.
    pub(crate) fn wants_body(&self, is_status: bool) -> bool {
        self.0.as_ref().is_some_and(|record| is_status || record.asked.verdict.level >= Level::RequestResponse)
    }

    /// The head of the answer is known. With `more` to follow, that is an event of its own.
    pub(crate) fn answered(&self, code: u16, message: &str, body: Option<(String, Bytes)>, more: bool) {
        let Some(record) = &self.0 else { return };
        let mut state = record.state();
        state.gathered.answer = Some(Answer { code, message: message.to_owned(), body });
        if more {
            record.send(Stage::ResponseStarted, Timestamp::now(), &state.gathered);
        }
    }

    /// All is said.
    pub(crate) fn complete(&self) {
        if let Some(record) = &self.0 {
            record.end(Stage::ResponseComplete);
        }
    }

    /// No event follows: of a failed authentication upstream records the head of the answer alone.
    pub(crate) fn forget(&self) {
        if let Some(record) = &self.0 {
            record.state().complete = true;
        }
    }
}

impl Record {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, stage: Stage, at: Timestamp, gathered: &Gathered) {
        if self.asked.verdict.wants(stage) {
            self.log.send(Event { asked: Arc::clone(&self.asked), stage, at, gathered: gathered.clone() });
        }
    }

    fn end(&self, stage: Stage) {
        let mut state = self.state();
        if std::mem::replace(&mut state.complete, true) || !self.asked.verdict.wants(stage) {
            return;
        }
        let mut gathered = std::mem::take(&mut state.gathered);
        drop(state);
        if gathered.answer.is_none() {
            gathered.answer = Some(match stage {
                Stage::Panic => Answer { code: 500, ..Answer::default() },
                _ => Answer { code: 200, message: "Connection closed early".into(), body: None },
            });
        }
        self.log.send(Event { asked: Arc::clone(&self.asked), stage, at: Timestamp::now(), gathered });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete });
    }
}

/// What a failed authentication tried, as upstream tells it.
pub(crate) fn attempted(headers: &HeaderMap, certificate: bool) -> String {
    let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let scheme = authorization.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let mut tried = Vec::new();
    tried.extend(scheme.filter(|scheme| scheme == "basic" || scheme == "bearer"));
    tried.extend(certificate.then(|| "x509".to_owned()));
    if tried.is_empty() {
        return "Authentication failed, no credentials provided".into();
    }
    format!("Authentication failed, attempted: {}", tried.join(", "))
}

/// Where a request comes from: what proxies say, then who is at the other end.
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut out: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    let more = text("x-real-ip").trim().parse().ok().into_iter().chain(peer);
    for address in more {
        if out.last() != Some(&address) {
            out.push(address);
        }
    }
    out
}

fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A header that is text is ASCII.
    if text.len() > AGENT_CHARS { format!("{}...TRUNCATED", &text[..AGENT_CHARS]) } else { text.to_owned() }
}
