//! Requests that a node or a pod answers: logs, exec, attach, port-forward, proxy. Bytes pass both ways unchanged, whatever they are upgraded to.

mod connect;
mod links;
mod place;
mod refused;
mod target;

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use coracle_api::status::Status;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, LOCATION, UPGRADE},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;

use crate::{
    answer,
    audit::Annotations,
    authorization::{Decision, Question},
    body::{Body, full},
    pipeline,
    request::{Context, RequestInfo},
    server::Shared,
};
pub(crate) use connect::NodeClient;
use connect::Stream;
use target::Target;

/// Headers that say how one connection is used, and not what is asked.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"];

/// The methods of what a node or a pod answers; `None` for what is answered here.
pub fn methods(info: &RequestInfo) -> Option<&'static str> {
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("", "pods", "log") => Some("GET"),
        ("", "pods", "exec" | "attach" | "portforward") => Some("GET, POST"),
        ("", "pods" | "services" | "nodes", "proxy") => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        _ => None,
    }
}

/// Asks the node or pod and hands on what it answers.
pub(crate) async fn answer(shared: &Shared, cx: Context, request: Request) -> Response {
    pass(shared, &cx, request).await.unwrap_or_else(|status| answer::status(&status))
}

async fn pass(shared: &Shared, cx: &Context, mut request: Request) -> Result<Response, Status> {
    may_stream(shared, cx)?;
    shared.registry.connect(cx).await?;
    if target::is_silent(&*shared.registry, cx)? {
        let mut nothing = Response::new(full(""));
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let target = target::find(&*shared.registry, cx)?;
    let proxied = cx.info.subresource == "proxy";
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    if let (true, None, Some(root)) = (proxied, &upgrade, place::root(request.method(), request.uri(), &cx.info.rest)) {
        return moved(&root);
    }
    let stream = shared.nodes.connect(&target).await?;
    let prefix = proxied.then(|| place::prefix(request.uri().path(), &cx.info.rest).to_owned());
    let mut outward = outward(&target, request)?;
    if let Some(prefix) = &prefix {
        outward.headers_mut().extend(forwarded(prefix, &cx.info.rest));
        // What is packed cannot be read for its links.
        outward.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let mut reply = send(stream, outward).await.map_err(|error| target.unreachable(&error))?;
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut reply);
        let near = upgrade.ok_or_else(|| Status::internal("the backend switches protocols without being asked to"))?;
        tokio::spawn(join(near, far, shared.stop.clone(), cx.audit.clone()));
        let (parts, _) = reply.into_parts();
        return Ok(Response::from_parts(parts, full("")));
    }
    if cx.info.subresource == "log" && !reply.status().is_success() {
        return Err(refused::log(&cx.info.name, reply).await);
    }
    let (mut parts, body) = reply.into_parts();
    strip(&mut parts.headers);
    let location = parts.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    if let (Some(prefix), Some(location)) = (&prefix, location)
        && let Some(Ok(location)) = place::location(location, &target.authority(), prefix).map(HeaderValue::try_from)
    {
        parts.headers.insert(LOCATION, location);
    }
    let body = match prefix.filter(|_| links::is_page(&parts.headers)) {
        Some(prefix) => links::moved(&mut parts.headers, Body::new(body), target.authority(), prefix),
        None => Body::new(body),
    };
    Ok(Response::from_parts(parts, body))
}

/// Reads a path of a node's server, for this server itself: no more than `most` bytes.
pub(crate) async fn read(shared: &Shared, node: &str, path: &str, most: usize) -> Result<Bytes, Status> {
    let target = target::node_target(&*shared.registry, node, path.to_owned(), &[])?;
    let stream = shared.nodes.connect(&target).await?;
    let request = Request::builder().uri(path).header(HOST, target.authority()).body(full(""));
    let reply =
        send(stream, request.map_err(|error| Status::internal(error.to_string()))?).await.map_err(|error| target.unreachable(&error))?;
    let code = reply.status();
    let body = Limited::new(reply.into_body(), most).collect().await.map_err(|error| target.unreachable(&*error))?.to_bytes();
    if code == StatusCode::OK { Ok(body) } else { Err(Status::internal(format!("node {node:?} answers {path} with {code}"))) }
}

/// Where the server is seen, for one that wants to know.
fn forwarded(prefix: &str, rest: &str) -> Option<(HeaderName, HeaderValue)> {
    let uri = HeaderValue::try_from(format!("{prefix}/{}", rest.trim_start_matches('/'))).ok()?;
    Some((HeaderName::from_static("x-forwarded-uri"), uri))
}

/// A GET that upgrades acts as a POST does: who may only read must not run commands by it.
fn may_stream(shared: &Shared, cx: &Context) -> Result<(), Status> {
    if cx.info.verb != "get" || !matches!(cx.info.subresource.as_str(), "exec" | "attach" | "portforward") {
        return Ok(());
    }
    let question = Question { verb: "create", ..Question::of(&cx.user, &cx.info, &cx.query) };
    match shared.authorizers.decide(&question) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(pipeline::refusal(&question, &reason)),
    }
}

/// The request as the backend sees it: its path, its host, none of the caller's credentials.
fn outward(target: &Target, request: Request) -> Result<Request, Status> {
    let (mut parts, body) = request.into_parts();
    let path: PathAndQuery = target.path.parse().map_err(|_| Status::bad_request(format!("{:?} is not a path", target.path)))?;
    parts.uri = path.into();
    parts.version = http::Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    onward(&mut parts.headers, &target.authority())?;
    Ok(Request::from_parts(parts, body))
}

/// Headers as a backend of this address gets them: none of the caller's credentials, and what is about the connection to it.
pub(crate) fn onward(headers: &mut HeaderMap, authority: &str) -> Result<(), Status> {
    headers.remove(AUTHORIZATION);
    let upgrade = headers.get(UPGRADE).cloned();
    strip(headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    let host = authority.parse().map_err(|_| Status::internal(format!("{authority:?} is not a host")))?;
    headers.insert(HOST, host);
    Ok(())
}

/// Takes off what is about one connection, also what its sender names so.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    for name in HOP_BY_HOP.map(HeaderName::from_static).into_iter().chain(named) {
        headers.remove(name);
    }
}

fn moved(to: &str) -> Result<Response, Status> {
    let to = HeaderValue::try_from(to).map_err(|_| Status::bad_request(format!("{to:?} is not a path")))?;
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    answer.headers_mut().insert(LOCATION, to);
    Ok(answer)
}

async fn send(stream: Stream, request: Request) -> Result<http::Response<hyper::body::Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body or with the upgraded stream.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node broke");
        }
    });
    sender.send_request(request).await
}

/// Copies both ways until one side ends or the server does. Only then the request is over for the audit.
pub(crate) async fn join(
    near: hyper::upgrade::OnUpgrade,
    far: hyper::upgrade::OnUpgrade,
    stop: tokio_util::sync::CancellationToken,
    audit: Annotations,
) {
    let copied = async {
        let (near, far) = tokio::try_join!(near, far).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await
    };
    if let Some(Err(error)) = stop.run_until_cancelled(copied).await {
        tracing::debug!(%error, "a stream to a node broke");
    }
    audit.complete();
}
