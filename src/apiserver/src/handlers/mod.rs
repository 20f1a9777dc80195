//! Handlers: what answers once the request is allowed.

pub mod discovery;
mod etag;
pub mod health;
pub mod openapi;
pub mod openid;
mod posted;
pub mod reviews;
pub mod token_request;
pub mod version;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::status::Status;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::json;

use crate::{
    answer,
    body::{Body, BodyError},
    node_proxy,
    registry::body::{MAX_BODY_BYTES, too_large},
    request::Context,
    server::Shared,
};

/// Finds the handler.
pub(crate) async fn route<B>(shared: &Arc<Shared>, cx: Context, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    if !cx.info.is_resource {
        return path(shared, &cx).await;
    }
    let info = &cx.info;
    let catalogue = shared.catalogue();
    if catalogue.versions(&info.group).iter().all(|version| *version != info.version) {
        return answer::page_not_found();
    }
    let Some(resource) = catalogue.resource(&info.group, &info.version, &info.resource) else {
        return answer::resource_not_found();
    };
    if request.method() == Method::HEAD {
        return answer::method_not_allowed("GET");
    }
    if matches!(info.name.as_str(), "." | "..") {
        return answer::status(&Status::bad_request(format!("invalid name {:?}: it would be a step in a path", info.name)));
    }
    if node_proxy::takes(info) {
        return node_proxy::answer(shared, cx, request).await;
    }
    let body = match collect(request.into_body()).await {
        Ok(body) => body,
        Err(status) => return answer::status(&status),
    };
    match (resource.group.as_str(), resource.kind.as_str(), cx.info.subresource.as_str(), cx.info.verb.as_str()) {
        ("", "ServiceAccount", "token", "create") => token_request::answer(shared, &cx, &body),
        ("authentication.k8s.io" | "authorization.k8s.io", _, "", "create") => reviews::answer(shared, &cx, resource, &body),
        _ => shared.registry.handle(&cx, body).await,
    }
}

/// The whole body, if it is not too large.
async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Status::bad_request(format!("the body of the request ends early: {error}"))),
    }
}

/// Paths that name no resource.
async fn path(shared: &Shared, cx: &Context) -> Response<Body> {
    let parts: Vec<&str> = cx.info.path.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [] => index(shared),
        ["version"] => version::answer(),
        ["healthz" | "livez" | "readyz", ref check @ ..] => health::answer(shared, cx, parts[0], check).await,
        ["api" | "apis", ..] => discovery::answer(shared, cx, &parts),
        ["openapi", ref below @ ..] => openapi::answer(shared, cx, below).await,
        [".well-known", "openid-configuration"] => openid::configuration(shared),
        ["openid", "v1", "jwks"] => openid::keys(shared),
        ["metrics"] => shared.metrics.answer(),
        _ => answer::page_not_found(),
    }
}

/// `/`: where one may go from here.
fn index(shared: &Shared) -> Response<Body> {
    let mut paths: Vec<String> = ["/.well-known/openid-configuration", "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2"]
        .iter()
        .chain(&["/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"])
        .map(|path| (*path).to_owned())
        .collect();
    for resource in shared.catalogue().resources() {
        if resource.group.is_empty() {
            paths.push(format!("/api/{}", resource.version));
        } else {
            paths.push(format!("/apis/{}", resource.group));
            paths.push(format!("/apis/{}/{}", resource.group, resource.version));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    answer::json(StatusCode::OK, &json!({ "paths": paths }))
}
