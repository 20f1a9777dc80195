//! managedFields of all writes, and server-side apply, as clients see them.

use super::*;

const APPLY: &str = "application/apply-patch+yaml";

impl Server {
    async fn apply(&self, path: &str, config: Value) -> (u16, Value) {
        self.send_as(APPLY, "patch", path, config.to_string().into()).await
    }

    async fn applied(&self, path: &str, config: Value) -> Value {
        let (code, value) = self.apply(path, config).await;
        assert!(code < 300, "{path}: {value}");
        value
    }
}

/// `manager operation subresource time? fields`, in the order of managedFields.
fn managed(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let name = |e: &Value| format!("{} {} {}", text(e, "manager"), text(e, "operation"), text(e, "subresource")).trim_end().to_owned();
    list.iter().map(|e| (name(e), e["fieldsV1"].clone())).collect()
}

fn expect(object: &Value, want: &[(&str, Value)]) {
    let want: Vec<(String, Value)> = want.iter().map(|(name, fields)| ((*name).to_owned(), fields.clone())).collect();
    assert_eq!(managed(object), want);
}

fn data(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(spec: Value) -> Value {
    let mut all = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "i:1"}]}}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": all})
}

#[tokio::test]
async fn an_apply_creates_changes_and_gives_up() {
    let server = server().await;
    let path = "v1/a/configmaps/m?fieldManager=one";
    let (code, made) = server.apply(path, data("m", json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201);
    expect(&made, &[("one Apply", json!({"f:data": {"f:x": {}, "f:y": {}}}))]);
    let (code, same) = server.apply(path, data("m", json!({"x": "1", "y": "1"}))).await;
    assert_eq!((code, same), (200, made), "nothing changed, so nothing was written");
    let less = server.applied(path, data("m", json!({"x": "2"}))).await;
    assert_eq!(less["data"], json!({"x": "2"}));
    expect(&less, &[("one Apply", json!({"f:data": {"f:x": {}}}))]);
}

#[tokio::test]
async fn conflicts_name_manager_and_field() {
    let server = server().await;
    server.ok("create", "v1/a/configmaps?fieldManager=up", data("m", json!({"x": "1"}))).await;
    let (code, status) = server.apply("v1/a/configmaps/m?fieldManager=one", data("m", json!({"x": "2"}))).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"up\" using v1: .data.x");
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"up\" using v1", "field": ".data.x"});
    assert_eq!(status["details"]["causes"], json!([cause]));
    let (code, dry) = server.apply("v1/a/configmaps/m?fieldManager=one&force=true&dryRun=All", data("m", json!({"x": "2"}))).await;
    assert_eq!((code, &dry["data"]["x"]), (200, &json!("2")));
    assert_eq!(server.ok("get", "v1/a/configmaps/m", Value::Null).await["data"]["x"], "1");
    let forced = server.applied("v1/a/configmaps/m?fieldManager=one&force=true", data("m", json!({"x": "2"}))).await;
    expect(&forced, &[("one Apply", json!({"f:data": {"f:x": {}}})), ("up Update", json!({"f:data": {}}))]);
}

#[tokio::test]
async fn an_apply_that_cannot_be_is_refused() {
    let server = server().await;
    let at = |query: &str| format!("v1/a/configmaps/m{query}");
    for (query, config, code, reason) in [
        ("", data("m", json!({})), 422, "Invalid"),
        ("?fieldManager=one", data("other", json!({})), 400, "BadRequest"),
        ("?fieldManager=one", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "m"}}), 400, "BadRequest"),
        ("?fieldManager=one", json!({"kind": "ConfigMap", "metadata": {"name": "m"}}), 400, "BadRequest"),
        ("?fieldManager=one", json!([]), 400, "BadRequest"),
        ("?fieldManager=one", data("m", json!({"x": 1})), 400, "BadRequest"),
        (
            "?fieldManager=one&fieldValidation=Ignore",
            {
                let mut config = data("m", json!({}));
                config["unknown"] = 1.into();
                config
            },
            400,
            "BadRequest",
        ),
        (
            "?fieldManager=one",
            {
                let mut config = data("m", json!({}));
                config["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555".into();
                config
            },
            409,
            "Conflict",
        ),
        (
            "?fieldManager=one",
            {
                let mut config = data("m", json!({}));
                config["metadata"]["managedFields"] = json!([]);
                config
            },
            400,
            "BadRequest",
        ),
    ] {
        let (got, status) = server.apply(&at(query), config.clone()).await;
        assert_eq!((got, status["reason"].as_str()), (code, Some(reason)), "{query} {config}: {status}");
    }
    let (code, status) = server.send_as("application/apply-patch+cbor", "patch", &at("?fieldManager=one"), Bytes::new()).await;
    assert_eq!((code, &status["reason"]), (415, &json!("UnsupportedMediaType")));
    let (code, _) = server.send_as(APPLY, "patch", &at("?fieldManager=one&fieldValidation=Strict"), Bytes::from_static(TWICE)).await;
    assert_eq!(code, 400);
    let (code, made) = server.send_as(APPLY, "patch", &at("?fieldManager=one"), Bytes::from_static(TWICE)).await;
    assert_eq!((code, &made["data"]["k"]), (201, &json!("w")));
}

const TWICE: &[u8] = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: v, k: w}\n";

