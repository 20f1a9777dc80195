//! OpenID discovery: how others verify our ServiceAccount tokens.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response};
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use serde_json::json;

use super::route::read_only;
use crate::{answer, server::Shared};

const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
/// Verifiers may keep it for an hour, as upstream's.
const ONE_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().merge(read_only("/.well-known/openid-configuration", configuration)).merge(read_only("/openid/v1/jwks", keys))
}

async fn configuration(State(shared): State<Arc<Shared>>) -> Response {
    let document = json!({
        "issuer": shared.tokens.issuer(),
        "jwks_uri": format!("https://{}/openid/v1/jwks", shared.advertised),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    cached(answer::json(StatusCode::OK, &document))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    cached(answer::bytes(StatusCode::OK, JWK_SET, shared.tokens.key_set().to_string()))
}

fn cached(mut answer: Response) -> Response {
    answer.headers_mut().insert(CACHE_CONTROL, ONE_HOUR);
    answer
}
