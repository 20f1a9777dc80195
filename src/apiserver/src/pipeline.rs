//! The way of a request to its handler: read what is asked, who asks, as whom, whether there is room, whether they may. And of its answer back.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use coracle_api::status::Status;
use futures::StreamExt as _;
use http::{
    HeaderValue,
    header::{CACHE_CONTROL, HeaderName},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::{BodyStream, StreamBody};
use jiff::Timestamp;

use crate::{
    answer,
    authentication::{Caller, websocket},
    authorization::{Decision, Question},
    body::Body,
    impersonation, output,
    request::{Context, RequestInfo, User},
    request_info,
    server::Shared,
    uuid,
    warnings::Warnings,
};

/// How long a request may take that is not a stream; upstream's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Says which request a log line is about; a client may have chosen it.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// No proxy may keep what depends on who asks.
const PRIVATE: HeaderValue = HeaderValue::from_static("no-cache, private");
/// Where these paths lead everybody may go, so that probes work before a role exists.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The one layer around all routes. Handlers find the request's [`Context`] as an extractor.
pub(crate) async fn pass(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let id = request.headers().get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
    let id = id.or_else(|| HeaderValue::try_from(uuid::random()).ok());
    let mut answer = admit(&shared, request, next).await.unwrap_or_else(|status| answer::status(&status));
    let headers = answer.headers_mut();
    if let Some(id) = id {
        headers.insert(AUDIT_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(PRIVATE);
    answer
}

async fn admit(shared: &Shared, mut request: Request, next: Next) -> Result<Response, Status> {
    let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect::<Vec<_>>();
    let info =
        request_info::parse(request.method(), request.uri().path(), &query).map_err(|error| Status::bad_request(error.to_string()))?;
    let user = authenticate(shared, &mut request, &info).await?;
    let user = impersonation::impersonate(user, request.headers_mut(), &shared.authorizers)?;
    let stream = request_info::long_running(&info);
    // The place is given back when the answer is known, not when the client has read it.
    let _place = if stream { None } else { shared.in_flight.enter(&user, &info.verb)? };
    authorize(shared, &user, &info, &query)?;
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let warnings = Warnings::default();
    request.extensions_mut().insert(Context { user, info: info.clone(), query, method, headers, warnings: warnings.clone() });
    let mut answer = if stream {
        until_shutdown(shared, next.run(request).await)
    } else {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
        answer.unwrap_or_else(|_| answer::status(&late()))
    };
    output::warn(&mut answer, &warnings.told());
    shared.metrics.count(&info, answer.status());
    Ok(answer)
}

async fn authenticate(shared: &Shared, request: &mut Request, info: &RequestInfo) -> Result<User, Status> {
    // What brings requests here says who the caller is; a request without that is nobody's.
    let caller = request.extensions_mut().remove().unwrap_or(Caller::Connection(None));
    let headers = request.headers_mut();
    websocket::bearer(headers);
    shared.authenticator.authenticate(&caller, headers, &info.path, Timestamp::now()).await.map_err(|error| {
        tracing::debug!(path = info.path, error = &error as &dyn std::error::Error, "not authenticated");
        error.status()
    })
}

fn authorize(shared: &Shared, user: &User, info: &RequestInfo, query: &[(String, String)]) -> Result<(), Status> {
    let open = |prefix: &str| info.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !info.is_resource && ALWAYS_ALLOWED.iter().any(|prefix| open(prefix)) {
        return Ok(());
    }
    let question = Question::of(user, info, query);
    match shared.authorizers.decide(&question) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(refusal(&question, &reason)),
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
