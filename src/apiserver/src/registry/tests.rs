//! The registry over a real store in a directory of its own, asked as a client asks.

use std::time::Duration;

use coracle_store::embedded::{EmbeddedStore, Options};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

mod apply;
mod policies;
mod watches;

use super::*;
use crate::request::RequestInfo;

#[path = "definition_tests.rs"]
mod definitions;

struct Server {
    registry: Registry,
    _dir: tempfile::TempDir,
}

async fn server() -> Server {
    server_with(Bounds::default()).await
}

async fn server_with(history: Bounds) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
    let config = Config { service_cidr: "10.43.0.0/24".into(), node_ports: 30000..=30099, history };
    let registry = Registry::open(store, |_| Vec::new(), config).await.unwrap();
    Server { registry, _dir: dir }
}

/// A request by its method and a path such as `v1/a/pods/web/status?x=y` or `apps/v1/a/deployments`; `-` is no namespace.
fn request(verb: &str, path: &str, content_type: &str) -> Context {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts = path.split('/');
    let first = parts.next().unwrap();
    let (group, version) = if first == "v1" { ("", first) } else { (first, parts.next().unwrap()) };
    let namespace = parts.next().filter(|n| *n != "-").unwrap_or_default();
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let info = RequestInfo {
        verb: verb.into(),
        is_resource: true,
        group: group.into(),
        version: version.into(),
        namespace: namespace.into(),
        resource: part(),
        name: part(),
        subresource: part(),
        ..RequestInfo::default()
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(content_type).unwrap());
    let query = query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (k.into(), v.into()));
    Context {
        user: crate::request::User::default(),
        info,
        query: query.collect(),
        method: Method::POST,
        headers,
        warnings: Default::default(),
        audit: Default::default(),
    }
}

impl Server {
    async fn send(&self, verb: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.send_as(content_type, verb, path, body).await
    }

    async fn send_as(&self, content_type: &str, verb: &str, path: &str, body: Bytes) -> (u16, Value) {
        let cx = request(verb, path, content_type);
        let response = self.registry.handle(&cx, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes))))
    }

    async fn ok(&self, verb: &str, path: &str, body: Value) -> Value {
        let (code, value) = self.send(verb, path, body).await;
        assert!(code < 300, "{verb} {path}: {value}");
        value
    }

    async fn watch(&self, path: &str) -> Events {
        let response = self.registry.handle(&request("watch", path, "application/json"), Bytes::new()).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), rest: Vec::new() }
    }
}

struct Events {
    body: Body,
    rest: Vec<u8>,
}

impl Events {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.expect("an event within ten seconds");
            self.rest.extend_from_slice(&frame.expect("the watch goes on").unwrap().into_data().unwrap());
        }
    }

    async fn expect(&mut self, want: &[(&str, &str)]) {
        for (word, name) in want {
            let event = self.next().await;
            assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(word), &json!(name)), "{event}");
        }
    }
}

fn map(name: &str, labels: Value, data: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"x": data}})
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = server().await;
    let made = server.ok("create", "v1/a/configmaps", map("m", json!({}), "1")).await;
    assert_eq!((&made["metadata"]["namespace"], &made["kind"]), (&json!("a"), &json!("ConfigMap")));
    assert_eq!(server.ok("get", "v1/a/configmaps/m", Value::Null).await, made);
    let (code, status) = server.send("create", "v1/a/configmaps", map("m", json!({}), "1")).await;
    assert_eq!((code, &status["reason"], &status["details"]["kind"]), (409, &json!("AlreadyExists"), &json!("configmaps")));

    let mut stale = made.clone();
    let patched = server.ok("patch", "v1/a/configmaps/m", json!({"data": {"y": "2"}})).await;
    assert_eq!(patched["data"], json!({"x": "1", "y": "2"}));
    stale["data"]["x"] = "3".into();
    let (code, status) = server.send("update", "v1/a/configmaps/m", stale.clone()).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let updated = server.ok("update", "v1/a/configmaps/m", stale).await;
    assert_eq!(updated["data"], json!({"x": "3"}));
    let same = server.ok("patch", "v1/a/configmaps/m", json!({})).await;
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"], "no change is no write");

    let deleted = server.ok("delete", "v1/a/configmaps/m", Value::Null).await;
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(server.send("get", "v1/a/configmaps/m", Value::Null).await.0, 404);
}

