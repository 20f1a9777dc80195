//! The way of a request to its handler: read what is asked, who asks, as whom, whether there is room, whether they may. And of its answer back.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use coracle_api::status::Status;
use futures::StreamExt as _;
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderName},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::{BodyStream, StreamBody};
use jiff::Timestamp;

use crate::{
    answer,
    audit::{self, Annotations, Came},
    authentication::{Caller, websocket},
    authorization::{Decision, Question},
    body::Body,
    deadline, flow, impersonation, metrics, output,
    recorded::{self, Trail},
    request::{Context, RequestInfo, User},
    request_info,
    server::Shared,
    socket, uuid,
    warnings::Warnings,
};

/// Says which request a log line is about; a client may have chosen it.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// No proxy may keep what depends on who asks.
const PRIVATE: HeaderValue = HeaderValue::from_static("no-cache, private");
/// Seconds after which a server that is shutting down is back, or another one is there.
const LEAVING_S: u32 = 1;
/// Where these paths lead everybody may go, so that probes work before a role exists.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The address at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub IpAddr);

/// A request when it comes in.
struct Begun {
    id: HeaderValue,
    at: Timestamp,
    since: Instant,
}

impl Begun {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
        let id = given.or_else(|| HeaderValue::try_from(uuid::random()).ok()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { id, at: Timestamp::now(), since: Instant::now() }
    }
}

/// The one layer around all routes. Handlers find the request's [`Context`] as an extractor.
pub(crate) async fn pass(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let begun = Begun::of(request.headers());
    let (mut trail, warnings) = (Trail::default(), Warnings::default());
    let answer = admit(&shared, request, next, &begun, (&mut trail, &warnings)).await;
    let mut answer = answer.unwrap_or_else(|status| answer::status(&status));
    output::warn(&mut answer, &warnings.told());
    let (flow, socket) = (trail.flow.take(), trail.socket.take());
    let mut answer = recorded::record(answer, trail, begun.since).await;
    if let Some(socket) = socket {
        answer = socket.carry(answer);
    }
    let headers = answer.headers_mut();
    if let Some(flow) = flow {
        flow.put(headers);
    }
    headers.insert(AUDIT_ID, begun.id);
    headers.entry(CACHE_CONTROL).or_insert(PRIVATE);
    answer
}

