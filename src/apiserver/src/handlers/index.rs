//! `/`: where one may go from here.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::any};
use http::StatusCode;
use serde_json::json;

use crate::{answer, server::Shared};

/// What is served besides groups and versions.
const PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// The routes.
pub fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/", any(answer)).route("/index.html", any(answer))
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let mut paths: Vec<String> = PATHS.map(str::to_owned).into();
    for resource in shared.catalogue().resources() {
        if resource.group.is_empty() {
            paths.push(format!("/api/{}", resource.version));
        } else {
            paths.push(format!("/apis/{}", resource.group));
            paths.push(format!("/apis/{}/{}", resource.group, resource.version));
        }
    }
    paths.extend(shared.aggregation.paths());
    paths.sort_unstable();
    paths.dedup();
    answer::json(StatusCode::OK, &json!({ "paths": paths }))
}
