//! Quotas over a registry with a real store: no overshoot, whoever writes at once; nothing is charged for what does not come to be.

use std::time::Duration;

use bytes::Bytes;
use coracle_store::embedded::{EmbeddedStore, Options};
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use serde_json::json;

use super::*;
use crate::{
    cache::collection::Bounds,
    registry::{Config, Registry},
    request::{Context, RequestInfo, User},
};

struct Server {
    registry: Registry,
    _dir: tempfile::TempDir,
}

async fn server() -> Arc<Server> {
    limiting(Vec::new()).await
}

async fn limiting(limited: Vec<Limited>) -> Arc<Server> {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
    let config = Config { service_cidr: "10.43.0.0/24".into(), node_ports: 30000..=30099, history: Bounds::default() };
    let plugins = |cache: &Cache| vec![ResourceQuota::new(cache.clone(), Arc::clone(&store), limited) as Arc<dyn Plugin>];
    let registry = Registry::open(Arc::clone(&store), plugins, config).await.unwrap();
    Arc::new(Server { registry, _dir: dir })
}

impl Server {
    async fn send(&self, verb: &str, path: &str, body: Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let info = RequestInfo {
            verb: verb.into(),
            is_resource: true,
            version: "v1".into(),
            namespace: "a".into(),
            resource: part(),
            name: part(),
            subresource: part(),
            ..RequestInfo::default()
        };
        let mut headers = HeaderMap::new();
        let media = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
        headers.insert("content-type", media.parse().unwrap());
        let query = query.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let cx = Context {
            user: User::default(),
            info,
            query,
            method: Method::POST,
            headers,
            warnings: Default::default(),
            audit: Default::default(),
        };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let response = self.registry.handle(&cx, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap())
    }

    /// A quota that the controller has counted: nothing is used.
    async fn quota(&self, spec: Value) {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec});
        assert_eq!(self.send("create", "resourcequotas", quota).await.0, 201);
        let used: Value =
            spec["hard"].as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect::<serde_json::Map<_, _>>().into();
        let (code, answer) = self.send("patch", "resourcequotas/q/status", json!({"status": {"hard": spec["hard"], "used": used}})).await;
        assert_eq!(code, 200, "{answer}");
    }

    async fn used(&self) -> Value {
        self.send("get", "resourcequotas/q", Value::Null).await.1["status"]["used"].clone()
    }

    async fn used_becomes(&self, wanted: Value) {
        let look = async {
            let mut changes = self.registry.cache().subscribe("", "resourcequotas");
            while self.used().await != wanted {
                changes.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.unwrap_or_else(|_| panic!("used never became {wanted}"));
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn pod(name: &str, resources: Value) -> Value {
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_take_what_there_is_and_no_more() {
    let server = server().await;
    server.quota(json!({"hard": {"configmaps": "20"}})).await;
    // Meanwhile somebody writes a stale count again and again, as a controller does that has not seen the last creations.
    let stale = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            for _ in 0..40 {
                server.send("patch", "resourcequotas/q/status", json!({"status": {"used": {"configmaps": "0"}}})).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let creates = (0..50).map(|n| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.send("create", "configmaps", map(&format!("m{n}"))).await })
    });
    let mut codes = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        let (code, answer) = create.await.unwrap();
        let text = answer["message"].as_str().unwrap_or_default().to_owned();
        assert!(
            code == 201
                || (code == 403
                    && text.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=20, limited: configmaps=20")),
            "{answer}"
        );
        codes.push(code);
    }
    stale.await.unwrap();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 20);
    assert_eq!(server.registry.cache().list("", "configmaps", "a").objects.len(), 20);
}

#[tokio::test]
async fn what_does_not_come_to_be_is_not_charged() {
    let server = server().await;
    server.quota(json!({"hard": {"configmaps": "5"}})).await;
    assert_eq!(server.send("create", "configmaps", map("m")).await.0, 201);
    assert_eq!(server.send("create", "configmaps", map("m")).await.0, 409);
    server.used_becomes(json!({"configmaps": "1"})).await;
    assert_eq!(server.send("create", "configmaps?dryRun=All", map("n")).await.0, 201);
    assert_eq!(server.used().await, json!({"configmaps": "1"}));
}

#[tokio::test]
async fn pods_are_held_to_what_they_ask_for() {
    let server = server().await;
    server.quota(json!({"hard": {"pods": "3", "requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    let (code, answer) = server.send("create", "pods", pod("a", json!({}))).await;
    assert_eq!(code, 403);
    assert_eq!(answer["message"], "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c");
    let ask = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": "500Mi"}});
    assert_eq!(server.send("create", "pods", pod("a", ask("600m"))).await.0, 201);
    let (code, answer) = server.send("create", "pods", pod("b", ask("500m"))).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
    assert_eq!(server.send("create", "pods", pod("b", ask("400m"))).await.0, 201);
    assert_eq!(server.used().await, json!({"limits.memory": "1000Mi", "pods": "2", "requests.cpu": "1"}));
}

#[tokio::test]
async fn a_service_that_changes_its_type_is_charged_the_difference() {
    let server = server().await;
    server.quota(json!({"hard": {"services": "1", "services.nodeports": "1"}})).await;
    let service = |kind: &str, ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}});
    assert_eq!(server.send("create", "services", service("ClusterIP", json!([{"port": 80}]))).await.0, 201);
    assert_eq!(server.send("patch", "services/s", json!({"spec": {"type": "NodePort"}})).await.0, 200);
    assert_eq!(server.used().await, json!({"services": "1", "services.nodeports": "1"}));
    let two = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    let (code, answer) = server.send("patch", "services/s", two).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("requested: services.nodeports=1"), "{answer}");
}

#[tokio::test]
async fn what_is_limited_may_be_taken_where_a_quota_says_how_much() {
    let secrets = Limited { resource: "secrets".into(), contains: vec!["secrets".into()], ..Limited::default() };
    let server = limiting(vec![secrets]).await;
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let (code, status) = server.send("create", "secrets", secret("a")).await;
    assert_eq!(code, 403, "{status}");
    assert_eq!(status["message"], "secrets \"a\" is forbidden: insufficient quota to consume: count/secrets,secrets");
    server.quota(json!({"hard": {"secrets": "1", "count/secrets": "1"}})).await;
    let counted = json!({"status": {"hard": {"secrets": "1", "count/secrets": "1"}, "used": {"secrets": "0", "count/secrets": "0"}}});
    assert_eq!(server.send("patch", "resourcequotas/q/status", counted).await.0, 200);
    assert_eq!(server.send("create", "secrets", secret("a")).await.0, 201);
    let (code, status) = server.send("create", "secrets", secret("b")).await;
    assert!(code == 403 && status["message"].as_str().is_some_and(|why| why.contains("exceeded quota")), "{status}");
}
