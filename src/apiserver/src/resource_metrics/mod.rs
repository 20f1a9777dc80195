//! metrics.k8s.io/v1beta1 without a server of its own: what nodes and pods use, asked of the nodes when somebody asks here.
//!
//! The figures are those of `/metrics/resource` of the node's server, so any kubelet will do. A CPU rate needs two looks: the one before is kept for a
//! while, and where there is none the second one follows the first. While nobody asks, nothing is asked, and nothing is kept for long.
//! An APIService that leads to another server (metrics-server) goes before this.

mod objects;
mod text;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::response::Response;
use coracle_api::{
    catalogue::{self, Resource},
    protobuf,
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture},
    stream,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    answer, node_proxy,
    output::{
        self,
        format::{Format, Shape},
        transform::{self, Include},
    },
    registry::read,
    request::Context,
    server::Shared,
};
use window::{Look, Usage};

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// How a single pod's figures are called in messages: metrics-server's word.
const PODS: &str = "podmetrics";
/// The same of a node.
const NODES: &str = "nodemetrics";
/// Two looks are apart at least this long: their difference says little otherwise.
const LEAST: Duration = Duration::from_millis(500);
/// A look that is older says nothing of now.
const MOST: Duration = Duration::from_secs(60);
/// A node that has not answered in this time has no figures.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes that are asked at once.
const AT_ONCE: usize = 32;
/// Bytes of a node's answer: a container takes some 400, a pod has a few, a node some hundred pods.
const MAX_BYTES: usize = 4 << 20;

/// The last looks at each node.
#[derive(Debug, Default)]
pub(crate) struct ResourceMetrics {
    nodes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Seen>>>>,
}

/// Of one node.
#[derive(Debug, Default)]
struct Seen {
    /// The last look, and when that was.
    last: Option<(Instant, Look)>,
    /// What was made of it and the one before.
    usage: Arc<Usage>,
}

impl ResourceMetrics {
    fn node(&self, name: &str) -> Arc<tokio::sync::Mutex<Seen>> {
        Arc::clone(self.nodes.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default())
    }

    /// Nodes that are no more are forgotten.
    fn retain(&self, known: &BTreeSet<&str>) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| known.contains(name.as_str()));
    }
}

/// The answer to a get or a list.
pub(crate) async fn answer(shared: &Shared, cx: &Context, resource: &Resource) -> Response {
    match cx.info.verb.as_str() {
        "get" | "list" => respond(shared, cx, resource).await.unwrap_or_else(|status| answer::status(&status)),
        _ => answer::method_not_allowed("GET"),
    }
}

async fn respond(shared: &Shared, cx: &Context, resource: &Resource) -> Result<Response, Status> {
    let format = Format::negotiate_objects(&cx.headers, cx.param("pretty"), &cx.info.verb, false)?;
    let include = read::include(cx)?;
    let wanted = Wanted::of(cx)?;
    let objects = match resource.plural.as_str() {
        "nodes" => nodes(shared, &wanted).await,
        _ => pods(shared, &wanted).await,
    };
    if cx.info.name.is_empty() {
        return Ok(list(&format, resource, objects, include));
    }
    match objects.into_iter().next() {
        Some(object) => Ok(one(&format, resource, &object, include)),
        None if resource.namespaced => Err(Status::not_found(GROUP, PODS, &format!("{}/{}", cx.info.namespace, cx.info.name))),
        None => Err(Status::not_found(GROUP, NODES, &cx.info.name)),
    }
}

/// Whose figures are wanted.
struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl<'a> Wanted<'a> {
    fn of(cx: &'a Context) -> Result<Self, Status> {
        let text = |name: &str| cx.param(name).unwrap_or_default();
        let labels = LabelSelector::parse(text("labelSelector")).map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(text("fieldSelector")).map_err(|error| Status::bad_request(error.to_string()))?;
        let unknown = fields.requirements.iter().find(|r| !matches!(r.field.as_str(), "metadata.name" | "metadata.namespace"));
        if let Some(unknown) = unknown {
            return Err(Status::bad_request(format!("field label not supported: {}", unknown.field)));
        }
        Ok(Self { namespace: &cx.info.namespace, name: &cx.info.name, labels, fields })
    }

    fn means(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let field = |name: &str| name.strip_prefix("metadata.").and_then(|field| metadata[field].as_str());
        (self.name.is_empty() || metadata["name"] == self.name)
            && self.labels.matches_value(&metadata["labels"])
            && self.fields.matches(field)
    }
}

async fn nodes(shared: &Shared, wanted: &Wanted<'_>) -> Vec<Value> {
    let all = shared.registry.cache().list("", "nodes", "").objects.iter().map(|object| object.value()).collect::<Vec<_>>();
    let meant: BTreeMap<&str, &Value> =
        all.iter().filter(|node| wanted.means(node)).filter_map(|node| Some((node["metadata"]["name"].as_str()?, node))).collect();
    let usages = usages(shared, meant.keys().copied()).await;
    meant.into_iter().filter_map(|(name, node)| objects::node(node, usages.get(name)?)).collect()
}