#[tokio::test]
async fn lists_page_consistently_while_objects_change() {
    let server = server().await;
    for at in 0..5 {
        server.ok("create", "v1/a/configmaps", map(&format!("m{at}"), json!({"odd": (at % 2).to_string()}), "1")).await;
    }
    server.ok("create", "v1/b/configmaps", map("other", json!({}), "1")).await;
    let first = server.ok("list", "v1/a/configmaps?limit=2", Value::Null).await;
    assert_eq!((first["items"].as_array().unwrap().len(), &first["metadata"]["remainingItemCount"]), (2, &json!(3)));
    assert_eq!(first["items"][0].get("kind"), None);
    server.ok("delete", "v1/a/configmaps/m3", Value::Null).await;
    server.ok("create", "v1/a/configmaps", map("m31", json!({}), "1")).await;
    let path = format!("v1/a/configmaps?limit=9&continue={}", first["metadata"]["continue"].as_str().unwrap());
    let rest = server.ok("list", &path, Value::Null).await;
    let names: Vec<&str> = rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let odd = server.ok("list", "v1/a/configmaps?labelSelector=odd=1", Value::Null).await;
    assert_eq!(odd["items"].as_array().unwrap().len(), 1);
    let all = server.ok("list", "v1/-/configmaps?fieldSelector=metadata.namespace!=a", Value::Null).await;
    assert_eq!(all["items"][0]["metadata"]["name"], "other");
}

