//! Handlers: what answers once the request is allowed. Routes are the paths that name no resource; resources, which come and go
//! with the catalogue, are what is left.

mod discovery;
mod encryption;
mod etag;
mod health;
mod index;
mod openapi;
mod openid;
mod posted;
mod resource;
mod reviews;
mod route;
mod token_request;
pub mod version;

use std::sync::Arc;

use axum::{Router, extract::State, middleware, response::Response, routing::any};
use http::{HeaderValue, StatusCode};

pub use openapi::Documents;

use crate::{answer, metrics, output::gzip, pipeline, request::Context, server::Shared};

/// The text format of Prometheus.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// All that the server answers, behind the pipeline.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .merge(index::routes())
        .merge(version::routes())
        .merge(health::routes())
        .merge(discovery::routes())
        .merge(openapi::routes())
        .merge(openid::routes())
        .merge(encryption::routes())
        .route("/metrics", any(metrics))
        .route("/metrics/slis", any(slis))
        .fallback(resource::answer)
        .layer(middleware::from_fn_with_state(Arc::clone(shared), pipeline::pass))
        .with_state(Arc::clone(shared))
}

async fn metrics(State(shared): State<Arc<Shared>>, cx: Context) -> Response {
    let page = metrics::page(&shared);
    gzip::whole(&cx.headers, answer::bytes(StatusCode::OK, METRICS, ""), page.into())
}

async fn slis(State(shared): State<Arc<Shared>>) -> Response {
    answer::bytes(StatusCode::OK, METRICS, shared.slis.page())
}
