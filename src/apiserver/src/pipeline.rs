//! The way of a request: read what is asked, who asks, as whom, whether there is room, whether they may, then the handler.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_api::status::Status;
use futures::StreamExt as _;
use http::{
    HeaderValue, Method, Request, Response,
    header::{CACHE_CONTROL, HeaderName},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;

use crate::{
    answer,
    authentication::certificate::Presented,
    authorization::{Decision, Question},
    body::{Body, BodyError},
    handlers, impersonation, output,
    request::{Context, RequestInfo, User},
    request_info,
    server::Shared,
    uuid,
    warnings::Warnings,
};

/// How long a request may take that is not a stream; upstream's default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Says which request a log line is about.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// No proxy may keep what depends on who asks.
const PRIVATE: HeaderValue = HeaderValue::from_static("no-cache, private");
/// Where these paths lead everybody may go, so that probes work before a role exists.
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What is asked and with which parameters.
struct Asked {
    info: RequestInfo,
    query: Vec<(String, String)>,
}

/// Answers a request from a connection.
pub(crate) async fn remote<B>(shared: &Arc<Shared>, presented: Option<&Presented>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let asked = match read(&request) {
        Ok(asked) => asked,
        Err(status) => return finish(answer::status(&status)),
    };
    match shared.authenticator.authenticate(presented, request.headers(), &asked.info.path, Timestamp::now()) {
        Ok(user) => finish(known(shared, user, asked, request).await),
        Err(error) => {
            tracing::debug!(path = asked.info.path, error = &error as &dyn std::error::Error, "not authenticated");
            finish(answer::status(&error.status()))
        }
    }
}

/// Answers a request of this process, whose user is given.
pub(crate) async fn local<B>(shared: &Arc<Shared>, user: User, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    match read(&request) {
        Ok(asked) => finish(known(shared, user, asked, request).await),
        Err(status) => finish(answer::status(&status)),
    }
}

fn read<B>(request: &Request<B>) -> Result<Asked, Status> {
    let query = request.uri().query().unwrap_or_default();
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let info =
        request_info::parse(request.method(), request.uri().path(), &query).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(Asked { info, query })
}

/// From here on the user is known.
async fn known<B>(shared: &Arc<Shared>, user: User, asked: Asked, mut request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let Asked { info, query } = asked;
    let user = match impersonation::impersonate(user, request.headers_mut(), &shared.authorizers) {
        Ok(user) => user,
        Err(status) => return answer::status(&status),
    };
    let place = match shared.in_flight.enter(&user, &info.verb) {
        Ok(place) => place,
        Err(status) => return answer::status(&status),
    };
    if let Err(status) = authorize(shared, &user, &info, &query) {
        return answer::status(&status);
    }
    let cx = context(user, info, query, &request);
    let (info, warnings) = (cx.info.clone(), cx.warnings.clone());
    let mut answer = if request_info::long_running(&info) {
        drop(place);
        until_shutdown(shared, handlers::route(shared, cx, request).await)
    } else {
        // The place is given back when the answer is known, not when the client has read it.
        let _place = place;
        let late = || Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout");
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, handlers::route(shared, cx, request)).await;
        answer.unwrap_or_else(|_| answer::status(&late()))
    };
    output::warn(&mut answer, &warnings.told());
    shared.metrics.count(&info, answer.status());
    answer
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

fn context<B>(user: User, info: RequestInfo, query: Vec<(String, String)>, request: &Request<B>) -> Context {
    let method = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    Context { user, info, query, method, headers: request.headers().clone(), warnings: Warnings::default() }
}

/// Ends a stream when the server does: its client must look for another one.
fn until_shutdown(shared: &Shared, answer: Response<Body>) -> Response<Body> {
    let stop = shared.stop.clone().cancelled_owned();
    answer.map(|body| StreamBody::new(body.into_data_stream().map(|data| data.map(Frame::data)).take_until(stop)).boxed_unsync())
}

fn finish(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&uuid::random()) {
        headers.insert(AUDIT_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(PRIVATE);
    answer
}
