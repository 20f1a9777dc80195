//! `/api` and `/apis`: what is served, group by group or all at once.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use coracle_api::discovery;
use http::{HeaderValue, header::ACCEPT};
use serde_json::Value;

use super::{
    etag,
    route::{Named, read_only},
};
use crate::{
    aggregation::forward,
    answer,
    output::{self, format::Format},
    request::Context,
    server::Shared,
};

const AGGREGATED: HeaderValue = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .merge(read_only("/api", core))
        .merge(read_only("/api/{version}", core_resources))
        .merge(read_only("/apis", groups))
        .merge(read_only("/apis/{group}", group))
        .merge(read_only("/apis/{group}/{version}", resources))
}

async fn core(State(shared): State<Arc<Shared>>, cx: Context) -> Response {
    if accepts_aggregated(&cx) {
        return aggregated(&shared, &cx, true);
    }
    document(&shared, &cx, Some(discovery::core_versions(&shared.advertised.to_string())))
}

async fn groups(State(shared): State<Arc<Shared>>, cx: Context) -> Response {
    if accepts_aggregated(&cx) {
        return aggregated(&shared, &cx, false);
    }
    let catalogue = shared.catalogue();
    let groups = shared.aggregation.groups(&catalogue).unwrap_or_else(|| discovery::groups(&catalogue));
    document(&shared, &cx, Some(groups))
}

async fn core_resources(State(shared): State<Arc<Shared>>, Named(version): Named<String>, cx: Context) -> Response {
    document(&shared, &cx, discovery::resources(&shared.catalogue(), "", &version))
}

async fn group(State(shared): State<Arc<Shared>>, Named(group): Named<String>, cx: Context) -> Response {
    let catalogue = shared.catalogue();
    let found = shared.aggregation.group(&catalogue, &group).or_else(|| discovery::group(&catalogue, &group));
    document(&shared, &cx, found)
}

async fn resources(
    State(shared): State<Arc<Shared>>,
    Named((group, version)): Named<(String, String)>,
    cx: Context,
    request: Request,
) -> Response {
    if let Some(remote) = shared.aggregation.remote(&group, &version) {
        return forward::answer(&shared, &remote, &cx, request).await;
    }
    document(&shared, &cx, discovery::resources(&shared.catalogue(), &group, &version))
}

/// Everything at once, of the core or of all other groups.
fn aggregated(shared: &Shared, cx: &Context, core: bool) -> Response {
    let catalogue = shared.catalogue();
    let others = if core { None } else { shared.aggregation.aggregated(&catalogue) };
    let document = others.unwrap_or_else(|| discovery::aggregated(&catalogue, core)).to_string();
    etag::answer(cx, &etag::of(document.as_bytes()), document, AGGREGATED)
}

fn document(shared: &Shared, cx: &Context, found: Option<Value>) -> Response {
    let Some(document) = found else { return answer::page_not_found() };
    match Format::negotiate(&cx.headers, cx.param("pretty"), false) {
        Ok(format) => {
            let kind = document["kind"].as_str().unwrap_or_default();
            output::value(200, &format, &document, |value| output::message(&shared.catalogue(), kind, value))
        }
        Err(status) => answer::status(&status),
    }
}

/// Whether a clause of Accept asks for the aggregated form of the version that we have.
fn accepts_aggregated(cx: &Context) -> bool {
    let clauses = cx.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    clauses.into_iter().any(|clause| {
        let has = |wanted: &str| clause.split(';').any(|part| part.trim() == wanted);
        has("application/json") && has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}
