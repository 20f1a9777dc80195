//! Handlers: what answers once the request is allowed. Routes are the paths that name no resource; resources, which come and go
//! with the catalogue, are what is left.

mod discovery;
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

pub use openapi::Documents;

use crate::{pipeline, server::Shared};

/// All that the server answers, behind the pipeline.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .merge(index::routes())
        .merge(version::routes())
        .merge(health::routes())
        .merge(discovery::routes())
        .merge(openapi::routes())
        .merge(openid::routes())
        .route("/metrics", any(metrics))
        .fallback(resource::answer)
        .layer(middleware::from_fn_with_state(Arc::clone(shared), pipeline::pass))
        .with_state(Arc::clone(shared))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.metrics.answer()
}
