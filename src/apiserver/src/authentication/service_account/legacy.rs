//! Tokens that a controller puts into Secrets of type `kubernetes.io/service-account-token`: without end, and dead with their Secret or account.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{AUTHENTICATED, LEEWAY_S, TokenError, USER_PREFIX, is_it};
use crate::{objects::Objects, request::User};

/// Who issues them.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// Label that ends a token that nobody has used for a year.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// Who such a token speaks for; its signature holds.
pub(super) fn user(objects: &dyn Objects, token: &str, claims: Value, now_s: i64) -> Result<User, TokenError> {
    let claims: Claims = serde_json::from_value(claims).map_err(|_| TokenError::Claims)?;
    let Claims { sub, namespace, secret, account, uid } = &claims;
    if *sub != format!("{USER_PREFIX}{namespace}:{account}") {
        return Err(TokenError::Claims);
    }
    let dead = |kind, name: &str| TokenError::Dead { kind, name: name.to_owned() };
    let stored = objects.get("", "secrets", namespace, secret).filter(|stored| holds(stored, token));
    stored.ok_or_else(|| dead("Secret", secret))?;
    let there = objects.get("", "serviceaccounts", namespace, account);
    // Upstream gives these no time after the deletion of their account.
    let lives = |object: &Value| is_it(object, Some(uid), now_s.saturating_add(LEEWAY_S + 1));
    if !there.is_some_and(|object| lives(&object)) {
        return Err(dead("ServiceAccount", account));
    }
    let groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()];
    Ok(User { name: claims.sub, uid: claims.uid, groups, ..User::default() })
}

/// Whether a Secret holds the token, and it still counts.
fn holds(secret: &Value, token: &str) -> bool {
    let stored = STANDARD.decode(secret["data"]["token"].as_str().unwrap_or_default()).unwrap_or_default();
    let metadata = &secret["metadata"];
    stored == token.as_bytes() && metadata["deletionTimestamp"].is_null() && metadata["labels"][INVALID_SINCE].is_null()
}
