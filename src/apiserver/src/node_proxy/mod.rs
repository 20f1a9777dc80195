//! Requests that a node or a pod answers: logs, exec, attach, port-forward, proxy. Bytes pass both ways unchanged, whatever they are upgraded to.

mod connect;
mod target;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::status::Status;
use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE},
    uri::PathAndQuery,
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;

use crate::{
    answer,
    authorization::{Decision, Question},
    body::{Body, BodyError, full},
    pipeline,
    request::{Context, RequestInfo},
    server::Shared,
};
pub(crate) use connect::NodeClient;
use connect::Stream;
use target::Target;

/// Headers that say how one connection is used, and not what is asked.
const HOP_BY_HOP: [&str; 6] = ["keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"];

/// Whether the request is answered by a node or a pod.
pub fn takes(info: &RequestInfo) -> bool {
    info.group.is_empty()
        && match info.resource.as_str() {
            "pods" => matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => info.subresource == "proxy",
            _ => false,
        }
}

/// Asks the node or pod and hands on what it answers.
pub(crate) async fn answer<B>(shared: &Arc<Shared>, cx: Context, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    match pass(shared, &cx, request).await {
        Ok(answer) => answer,
        Err(status) => answer::status(&status),
    }
}

async fn pass<B>(shared: &Arc<Shared>, cx: &Context, mut request: Request<B>) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    may_stream(shared, cx)?;
    let target = target::find(&*shared.registry, cx)?;
    let stream = shared.nodes.connect(&target).await?;
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let outward = outward(&target, request)?;
    let mut reply = send(stream, outward).await.map_err(|error| target.unreachable(&error))?;
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut reply);
        let near = upgrade.ok_or_else(|| Status::internal("the backend switches protocols without being asked to"))?;
        tokio::spawn(join(near, far, shared.stop.clone()));
        let (parts, _) = reply.into_parts();
        return Ok(Response::from_parts(parts, full("")));
    }
    let (mut parts, body) = reply.into_parts();
    strip(&mut parts.headers);
    parts.headers.remove(CONNECTION);
    Ok(Response::from_parts(parts, body.map_err(BodyError::from).boxed_unsync()))
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
fn outward<B>(target: &Target, request: Request<B>) -> Result<Request<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let (mut parts, body) = request.into_parts();
    let path: PathAndQuery = target.path.parse().map_err(|_| Status::bad_request(format!("{:?} is not a path", target.path)))?;
    parts.uri = path.into();
    parts.version = http::Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    strip(&mut parts.headers);
    parts.headers.remove(AUTHORIZATION);
    if !parts.headers.contains_key(UPGRADE) {
        parts.headers.remove(CONNECTION);
    }
    let host = target.authority().parse().map_err(|_| Status::internal(format!("{:?} is not a host", target.authority())))?;
    parts.headers.insert(HOST, host);
    Ok(Request::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(HeaderName::from_static(name));
    }
}

async fn send(stream: Stream, request: Request<Body>) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body or with the upgraded stream.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node broke");
        }
    });
    sender.send_request(request).await
}

/// Copies both ways until one side ends or the server does.
async fn join(near: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade, stop: tokio_util::sync::CancellationToken) {
    let copied = async {
        let (near, far) = tokio::try_join!(near, far).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await
    };
    if let Some(Err(error)) = stop.run_until_cancelled(copied).await {
        tracing::debug!(%error, "a stream to a node broke");
    }
}
