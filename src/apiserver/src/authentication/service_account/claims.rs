//! What a ServiceAccount's token says, as upstream's says it.

use serde::{Deserialize, Serialize};

/// The claims.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    /// For whom.
    pub aud: Vec<String>,
    /// Until, in seconds.
    pub exp: i64,
    /// Issued at, in seconds.
    #[serde(default)]
    pub iat: i64,
    /// By whom.
    pub iss: String,
    /// Of this token alone.
    #[serde(default)]
    pub jti: String,
    /// What Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Private,
    /// From, in seconds.
    #[serde(default)]
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// What Kubernetes adds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Private {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
    /// When a client that still uses it should have read a new one, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reference {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Reference {
    pub fn new(name: &str, uid: Option<&str>) -> Self {
        Self { name: name.into(), uid: uid.map(str::to_owned) }
    }
}