async fn admit(
    shared: &Shared,
    mut request: Request,
    next: Next,
    begun: &Begun,
    (trail, warnings): (&mut Trail, &Warnings),
) -> Result<Response, Status> {
    let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect::<Vec<_>>();
    let info =
        request_info::parse(request.method(), request.uri().path(), &query).map_err(|error| Status::bad_request(error.to_string()))?;
    let asked = metrics::Asked::of(&info, request.method(), request.headers(), &query);
    trail.running = Some(shared.registry.metrics().begin(&asked, served(shared, &info)));
    let begin_audit = |request: &Request, user: &User| {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        let id = begun.id.to_str().unwrap_or_default();
        let came = Came { id, at: begun.at, uri: request.uri(), headers: request.headers(), peer };
        shared.audit.begin(&Question::of(user, &info, &query), came)
    };
    let user = match authenticate(shared, &mut request, &info).await {
        Ok(user) => user,
        Err((status, attempted)) => {
            trail.audit = begin_audit(&request, &User::default());
            trail.attempted = Some(attempted);
            return Err(status);
        }
    };
    trail.audit = begin_audit(&request, &user);
    let stream = request_info::long_running(&info);
    let patience = if stream { Duration::MAX } else { deadline::of(&query).map_err(|error| invalid_timeout(&error))? };
    if stream && shared.stop.is_cancelled() {
        return Err(leaving());
    }
    let (user, acts_for) = impersonation::impersonate(user, request.headers_mut(), &shared.authorizers)?;
    if acts_for {
        trail.audit.impersonates(&user);
    }
    // The place is given back when the answer is known, not when the client has read it: of a watch, when it begins.
    let _place = if stream && info.verb != "watch" {
        None
    } else {
        let came = Instant::now();
        let (headers, place) = shared.flow.enter(flow::Asked { user: &user, info: &info, query: &query }, &shared.registry).await;
        (trail.flow, trail.waited) = (headers, came.elapsed());
        place.inspect_err(|_| trail.terminated = true)?
    };
    authorize(shared, &user, &info, &query, &trail.audit)?;
    if trail.audit.wants_body(false) {
        // The audit reads the answer as a client without gzip does.
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    if stream {
        trail.socket = socket::take(&info, &mut request)?;
    }
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let (warnings, audit) = (warnings.clone(), trail.audit.clone());
    request.extensions_mut().insert(Context { user, info, query, method, headers, warnings, audit });
    trail.stream = stream;
    if stream {
        return Ok(until_shutdown(shared, next.run(request).await));
    }
    let left = patience.checked_sub(begun.since.elapsed()).filter(|left| !left.is_zero());
    let answer = match left {
        Some(left) => tokio::time::timeout(left, next.run(request)).await.ok(),
        None => None,
    };
    answer.ok_or_else(|| {
        trail.terminated = true;
        late()
    })
}

/// A stream that began now would end at once, and a watch that ends at once makes its client list everything again; one that is told to come
/// again goes on where it was.
fn leaving() -> Status {
    let mut status = Status::new(429, "TooManyRequests", "the server is shutting down, please try again");
    status.details.get_or_insert_default().retry_after_seconds = LEAVING_S;
    status
}

/// Whether a path is about something that exists here: what does not has no names in metrics.
fn served(shared: &Shared, info: &RequestInfo) -> bool {
    if !info.is_resource {
        return true;
    }
    let catalogue = shared.catalogue();
    let resource = catalogue.resource(&info.group, &info.version, &info.resource);
    resource.is_some_and(|resource| info.subresource.is_empty() || resource.subresource(&info.subresource).is_some())
}

/// Who asks; else 401, and what was tried.
async fn authenticate(shared: &Shared, request: &mut Request, info: &RequestInfo) -> Result<User, (Status, String)> {
    // What brings requests here says who the caller is; a request without that is nobody's.
    let caller = request.extensions_mut().remove().unwrap_or(Caller::Connection(None));
    let headers = request.headers_mut();
    websocket::bearer(headers);
    let (callers, now, began) = (&shared.registry.metrics().callers, Timestamp::now(), Instant::now());
    let known = shared.authenticator.authenticate(&caller, headers, &info.path, now).await;
    callers.authenticated(known.as_ref().ok().map(|user| user.name.as_str()), began.elapsed());
    if let Caller::Connection(Some(presented)) = &caller
        && let Some(ends_s) = presented.ends_s()
    {
        callers.certificate(ends_s, now);
    }
    known.map_err(|error| {
        tracing::debug!(path = info.path, error = &error as &dyn std::error::Error, "not authenticated");
        (error.status(), audit::attempted(request.headers(), matches!(caller, Caller::Connection(Some(_)))))
    })
}

fn authorize(shared: &Shared, user: &User, info: &RequestInfo, query: &[(String, String)], audit: &Annotations) -> Result<(), Status> {
    let open = |prefix: &str| info.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !info.is_resource && ALWAYS_ALLOWED.iter().any(|prefix| open(prefix)) {
        audit.add("authorization.k8s.io/decision", "allow");
        return Ok(());
    }
    let question = Question::of(user, info, query);
    let began = Instant::now();
    let decision = shared.authorizers.decide(&question);
    let (word, counted, reason) = match &decision {
        Decision::Allow(reason) => ("allow", "allowed", reason),
        Decision::Deny(reason) => ("forbid", "denied", reason),
        Decision::NoOpinion(reason) => ("forbid", "no-opinion", reason),
    };
    shared.registry.metrics().callers.authorized(counted, began.elapsed());
    if audit.wanted() {
        audit.add("authorization.k8s.io/decision", word);
        audit.add("authorization.k8s.io/reason", reason.as_str());
    }
    match &decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(refusal(&question, reason)),
    }
}

/// 403, as upstream words it.
pub(crate) fn refusal(question: &Question<'_>, reason: &str) -> Status {
    let why = question.refusal(reason);
    if question.is_resource {
        return Status::forbidden(question.group, question.resource, question.name, &why);
    }
    let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
    status.details = Some(Default::default());
    status
}

fn invalid_timeout(error: &deadline::DurationError) -> Status {
    Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
}

fn late() -> Status {
    Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
}

/// Ends a stream when the server does: its client must look for another one. What is there as a whole is no stream.
fn until_shutdown(shared: &Shared, answer: Response) -> Response {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    let stop = shared.stop.clone().cancelled_owned();
    answer.map(|body| Body::new(StreamBody::new(BodyStream::new(body).take_until(stop))))
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.remove().ok_or_else(|| answer::status(&Status::internal("the request did not pass the pipeline")))
    }
}
