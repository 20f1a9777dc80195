//! `/api` and `/apis`: what is served, group by group or all at once.

use coracle_api::discovery;
use http::{HeaderValue, Response, header::ACCEPT};

use super::etag;
use crate::{
    answer,
    body::Body,
    output::{self, format::Format},
    request::Context,
    server::Shared,
};

const AGGREGATED: HeaderValue = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// The answer.
pub fn answer(shared: &Shared, cx: &Context, parts: &[&str]) -> Response<Body> {
    let catalogue = &*shared.catalogue();
    let found = match parts {
        ["api"] | ["apis"] if accepts_aggregated(cx) => {
            let document = discovery::aggregated(catalogue, parts == ["api"]).to_string();
            return etag::answer(cx, &etag::of(document.as_bytes()), document, AGGREGATED);
        }
        ["api"] => Some(discovery::core_versions(&shared.advertised.to_string())),
        ["apis"] => Some(discovery::groups(catalogue)),
        ["api", version] => discovery::resources(catalogue, "", version),
        ["apis", group] => discovery::group(catalogue, group),
        ["apis", group, version] => discovery::resources(catalogue, group, version),
        _ => None,
    };
    let Some(document) = found else { return answer::page_not_found() };
    match Format::negotiate(&cx.headers, cx.param("pretty"), false) {
        Ok(format) => {
            let kind = document["kind"].as_str().unwrap_or_default();
            output::value(200, &format, &document, |value| output::message(catalogue, kind, value))
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
