//! Which path is what. Methods, and answers to paths that there are not, are the kubelet's.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    middleware,
    response::Response,
    routing::{any, get},
};
use coracle_runtime::{ContainerState, ContainerStatus};
use http::{StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::json;

use super::{answer, authorize::Gate, caller, configz, files, log, stats, stream};
use crate::{context::Context, pods::Pods};

/// What handlers know.
#[derive(Clone)]
pub struct Node {
    /// What the agent was started with.
    pub ctx: Context,
    /// The pods of the node.
    pub pods: Pods,
}

/// Which container is meant, or which pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Name {
    /// The pod's.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Which one of that name; none is the one that is there.
    pub uid: Option<String>,
    /// Empty where a pod is meant.
    #[serde(default)]
    pub container: String,
}

/// All that a node answers.
pub fn router(node: Node) -> Router {
    let gate = Arc::new(Gate::new(node.ctx.client.clone(), node.ctx.config.node_name.clone()));
    Router::new()
        .route("/healthz", any(healthy))
        .route("/healthz/ping", any(healthy))
        .route("/healthz/syncloop", any(healthy))
        .route("/configz", get(configz))
        .route("/logs", get(files::answer))
        .route("/logs/", get(files::answer))
        .route("/logs/{*path}", get(files::answer))
        .route("/pods", get(pods))
        .route("/runningpods/", get(running_pods))
        .route("/stats/summary", get(summary))
        .route("/metrics", any(metrics))
        .route("/metrics/resource", any(resource))
        .route("/metrics/cadvisor", any(cadvisor))
        .route("/metrics/probes", any(probes))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(log::answer))
        .route("/exec/{namespace}/{pod}/{container}", get(stream::exec).post(stream::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", get(stream::exec).post(stream::exec))
        .route("/attach/{namespace}/{pod}/{container}", get(stream::attach).post(stream::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", get(stream::attach).post(stream::attach))
        .route("/portForward/{namespace}/{pod}", get(stream::port_forward).post(stream::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", get(stream::port_forward).post(stream::port_forward))
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(gate, caller::those_who_may))
        .with_state(node)
}

async fn healthy() -> Response {
    answer::text(StatusCode::OK, "ok")
}

async fn pods(State(node): State<Node>) -> Response {
    let items: Vec<_> = node.pods.list().into_iter().map(|(pod, _)| pod).collect();
    answer::json(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

/// As the runtime has them.
async fn running_pods(State(node): State<Node>) -> Response {
    let Ok(sandboxes) = node.ctx.runtime.sandboxes().await else {
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the container runtime does not tell what runs\n");
    };
    let runs = |container: &&ContainerStatus| matches!(container.state, ContainerState::Running { .. });
    let items = sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| {
        let containers: Vec<_> =
            sandbox.containers.iter().filter(runs).map(|c| json!({ "name": c.spec.name, "image": c.image_id, "resources": {} })).collect();
        let spec = &sandbox.spec;
        json!({
            "metadata": { "name": spec.name, "namespace": spec.namespace, "uid": spec.uid },
            "spec": { "containers": containers },
            "status": {},
        })
    });
    let items: Vec<_> = items.collect();
    answer::json(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

async fn configz(State(node): State<Node>) -> Response {
    answer::json(&configz::document(&node.ctx.config))
}

async fn summary(State(node): State<Node>) -> Response {
    answer::json(&stats::summary(&node.ctx, &node.pods).await)
}

async fn metrics(State(node): State<Node>) -> Response {
    // And what all roles of this process ask of the API.
    answer::text(StatusCode::OK, stats::metrics(&node.ctx, &node.pods).await + &coracle_client::metrics::page())
}

async fn resource(State(node): State<Node>) -> Response {
    answer::text(StatusCode::OK, stats::resource(&node.ctx, &node.pods).await)
}

async fn cadvisor(State(node): State<Node>) -> Response {
    answer::text(StatusCode::OK, stats::cadvisor(&node.ctx, &node.pods).await)
}

async fn probes(State(node): State<Node>) -> Response {
    answer::text(StatusCode::OK, stats::probes(&node.ctx))
}

async fn not_allowed() -> Response {
    answer::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
}

async fn not_found() -> Response {
    answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let named = Path::from_request_parts(parts, state).await;
        named.map(|Path(name)| name).map_err(|error| answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn names_of_paths() {
        let named = |name: Name| async move { format!("{} {} {:?} {:?}", name.namespace, name.pod, name.uid, name.container) };
        let router = Router::new()
            .route("/exec/{namespace}/{pod}/{container}", get(named))
            .route("/exec/{namespace}/{pod}/{uid}/{container}", get(named))
            .route("/portForward/{namespace}/{pod}", get(named));
        for (path, code, text) in [
            ("/exec/a/web/c", 200, r#"a web None "c""#),
            ("/exec/a/web/1-2/c", 200, r#"a web Some("1-2") "c""#),
            ("/exec/a/w%65b/c%2Fd", 200, r#"a web None "c/d""#),
            ("/portForward/a/web", 200, r#"a web None """#),
            ("/exec/a/web/%FF", 400, "container"),
        ] {
            let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).expect("a request")).await.expect("an answer");
            assert_eq!(answer.status(), code, "{path}");
            let body = to_bytes(answer.into_body(), 1024).await.expect("a body");
            assert!(String::from_utf8_lossy(&body).contains(text), "{path}: {body:?}");
        }
    }
}