async fn pods(shared: &Shared, wanted: &Wanted<'_>) -> Vec<Value> {
    let found = match wanted.name {
        "" => shared.registry.cache().list("", "pods", wanted.namespace).objects,
        name => shared.registry.cache().get("", "pods", wanted.namespace, name).into_iter().collect::<Vec<_>>(),
    };
    let runs = |pod: &Value| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    // Of thousands of pods only what is told again is kept while their nodes are asked.
    let told = |mut pod: Value| {
        let node = pod["spec"]["nodeName"].as_str()?.to_owned();
        let metadata = &mut pod["metadata"];
        let kept = ["name", "namespace", "labels"].map(|field| (field.to_owned(), metadata[field].take()));
        Some((node, json!({"metadata": Map::from_iter(kept)})))
    };
    let all: Vec<(String, Value)> =
        found.iter().map(|object| object.value()).filter(|pod| runs(pod) && wanted.means(pod)).filter_map(told).collect();
    let nodes: BTreeSet<&str> = all.iter().map(|(node, _)| node.as_str()).collect();
    let usages = usages(shared, nodes.into_iter()).await;
    all.iter().filter_map(|(node, pod)| objects::pod(pod, usages.get(node)?)).collect()
}

/// What these nodes say; those that there are not (a pod may name any) or that do not answer are left out.
async fn usages(shared: &Shared, nodes: impl Iterator<Item = &str>) -> HashMap<String, Arc<Usage>> {
    let known = shared.registry.cache().list("", "nodes", "").objects;
    let known: BTreeSet<&str> = known.iter().map(|node| node.name()).collect();
    shared.resource_metrics.retain(&known);
    let asked: Vec<BoxFuture<'_, _>> = nodes.filter(|name| known.contains(name)).map(|name| ask(shared, name.to_owned()).boxed()).collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(future::ready).collect().await
}

async fn ask(shared: &Shared, name: String) -> Option<(String, Arc<Usage>)> {
    let asked = tokio::time::timeout(PATIENCE, usage(shared, &name)).await;
    match asked.unwrap_or_else(|_| Err(Status::new(504, "Timeout", "no answer in time"))) {
        Ok(usage) => Some((name, usage)),
        Err(status) => {
            tracing::warn!(node = name, error = status.message, "a node does not say what it uses");
            None
        }
    }
}

/// Looks at a node, twice if need be. Those who ask at once share the looks.
async fn usage(shared: &Shared, node: &str) -> Result<Arc<Usage>, Status> {
    let seen = shared.resource_metrics.node(node);
    let mut seen = seen.lock().await;
    let before = seen.last.take().filter(|(at, _)| at.elapsed() <= MOST);
    if let Some((at, look)) = before {
        if at.elapsed() >= LEAST {
            return renew(shared, node, &mut seen, look).await;
        }
        // Just now somebody else has looked.
        seen.last = Some((at, look));
        return Ok(Arc::clone(&seen.usage));
    }
    let first = look(shared, node).await?;
    tokio::time::sleep(LEAST).await;
    renew(shared, node, &mut seen, first).await
}

async fn renew(shared: &Shared, node: &str, seen: &mut Seen, before: Look) -> Result<Arc<Usage>, Status> {
    let now = look(shared, node).await?;
    seen.usage = Arc::new(window::usage(&before, &now));
    seen.last = Some((Instant::now(), now));
    Ok(Arc::clone(&seen.usage))
}

async fn look(shared: &Shared, node: &str) -> Result<Look, Status> {
    let body = node_proxy::read(shared, node, "/metrics/resource", MAX_BYTES).await?;
    Ok(text::look(&String::from_utf8_lossy(&body), Timestamp::now().as_millisecond()))
}

fn one(format: &Format, resource: &Resource, object: &Value, include: Include) -> Response {
    match &format.shape {
        Shape::Whole => output::value(200, format, object, |object| protobuf::encode(&resource.schema, object)),
        Shape::Partial(version) => plain(format, resource, &transform::partial(object, version)),
        Shape::Table(version) => plain(format, resource, &table(resource, std::slice::from_ref(object), version, include)),
    }
}

fn list(format: &Format, resource: &Resource, mut objects: Vec<Value>, include: Include) -> Response {
    match &format.shape {
        Shape::Whole => {
            for object in objects.iter_mut().filter_map(Value::as_object_mut) {
                object.remove("kind");
                object.remove("apiVersion");
            }
            let list = json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": {}, "items": objects});
            output::value(200, format, &list, |list| protobuf::encode_list(&resource.schema, list))
        }
        Shape::Partial(version) => {
            let items: Vec<Value> = objects.iter().map(|object| transform::partial(object, version)).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {}, "items": items});
            plain(format, resource, &list)
        }
        Shape::Table(version) => plain(format, resource, &table(resource, &objects, version, include)),
    }
}

fn table(resource: &Resource, objects: &[Value], version: &str, include: Include) -> Value {
    let now = Timestamp::now();
    let rows = objects.iter().map(|object| transform::row(resource, object, version, include, now)).collect();
    transform::table(version, Map::new(), Some(transform::headings(resource)), rows)
}

/// Tables and partial metadata: of the meta group.
fn plain(format: &Format, resource: &Resource, value: &Value) -> Response {
    let kind = value["kind"].as_str().unwrap_or_default();
    let schema = catalogue::builtin().message(kind).unwrap_or(&resource.schema);
    output::value(200, format, value, |value| protobuf::encode(schema, value))
}

/// Who may read them: added to the roles view, edit and admin.
pub(crate) fn reader_role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
            "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-edit": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "true",
        }},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}
