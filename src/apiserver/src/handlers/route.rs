//! How paths are routed here: what upstream's frameworks do with methods, slashes and escapes.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Path},
    handler::Handler,
    response::Response,
    routing::get,
};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::{answer, server::Shared};

/// A path that is only read: GET and nothing else, not even HEAD, with or without a slash at its end.
/// (Upstream's other paths take any method and no further slash.)
pub(super) fn read_only<H, T>(path: &str, handler: H) -> Router<Arc<Shared>>
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    let route = get(handler).head(not_allowed).fallback(not_allowed);
    Router::new().route(path, route.clone()).route(&format!("{path}/"), route)
}

async fn not_allowed() -> Response {
    answer::method_not_allowed("GET")
}

/// The parts of the path that the route names, decoded. What is not text is the name of nothing.
pub(super) struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(_) => Err(answer::page_not_found()),
        }
    }
}
