//! What the stages of a request know of it: who asks for what (upstream's RequestInfo and user.Info).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{audit::Annotations, warnings::Warnings};

/// Who asks; written as authentication.k8s.io's UserInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct User {
    /// `system:serviceaccount:default:web`, `alice`, ...
    #[serde(rename = "username", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Unique across time, where the authenticator knows one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `system:masters`, `system:authenticated`, ...
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Further claims, for example the pod of a bound token.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What is asked, read off the method and the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in lower case.
    pub verb: String,
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// Of a resource; `""` is the core group.
    pub group: String,
    /// Of a resource.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// `status`, `scale`, `log`, ...; empty for none.
    pub subresource: String,
    /// Path below the subresource (`pods/web/proxy/a/b` has `a/b`).
    pub rest: String,
    /// Empty for cluster scope or all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// The path without the query.
    pub path: String,
}

/// One request on its way through the pipeline, after authentication.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who.
    pub user: User,
    /// What.
    pub info: RequestInfo,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Method, accept, content type and the rest, lower-case names.
    pub method: http::Method,
    /// As they came.
    pub headers: http::HeaderMap,
    /// For the answer's `Warning` headers.
    pub warnings: Warnings,
    /// For the request's audit event.
    pub audit: Annotations,
}

impl Context {
    /// First value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}
