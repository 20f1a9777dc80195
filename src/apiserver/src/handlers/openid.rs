//! OpenID discovery: how others verify our ServiceAccount tokens.

use http::{HeaderValue, Response, StatusCode, header::CACHE_CONTROL};
use serde_json::json;

use crate::{answer, body::Body, server::Shared};

const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
/// Verifiers may keep it for an hour, as upstream's.
const ONE_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `/.well-known/openid-configuration`.
pub fn configuration(shared: &Shared) -> Response<Body> {
    let document = json!({
        "issuer": shared.tokens.issuer(),
        "jwks_uri": format!("https://{}/openid/v1/jwks", shared.advertised),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    cached(answer::json(StatusCode::OK, &document))
}

/// `/openid/v1/jwks`.
pub fn keys(shared: &Shared) -> Response<Body> {
    cached(answer::bytes(StatusCode::OK, JWK_SET, shared.tokens.key_set().to_string()))
}

fn cached(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(CACHE_CONTROL, ONE_HOUR);
    answer
}