#[tokio::test]
async fn a_watch_tells_what_its_selector_means() {
    let server = server().await;
    server.ok("create", "v1/a/configmaps", map("m", json!({"on": "1"}), "1")).await;
    let path = "v1/a/configmaps?labelSelector=on&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = server.watch(path).await;
    events.expect(&[("ADDED", "m")]).await;
    let mark = events.next().await;
    assert_eq!(
        (&mark["type"], &mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"]),
        (&json!("BOOKMARK"), &json!("true"))
    );
    server.ok("create", "v1/a/configmaps", map("off", json!({}), "1")).await;
    server.ok("patch", "v1/a/configmaps/off", json!({"metadata": {"labels": {"on": "1"}}})).await;
    let last = server.ok("patch", "v1/a/configmaps/m", json!({"metadata": {"labels": {"on": null}}})).await;
    events.expect(&[("ADDED", "off")]).await;
    let left = events.next().await;
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]), (&json!("DELETED"), &json!({"on": "1"})));
    assert_eq!(left["object"]["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
    server.ok("delete", "v1/a/configmaps/off", Value::Null).await;
    events.expect(&[("DELETED", "off")]).await;
    let from = mark["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    let mut again = server.watch(&format!("v1/a/configmaps?resourceVersion={from}")).await;
    again.expect(&[("ADDED", "off"), ("MODIFIED", "off"), ("MODIFIED", "m"), ("DELETED", "off")]).await;
}

#[tokio::test]
async fn a_watch_below_the_window_expires() {
    let server = server_with(Bounds { changes: 5, bytes: 1 << 20 }).await;
    server.ok("create", "v1/a/configmaps", map("m", json!({}), "1")).await;
    let collection = server.registry.collection("configmaps");
    for _ in 0..9 {
        server
            .registry
            .change("", "configmaps", "a", "m", &mut |old| {
                let mut new = old.clone();
                let count: u64 = old["data"]["x"].as_str().unwrap().parse().unwrap();
                new["data"]["x"] = (count + 1).to_string().into();
                new
            })
            .await
            .unwrap();
    }
    assert!(collection.floor() > 1);
    let mut events = server.watch("v1/a/configmaps?resourceVersion=1").await;
    let event = events.next().await;
    assert_eq!((&event["type"], &event["object"]["code"], &event["object"]["reason"]), (&json!("ERROR"), &json!(410), &json!("Expired")));
    let (code, status) = server.send("list", "v1/a/configmaps?resourceVersion=1&resourceVersionMatch=Exact", Value::Null).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn finalizers_hold_until_the_last_is_gone() {
    let server = server().await;
    let mut held = map("m", json!({}), "1");
    held["metadata"]["finalizers"] = json!(["a.test/x"]);
    server.ok("create", "v1/a/configmaps", held).await;
    let waiting = server.ok("delete", "v1/a/configmaps/m", Value::Null).await;
    assert_eq!((&waiting["kind"], waiting["metadata"]["deletionTimestamp"].is_string()), (&json!("ConfigMap"), true));
    server.ok("patch", "v1/a/configmaps/m", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(server.send("get", "v1/a/configmaps/m", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let server = server().await;
    let made = server
        .ok(
            "create",
            "v1/a/services?dryRun=All",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}}),
        )
        .await;
    assert_eq!(made["metadata"].get("resourceVersion"), None);
    assert_eq!(server.send("get", "v1/a/services/s", Value::Null).await.0, 404);
    let made = server
        .ok(
            "create",
            "v1/a/services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}]}}),
        )
        .await;
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 30007);
    server.ok("delete", "v1/a/services/s", Value::Null).await;
    let (code, _) = server
        .send(
            "create",
            "v1/a/services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "t"},
        "spec": {"type": "NodePort", "clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80, "nodePort": 30007}]}}),
        )
        .await;
    assert_eq!(code, 201, "what a deleted Service held is free");
}

#[tokio::test]
async fn writers_that_race_all_win_in_turn() {
    let server = Arc::new(server().await);
    server.ok("create", "v1/a/configmaps", map("m", json!({}), "0")).await;
    let tasks: Vec<_> = (0..8)
        .map(|at| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.ok("patch", "v1/a/configmaps/m", json!({"data": {format!("k{at}"): "1"}})).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let end = server.ok("get", "v1/a/configmaps/m", Value::Null).await;
    assert_eq!(end["data"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn an_address_has_its_record_as_long_as_its_service() {
    let server = server().await;
    let service = |name: &str, ip: Option<&str>| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    let (code, made) = server.send("create", "v1/a/services", service("web", None)).await;
    assert_eq!(code, 201, "{made}");
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let path = format!("networking.k8s.io/v1/-/ipaddresses/{ip}");
    let (code, record) = server.send("get", &path, Value::Null).await;
    assert_eq!((code, &record["spec"]["parentRef"]), (200, &json!({"resource": "services", "namespace": "a", "name": "web"})), "{record}");
    assert_eq!(
        record["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    // What somebody takes away comes back; what somebody wrote by hand is not given out.
    let gone = async |path: &str| {
        let mut changes = server.registry.cache().subscribe("networking.k8s.io", "ipaddresses");
        while server.send("get", path, Value::Null).await.0 != 404 {
            changes.next().await.unwrap();
        }
    };
    let mut changes = server.registry.cache().subscribe("networking.k8s.io", "ipaddresses");
    assert_eq!(server.send("delete", &path, Value::Null).await.0, 200);
    while server.registry.cache().list("networking.k8s.io", "ipaddresses", "").objects.is_empty() {
        changes.next().await.unwrap();
    }
    assert_eq!(server.send("get", &path, Value::Null).await.1["spec"], record["spec"]);
    assert_eq!(server.send("delete", "v1/a/services/web", Value::Null).await.0, 200);
    tokio::time::timeout(Duration::from_secs(20), gone(&path)).await.unwrap();
    assert_eq!(server.send("create", "v1/a/services", service("again", Some(&ip))).await.0, 201);
    // A write that fails leaves no record behind.
    assert_eq!(server.send("create", "v1/a/services", service("again", Some("10.43.0.77"))).await.0, 409);
    assert_eq!(server.send("get", "networking.k8s.io/v1/-/ipaddresses/10.43.0.77", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_service_cidr_that_people_add_gives_addresses() {
    let server = server().await;
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": "10.99.0.5", "ports": [{"port": 80}]}});
    assert_eq!(server.send("create", "v1/a/services", service("early")).await.0, 422);
    let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}, "spec": {"cidrs": ["10.99.0.0/24"]}});
    let (code, answer) = server.send("create", "networking.k8s.io/v1/-/servicecidrs", cidr).await;
    assert_eq!(code, 201, "{answer}");
    let allowed = async {
        loop {
            match server.send("create", "v1/a/services", service("late")).await {
                (201, _) => break,
                (code, answer) => assert_eq!(code, 422, "{answer}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), allowed).await.unwrap();
}
