//! Definitions at run time, over a real store: served, changed, deleted, and there again after a restart.

use serde_json::{Value, json};

use super::*;

const DEFINITIONS: &str = "apiextensions.k8s.io/v1/-/customresourcedefinitions";

fn boats(schema: &Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.golden.test"},
        "spec": {"group": "golden.test", "scope": "Namespaced", "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "selectableFields": [{"jsonPath": ".spec.port"}]}]}})
}

fn schema(crew: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"port": {"type": "string"}, "crew": crew}}}})
}

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "golden.test/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

impl Server {
    /// Waits until the catalogue has changed to something that passes.
    async fn catalogue_until(&self, passes: impl Fn(&Catalogue) -> bool) {
        let mut changes = self.registry.inner.catalogue.changes();
        let wait = async {
            while !passes(&self.registry.catalogue()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
    }

    async fn define(&self) {
        let definition = boats(&schema(&json!({"type": "integer", "default": 3})));
        self.ok("create", DEFINITIONS, definition).await;
        self.catalogue_until(|c| c.resource("golden.test", "v1", "boats").is_some()).await;
    }
}

#[tokio::test]
async fn what_is_defined_is_served_and_goes_with_its_definition() {
    let server = server().await;
    assert_eq!(server.send("create", "golden.test/v1/a/boats", boat("a", json!({}))).await.0, 404);
    server.define().await;
    let made = server.ok("create", "golden.test/v1/a/boats", boat("a", json!({"port": "x", "zz": 1}))).await;
    assert_eq!(made["spec"], json!({"port": "x", "crew": 3}));
    server.ok("create", "golden.test/v1/a/boats", boat("b", json!({"port": "y"}))).await;
    let list = server.ok("list", "golden.test/v1/a/boats?fieldSelector=spec.port=y", Value::Null).await;
    assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["metadata"]["name"]), (Some(1), &json!("b")));
    let deleted = server.ok("delete", &format!("{DEFINITIONS}/boats.golden.test"), Value::Null).await;
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    server.catalogue_until(|c| c.resource("golden.test", "v1", "boats").is_none()).await;
    assert!(server.registry.list("golden.test", "boats", "").objects.is_empty());
    assert!(server.registry.get("apiextensions.k8s.io", "customresourcedefinitions", "", "boats.golden.test").is_none());
}

#[tokio::test]
async fn stored_objects_and_watches_follow_the_schema() {
    let server = server().await;
    server.define().await;
    server.ok("create", "golden.test/v1/a/boats", boat("a", json!({"port": "x"}))).await;
    let mut events = server.watch("golden.test/v1/a/boats").await;
    assert_eq!(events.next().await["object"]["spec"], json!({"port": "x", "crew": 3}));
    let narrow = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties", "value": {"port": {"type": "string"}, "flag": {"type": "string", "default": "new"}}}]);
    let cx = request("patch", &format!("{DEFINITIONS}/boats.golden.test"), "application/json-patch+json");
    let response = server.registry.handle(&cx, narrow.to_string().into()).await;
    assert_eq!(response.status(), 200);
    server.catalogue_until(|c| c.resource("golden.test", "v1", "boats").is_some_and(|r| r.schema.at("spec.crew").is_none())).await;
    assert_eq!(server.ok("get", "golden.test/v1/a/boats/a", Value::Null).await["spec"], json!({"port": "x", "flag": "new"}));
    server.ok("create", "golden.test/v1/a/boats", boat("b", json!({"port": "y", "crew": 9}))).await;
    assert_eq!(events.next().await["object"]["spec"], json!({"port": "y", "flag": "new"}));
    // The definition's end is the watch's: first the objects go, then the stream, also of a watcher that is late.
    server.ok("delete", &format!("{DEFINITIONS}/boats.golden.test"), Value::Null).await;
    server.catalogue_until(|c| c.resource("golden.test", "v1", "boats").is_none()).await;
    for _ in 0..2 {
        assert_eq!(events.next().await["type"], "DELETED");
    }
}

#[tokio::test]
async fn each_version_says_what_selects() {
    let server = server().await;
    let mut definition = boats(&schema(&json!({"type": "integer"})));
    let mut second = definition["spec"]["versions"][0].clone();
    (second["name"], second["storage"]) = (json!("v2"), json!(false));
    second["selectableFields"] = json!([{"jsonPath": ".spec.crew"}]);
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    server.ok("create", DEFINITIONS, definition).await;
    server.catalogue_until(|c| c.resource("golden.test", "v2", "boats").is_some()).await;
    server.ok("create", "golden.test/v1/a/boats", boat("a", json!({"port": "x", "crew": 3}))).await;
    server.ok("create", "golden.test/v1/a/boats", boat("b", json!({"port": "y", "crew": 4}))).await;
    for (version, selector, expected) in
        [("v1", "spec.port=y", Some("b")), ("v2", "spec.crew=3", Some("a")), ("v1", "spec.crew=3", None), ("v2", "spec.port=y", None)]
    {
        let (code, list) = server.send("list", &format!("golden.test/{version}/a/boats?fieldSelector={selector}"), Value::Null).await;
        let found =
            list["items"].as_array().map(|items| items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect::<Vec<_>>());
        assert_eq!((code, found), expected.map_or((400, None), |name| (200, Some(vec![name]))), "{version} {selector}");
    }
}

#[tokio::test]
async fn a_scale_needs_no_revision_and_an_old_one_is_a_conflict() {
    let server = server().await;
    let mut definition = boats(&schema(&json!({"type": "integer"})));
    definition["spec"]["versions"][0]["subresources"] =
        json!({"scale": {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}});
    server.ok("create", DEFINITIONS, definition).await;
    server.catalogue_until(|c| c.resource("golden.test", "v1", "boats").is_some()).await;
    let made = server.ok("create", "golden.test/v1/a/boats", boat("a", json!({"crew": 1}))).await;
    let scale = |metadata: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": 5}});
    let path = "golden.test/v1/a/boats/a/scale";
    assert_eq!(server.ok("update", path, scale(json!({"name": "a"}))).await["spec"], json!({"replicas": 5}));
    let stale = scale(json!({"name": "a", "resourceVersion": made["metadata"]["resourceVersion"]}));
    assert_eq!(server.send("update", path, stale).await.0, 409);
}

#[tokio::test]
async fn a_restart_brings_all_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || async {
        // The tasks of the registry before let go of the store when they are next polled.
        let store = loop {
            match EmbeddedStore::open(dir.path(), Options::default()) {
                Ok(store) => break Arc::new(store),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let config = Config { service_cidr: "10.43.0.0/24".into(), node_ports: 30000..=30099, history: Bounds::default() };
        Registry::open(store, |_| Vec::new(), config).await.unwrap()
    };
    let first = Server { registry: open().await, _dir: tempfile::tempdir().unwrap() };
    first.define().await;
    first.ok("create", "golden.test/v1/a/boats", boat("a", json!({"port": "x"}))).await;
    drop(first);
    let second = Server { registry: open().await, _dir: tempfile::tempdir().unwrap() };
    let list = second.ok("list", "golden.test/v1/a/boats?fieldSelector=spec.port=x", Value::Null).await;
    assert_eq!(list["items"][0]["spec"], json!({"port": "x", "crew": 3}));
}
