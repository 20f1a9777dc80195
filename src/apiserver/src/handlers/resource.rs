//! Resources: whatever the catalogue has at the moment, answered by the registry, a node, or one of the few handlers of their own.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use coracle_api::{catalogue::builtin, status::Status};
use http::Method;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{reviews, token_request};
use crate::{
    aggregation::forward,
    answer,
    body::Body,
    node_proxy,
    registry::body::{MAX_BODY_BYTES, too_large},
    request::Context,
    resource_metrics,
    server::Shared,
};

/// The answer to a request that no route takes.
pub async fn answer(State(shared): State<Arc<Shared>>, cx: Context, request: Request) -> Response {
    let info = &cx.info;
    if info.is_resource
        && let Some(remote) = shared.aggregation.remote(&info.group, &info.version)
    {
        return forward::answer(&shared, &remote, &cx, request).await;
    }
    let catalogue = shared.catalogue();
    if !info.is_resource || catalogue.versions(&info.group).iter().all(|version| *version != info.version) {
        return answer::page_not_found();
    }
    let Some(resource) = catalogue.resource(&info.group, &info.version, &info.resource) else {
        // A group of definitions alone does not know what it once had.
        let defined = builtin().versions(&info.group).is_empty();
        return if defined { answer::page_not_found() } else { answer::resource_not_found() };
    };
    if resource.custom && !resource.namespaced && !info.namespace.is_empty() {
        return answer::page_not_found();
    }
    if matches!(info.name.as_str(), "." | "..") {
        return answer::status(&Status::bad_request(format!("invalid name {:?}: it would be a step in a path", info.name)));
    }
    if let Some(methods) = node_proxy::methods(info) {
        return match methods.split(", ").any(|method| method == cx.method.as_str()) {
            true => node_proxy::answer(&shared, cx, request).await,
            false => answer::method_not_allowed(methods),
        };
    }
    // A HEAD is a get for authorization, and nothing here.
    if cx.method == Method::HEAD {
        return answer::method_not_allowed("GET");
    }
    let body = match collect(request.into_body()).await {
        Ok(body) => body,
        Err(status) => return answer::status(&status),
    };
    match (resource.group.as_str(), resource.kind.as_str(), info.subresource.as_str(), info.verb.as_str()) {
        (resource_metrics::GROUP, ..) => resource_metrics::answer(&shared, &cx, resource).await,
        ("", "ServiceAccount", "token", "create") => token_request::answer(&shared, &cx, &body),
        ("authentication.k8s.io" | "authorization.k8s.io", _, "", "create") => reviews::answer(&shared, &cx, resource, &body).await,
        _ => shared.registry.handle(&cx, body).await,
    }
}

/// The whole body, if it is not too large.
async fn collect(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Status::bad_request(format!("the body of the request ends early: {error}"))),
    }
}
