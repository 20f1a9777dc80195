//! The hand of the runner: writes one action to the API and says what came of it.

use async_trait::async_trait;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, Patch as KubePatch, PatchParams, PostParams, Preconditions},
    core::ApiResource,
};
use serde_json::{Value, json};

use crate::plan::{Create, Delete, Doomed, How, Patch};

/// What a write left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Name of the object (generated ones are known only now).
    pub name: String,
    /// Its uid; empty when the answer does not say.
    pub uid: String,
    /// Its resourceVersion after the write; 0 when the answer does not say.
    pub revision: u64,
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// HTTP code; 0 when no answer came.
    pub code: u16,
    /// The API's reason, such as `Conflict`.
    pub reason: String,
    /// The API's message, or the transport's.
    pub message: String,
    /// The namespace is ending: nothing can be created in it, and nobody needs to be told.
    pub namespace_ends: bool,
}

impl Refused {
    /// The object is another than the one that was seen.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason != "AlreadyExists"
    }

    /// The object is gone.
    pub fn is_gone(&self) -> bool {
        self.code == 404
    }
}

/// Writes single actions. The API in earnest, a model in tests.
#[async_trait]
pub trait Writer: Send + Sync + 'static {
    /// Creates the object.
    async fn create(&self, create: &Create) -> Result<Written, Refused>;
    /// Changes the object, if it is the one that was seen, at `revision` (the target's, or that of our own write since).
    async fn patch(&self, patch: &Patch, revision: &str) -> Result<Written, Refused>;
    /// Deletes the object, if it is the one that was seen.
    async fn delete(&self, delete: &Delete, revision: &str) -> Result<Written, Refused>;
}

/// Writes to the API server.
#[derive(Clone)]
pub struct ApiWriter {
    client: Client,
}

impl ApiWriter {
    /// With this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn api(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), kind)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, kind)
        }
    }
}

#[async_trait]
impl Writer for ApiWriter {
    async fn create(&self, create: &Create) -> Result<Written, Refused> {
        let path = DynamicObject::url_path(&create.kind, Some(create.namespace.as_str()).filter(|n| !n.is_empty()));
        let body = serde_json::to_vec(&create.object).map_err(|e| unsent(&e))?;
        let request = kube::core::Request::new(path).create(&PostParams::default(), body).map_err(|e| unsent(&e))?;
        self.client.request::<Value>(request).await.map(|answer| written(&answer)).map_err(|e| refused(&e))
    }

    async fn patch(&self, patch: &Patch, revision: &str) -> Result<Written, Refused> {
        let mut body = patch.body.clone();
        body["metadata"]["uid"] = json!(patch.target.uid);
        body["metadata"]["resourceVersion"] = json!(revision);
        let path = DynamicObject::url_path(&patch.target.kind, Some(&*patch.target.key.namespace).filter(|n| !n.is_empty()));
        let request = kube::core::Request::new(path);
        let name = &patch.target.key.name;
        let built = match (patch.how, patch.subresource) {
            (How::Merge, None) => request.patch(name, &PatchParams::default(), &KubePatch::Merge(&body)),
            (How::Merge, Some(sub)) => request.patch_subresource(sub, name, &PatchParams::default(), &KubePatch::Merge(&body)),
            (How::Replace, sub) => {
                let bytes = serde_json::to_vec(&body).map_err(|e| unsent(&e))?;
                match sub {
                    None => request.replace(name, &PostParams::default(), bytes),
                    Some(sub) => request.replace_subresource(sub, name, &PostParams::default(), bytes),
                }
            }
        };
        let request = built.map_err(|e| unsent(&e))?;
        self.client.request::<Value>(request).await.map(|answer| written(&answer)).map_err(|e| refused(&e))
    }

    async fn delete(&self, delete: &Delete, revision: &str) -> Result<Written, Refused> {
        let mut options = DeleteParams {
            propagation_policy: delete.propagation.clone(),
            grace_period_seconds: delete.grace_seconds,
            ..DeleteParams::default()
        };
        match &delete.doomed {
            Doomed::One(target) => {
                options.preconditions = Some(Preconditions {
                    uid: Some(target.uid.clone()).filter(|u| !u.is_empty()),
                    resource_version: Some(revision.to_owned()).filter(|r| !r.is_empty()),
                });
                let deleted = self.api(&target.kind, &target.key.namespace).delete(&target.key.name, &options).await;
                let either = deleted.map_err(|e| refused(&e))?;
                Ok(match either.left() {
                    Some(object) => Written {
                        name: target.key.name.to_string(),
                        uid: target.uid.clone(),
                        revision: object.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0),
                    },
                    None => Written { name: target.key.name.to_string(), uid: target.uid.clone(), revision: 0 },
                })
            }
            Doomed::All { kind, namespace } => {
                let path = DynamicObject::url_path(kind, Some(namespace));
                let request = kube::core::Request::new(path)
                    .delete_collection(&options, &kube::api::ListParams::default())
                    .map_err(|e| unsent(&e))?;
                // The answer lists what was deleted; nobody needs it decoded.
                self.client.request_text(request).await.map_err(|e| refused(&e))?;
                Ok(Written::default())
            }
        }
    }
}

fn written(answer: &Value) -> Written {
    let text = |field: &str| answer["metadata"][field].as_str().unwrap_or_default().to_owned();
    Written { name: text("name"), uid: text("uid"), revision: text("resourceVersion").parse().unwrap_or(0) }
}

/// A request that could not even be built.
fn unsent(error: &dyn std::error::Error) -> Refused {
    Refused { code: 0, reason: "Unsent".into(), message: error.to_string(), namespace_ends: false }
}

/// The API's refusal, or the transport's, in one shape.
pub fn refused(error: &kube::Error) -> Refused {
    match error {
        kube::Error::Api(status) => Refused {
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
            namespace_ends: status.details.iter().flat_map(|d| &d.causes).any(|c| c.reason == "NamespaceTerminating"),
        },
        other => {
            let mut message = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                let text = error.to_string();
                if !message.contains(&text) {
                    message = format!("{message}: {text}");
                }
                cause = error.source();
            }
            Refused { code: 0, reason: "Unanswered".into(), message, namespace_ends: false }
        }
    }
}