#[tokio::test]
async fn all_writers_are_told_apart() {
    let server = server().await;
    let made = server.ok("create", "v1/a/configmaps?fieldManager=creator", data("m", json!({"x": "1", "y": "1"}))).await;
    expect(&made, &[("creator Update", json!({"f:data": {".": {}, "f:x": {}, "f:y": {}}}))]);
    server.ok("patch", "v1/a/configmaps/m?fieldManager=patcher", json!({"data": {"z": "1"}})).await;
    let put = server.ok("update", "v1/a/configmaps/m?fieldManager=putter", data("m", json!({"x": "2"}))).await;
    expect(&put, &[("creator Update", json!({"f:data": {}})), ("putter Update", json!({"f:data": {"f:x": {}}}))]);
    let same = server.ok("update", "v1/a/configmaps/m?fieldManager=another", data("m", json!({"x": "2"}))).await;
    assert_eq!(same["metadata"]["resourceVersion"], put["metadata"]["resourceVersion"]);
    let none = server.ok("patch", "v1/a/configmaps/m", json!({"metadata": {"managedFields": []}})).await;
    assert_eq!(none["metadata"].get("managedFields"), None);
    let still = server.ok("patch", "v1/a/configmaps/m", json!({"data": {"n": "1"}})).await;
    assert_eq!(still["metadata"].get("managedFields"), None);
    let applied = server.applied("v1/a/configmaps/m?fieldManager=one", data("m", json!({"x": "2"}))).await;
    assert_eq!(managed(&applied)[1].0, "before-first-apply Update");
}

#[tokio::test]
async fn a_subresource_has_managers_of_its_own() {
    let server = server().await;
    let path = "apps/v1/a/deployments";
    server.ok("create", &format!("{path}?fieldManager=c"), deployment(json!({}))).await;
    let after = server
        .applied(
            &format!("{path}/web/status?fieldManager=ctl"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"}, "status": {"conditions": [{"type": "Available", "status": "True"}]}}),
        )
        .await;
    let fields = json!({"f:status": {"f:conditions": {"k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}});
    assert_eq!(managed(&after)[0], ("ctl Apply status".into(), fields));
    assert_eq!(after["status"]["conditions"][0]["status"], "True");
    let (code, gone) = server
        .apply(
            &format!("{path}/none/status?fieldManager=ctl"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "none"}}),
        )
        .await;
    assert_eq!((code, &gone["reason"]), (404, &json!("NotFound")), "a status creates nothing");
    // The status is not what an apply of the whole can own.
    let mut whole = deployment(json!({}));
    whole["status"] = json!({"replicas": 7});
    let after = server.applied(&format!("{path}/web?fieldManager=one"), whole).await;
    assert_eq!(after["status"].get("replicas"), None);
    assert!(managed(&after).iter().all(|(name, fields)| !name.starts_with("one") || fields.get("f:status").is_none()));
}

#[tokio::test]
async fn parts_of_a_pod_are_managed_by_who_changes_them() {
    let server = server().await;
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    server.ok("create", "v1/a/pods?fieldManager=c", pod(json!({"containers": [{"name": "main", "image": "i"}]}))).await;
    let debug = json!({"ephemeralContainers": [{"name": "d", "image": "i"}], "containers": [{"name": "main", "image": "i"}]});
    let after = server.ok("update", "v1/a/pods/p/ephemeralcontainers?fieldManager=debugger", pod(debug)).await;
    let names: Vec<String> = managed(&after).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["c Update", "debugger Update ephemeralcontainers"]);
}

#[tokio::test]
async fn scale_takes_the_replicas_from_who_had_them() {
    let server = server().await;
    let path = "apps/v1/a/deployments";
    server.ok("create", &format!("{path}?fieldManager=c"), deployment(json!({}))).await;
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    server.ok("update", &format!("{path}/web/scale?fieldManager=hpa"), scale(2)).await;
    let after = server.ok("get", &format!("{path}/web"), Value::Null).await;
    let of = |name: &str| managed(&after).into_iter().find(|(n, _)| n == name).map(|(_, fields)| fields);
    assert_eq!(of("hpa Update scale"), Some(json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!(of("c Update").unwrap()["f:spec"].get("f:replicas"), None);
    let (code, status) = server.apply(&format!("{path}/web?fieldManager=one"), deployment(json!({"replicas": 5}))).await;
    let cause = &status["details"]["causes"][0];
    assert_eq!((code, &cause["field"]), (409, &json!(".spec.replicas")));
    assert_eq!(cause["message"], "conflict with \"hpa\" with subresource \"scale\" using apps/v1");
    let (code, status) = server.apply(&format!("{path}/web/scale?fieldManager=two"), scale(4)).await;
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (409, &json!(".spec.replicas")));
    let scaled = server.applied(&format!("{path}/web/scale?fieldManager=two&force=true"), scale(4)).await;
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let after = server.ok("get", &format!("{path}/web"), Value::Null).await;
    assert!(managed(&after).contains(&("two Apply scale".into(), json!({"f:spec": {"f:replicas": {}}}))), "{:?}", managed(&after));
}

#[tokio::test]
async fn two_who_apply_at_once_both_win() {
    let server = Arc::new(server().await);
    let tasks: Vec<_> = (0..8)
        .map(|at| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                server.applied(&format!("v1/a/configmaps/m?fieldManager=m{at}"), data("m", json!({format!("k{at}"): "1"}))).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let end = server.ok("get", "v1/a/configmaps/m", Value::Null).await;
    assert_eq!((end["data"].as_object().unwrap().len(), managed(&end).len()), (8, 8));
}
