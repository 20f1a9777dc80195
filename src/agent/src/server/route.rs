//! Which path is what, and answers without streams.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    log,
    query::{self, Query},
    stats, stream,
};
use crate::{context::Context, pods::Pods};

/// A body of any kind.
pub type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Answers a request.
pub async fn answer(
    ctx: Context,
    pods: Pods,
    allowed: bool,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    if !allowed {
        return Ok(text(StatusCode::FORBIDDEN, "only the cluster's API server may call a node\n"));
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(query::decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let asked = Query::parse(request.uri().query().unwrap_or_default());
    let read = *request.method() == Method::GET;
    Ok(match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop"] => text(StatusCode::OK, "ok"),
        ["pods"] => {
            let items: Vec<_> = pods.list().into_iter().map(|(pod, _)| pod).collect();
            json_text(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
        }
        ["stats", "summary"] => json_text(&stats::summary(&ctx, &pods).await),
        ["metrics"] | ["metrics", "resource" | "cadvisor"] => text(StatusCode::OK, stats::metrics(&ctx, &pods).await),
        ["containerLogs", namespace, pod, container] if read => log::answer(&ctx, &pods, namespace, pod, container, &asked),
        ["exec", namespace, pod, container] => {
            stream::exec(ctx, pods, &stream::Name::new(namespace, pod, None, container), &asked, request)
        }
        ["exec", namespace, pod, uid, container] => {
            stream::exec(ctx, pods, &stream::Name::new(namespace, pod, Some(uid), container), &asked, request)
        }
        ["attach", namespace, pod, container] => {
            stream::attach(ctx, pods, &stream::Name::new(namespace, pod, None, container), &asked, request)
        }
        ["attach", namespace, pod, uid, container] => {
            stream::attach(ctx, pods, &stream::Name::new(namespace, pod, Some(uid), container), &asked, request)
        }
        ["portForward", namespace, pod] => stream::port_forward(ctx, pods, &stream::Name::new(namespace, pod, None, ""), request).await,
        ["portForward", namespace, pod, uid] => {
            stream::port_forward(ctx, pods, &stream::Name::new(namespace, pod, Some(uid), ""), request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    })
}

/// A short text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_text(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
