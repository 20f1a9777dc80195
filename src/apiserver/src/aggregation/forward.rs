//! A request that an extension API server answers: sent on with the name of who asks, and its answer back as it comes, streams and upgrades too.

use axum::{extract::Request, response::Response};
use coracle_api::status::Status;
use http::{
    StatusCode, Uri,
    header::{HOST, UPGRADE},
};

use super::{
    identity,
    remote::{Remote, told},
};
use crate::{
    answer,
    body::{Body, full},
    node_proxy,
    request::Context,
    server::Shared,
};

/// Asks the server and hands on what it answers.
pub(crate) async fn answer(shared: &Shared, remote: &Remote, cx: &Context, request: Request) -> Response {
    if !remote.state().available {
        return unavailable();
    }
    pass(shared, remote, cx, request).await.unwrap_or_else(|failed| failed)
}

/// Plain text, as upstream has it: clients know the code.
fn unavailable() -> Response {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n")
}

async fn pass(shared: &Shared, remote: &Remote, cx: &Context, mut request: Request) -> Result<Response, Response> {
    let upgrades = request.headers().contains_key(UPGRADE);
    let client = remote
        .client(upgrades || cx.info.verb == "watch")
        .map_err(|why| answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")))?;
    let place = remote.next_place().ok_or_else(unavailable)?;
    let near = upgrades.then(|| hyper::upgrade::on(&mut request));
    let outward = outward(&place.authority(), cx, request).map_err(|status| answer::status(&status))?;
    let mut reply = client.request(outward).await.map_err(|error| {
        // Whether it is still there is asked at once, not with the next request.
        remote.wake.notify_one();
        answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("error trying to reach service: {}\n", told(&error)))
    })?;
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut reply);
        let near = near.ok_or_else(|| answer::status(&Status::internal("the server switches protocols without being asked to")))?;
        tokio::spawn(node_proxy::join(near, far, shared.stop.clone(), cx.audit.clone()));
        return Ok(Response::from_parts(reply.into_parts().0, full("")));
    }
    let (mut parts, body) = reply.into_parts();
    node_proxy::strip(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// The request as the server sees it: the same path, none of the caller's credentials, the caller's name.
fn outward(authority: &str, cx: &Context, request: Request) -> Result<Request, Status> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("https://{authority}{path}");
    parts.uri = url.parse::<Uri>().map_err(|_| Status::bad_request(format!("{path:?} is not a path")))?;
    parts.version = http::Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    node_proxy::onward(&mut parts.headers, authority)?;
    // The URL says it, and the client tells it as the protocol of the connection has it.
    parts.headers.remove(HOST);
    identity::put(&mut parts.headers, &cx.user)?;
    Ok(Request::from_parts(parts, body))
}
