//! `/openapi/v2` and `/openapi/v3`: the schemas, made when they are asked for and not kept.

use coracle_api::openapi;
use http::{
    HeaderValue, Response,
    header::{ACCEPT, CACHE_CONTROL},
};

use super::discovery::unless_known;
use crate::{answer, body::Body, request::Context, server::Shared};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF_TYPE: HeaderValue = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
/// A document under its hash never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, immutable");

/// The answer.
pub fn answer(shared: &Shared, cx: &Context, below: &[&str]) -> Response<Body> {
    let catalogue = shared.catalogue;
    match below {
        ["v2"] if accepts_protobuf(cx) => unless_known(cx, openapi::v2_protobuf(catalogue), V2_PROTOBUF_TYPE),
        ["v2"] => unless_known(cx, openapi::v2(catalogue), JSON),
        ["v3"] => unless_known(cx, openapi::v3_index(catalogue).to_string(), JSON),
        ["v3", "api", version] => document(cx, openapi::v3(catalogue, "", version)),
        ["v3", "apis", group, version] => document(cx, openapi::v3(catalogue, group, version)),
        _ => answer::page_not_found(),
    }
}

fn accepts_protobuf(cx: &Context) -> bool {
    let mut clauses = cx.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    clauses.any(|clause| clause.trim().starts_with(V2_PROTOBUF))
}

fn document(cx: &Context, document: Option<Vec<u8>>) -> Response<Body> {
    let Some(document) = document else { return answer::page_not_found() };
    let mut answer = unless_known(cx, document, JSON);
    if cx.param("hash").is_some() {
        answer.headers_mut().insert(CACHE_CONTROL, FOREVER);
    }
    answer
}
