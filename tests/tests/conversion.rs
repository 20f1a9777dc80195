//! A custom resource of two versions between which a webhook converts, with the real kubectl, no node.

use std::sync::{Arc, Mutex, PoisonError};

use coracle_tests::{
    Kubectl, Server,
    webhook::{Reply, Webhook},
};
use serde_json::{Value, json};

/// How the webhook behaves at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Honest,
    Renames,
    Forgets,
    Refuses,
    Raves,
    Sleeps,
}

/// `host:port` in v1, two fields in v2.
fn convert(object: &Value, desired: &str) -> Value {
    let mut out = object.clone();
    let fields = out.as_object_mut().expect("an object");
    fields.insert("apiVersion".into(), desired.into());
    if desired.ends_with("v2") {
        let both = fields.remove("hostPort").and_then(|both| both.as_str().map(str::to_owned)).unwrap_or_default();
        if let Some((host, port)) = both.split_once(':') {
            fields.insert("host".into(), host.into());
            fields.insert("port".into(), port.into());
        }
    } else {
        let mut part = |name: &str| fields.remove(name).and_then(|part| part.as_str().map(str::to_owned));
        if let Some((host, port)) = part("host").zip(part("port")) {
            fields.insert("hostPort".into(), format!("{host}:{port}").into());
        }
    }
    out
}

fn answer(mood: Mood, call: &Value) -> Reply {
    let request = &call["request"];
    let desired = request["desiredAPIVersion"].as_str().expect("a version");
    let mut objects: Vec<Value> = request["objects"].as_array().expect("a list").iter().map(|object| convert(object, desired)).collect();
    let mut result = json!({"status": "Success"});
    match mood {
        Mood::Honest => {}
        Mood::Renames => objects[0]["metadata"]["name"] = "other".into(),
        Mood::Forgets => drop(objects.pop()),
        Mood::Refuses => result = json!({"status": "Failure", "message": "not today"}),
        Mood::Raves => return Reply::Garbage("]]"),
        Mood::Sleeps => return Reply::Silence,
    }
    let response = json!({"uid": request["uid"], "convertedObjects": objects, "result": result});
    Reply::Json(json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}))
}

fn definition(client: &Value, storage: &str) -> String {
    let version = |name: &str, fields: &[&str]| {
        let selectable: Vec<Value> =
            fields.iter().filter(|field| **field != "note").map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        let fields: serde_json::Map<String, Value> = fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "served": true, "storage": name == storage, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.hooks.test"},
        "spec": {"group": "hooks.test", "scope": "Namespaced", "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}},
            "versions": [version("v1", &["hostPort", "note"]), version("v2", &["host", "port", "note"])]}})
    .to_string()
}

fn boat(version: &str, name: &str, fields: Value) -> String {
    let mut boat = json!({"apiVersion": format!("hooks.test/{version}"), "kind": "Boat", "metadata": {"name": name}});
    boat.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    boat.to_string()
}

fn read(kubectl: &Kubectl, args: &[&str]) -> Value {
    serde_json::from_str(&kubectl.ok(&[args, &["-o", "json"]].concat())).expect("JSON")
}

#[test]
fn a_webhook_converts_between_versions() {
    let server = Server::start(&["--roles=apiserver"]);
    let kubectl = server.kubectl();
    let mood = Arc::new(Mutex::new(Mood::Honest));
    let now = Arc::clone(&mood);
    let webhook = Webhook::start("convert.default.svc", move |_, call| answer(*now.lock().unwrap_or_else(PoisonError::into_inner), call));
    let set = |to: Mood| *mood.lock().unwrap_or_else(PoisonError::into_inner) = to;
    kubectl.apply(&webhook.service(&kubectl, "default", "convert").to_string());
    let client = webhook.by_service("default", "convert", "/convert");
    kubectl.apply(&definition(&client, "v1"));
    kubectl.wait("crd/boats.hooks.test", "condition=Established");

    // Reads, and writes of the version that is not stored.
    kubectl.apply(&boat("v1", "one", json!({"hostPort": "localhost:8080"})));
    let one = read(&kubectl, &["get", "boats.v2.hooks.test", "one"]);
    assert_eq!(
        (&one["apiVersion"], &one["host"], &one["port"], &one["hostPort"]),
        (&json!("hooks.test/v2"), &json!("localhost"), &json!("8080"), &Value::Null)
    );
    kubectl.apply(&boat("v2", "two", json!({"host": "h", "port": "1"})));
    let two = read(&kubectl, &["get", "boats.v1.hooks.test", "two"]);
    assert_eq!((&two["hostPort"], &two["host"]), (&json!("h:1"), &Value::Null));
    kubectl.ok(&["patch", "boats.v2.hooks.test", "two", "--type=merge", "-p", r#"{"port":"2"}"#]);
    assert_eq!(read(&kubectl, &["get", "boats.v1.hooks.test", "two"])["hostPort"], "h:2");
    let list = read(&kubectl, &["get", "boats.v2.hooks.test"]);
    let ports: Vec<&str> = list["items"].as_array().expect("items").iter().filter_map(|item| item["port"].as_str()).collect();
    assert_eq!(ports, ["8080", "2"]);
    let mut watch = kubectl.follow(&["get", "boats.v2.hooks.test", "--watch", "-o", "custom-columns=N:.metadata.name,P:.port"]);
    watch.see("8080");
    kubectl.ok(&["patch", "boats.v1.hooks.test", "one", "--type=merge", "-p", r#"{"hostPort":"localhost:9090"}"#]);
    watch.see("9090");
    drop(watch);

    // A version's own fields select, whatever version is stored; a change may bring an object in or take it out.
    let select = |version: &str, fields: &str| {
        let list = read(&kubectl, &["get", &format!("boats.{version}.hooks.test"), "--field-selector", fields]);
        let names =
            list["items"].as_array().expect("items").iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned());
        names.collect::<Vec<String>>()
    };
    assert_eq!(select("v1", "hostPort=h:2"), ["two"]);
    assert_eq!(select("v2", "host=localhost,port=9090"), ["one"]);
    assert_eq!(select("v2", "host!=localhost"), ["two"]);
    assert!(
        kubectl.fails(&["get", "boats.v2.hooks.test", "--field-selector", "hostPort=h:2"]).contains("field label not supported: hostPort")
    );
    let mut watch =
        kubectl.follow(&["get", "boats.v2.hooks.test", "--field-selector=port=7", "--watch", "--output-watch-events", "--no-headers"]);
    kubectl.ok(&["patch", "boats.v1.hooks.test", "two", "--type=merge", "-p", r#"{"hostPort":"h:7"}"#]);
    watch.see("ADDED");
    kubectl.ok(&["patch", "boats.v1.hooks.test", "two", "--type=merge", "-p", r#"{"hostPort":"h:8"}"#]);
    watch.see("DELETED");
    drop(watch);

    // Managers that write in different versions know of each other.
    let apply = |manager: &str| ["apply", "--server-side", "--field-manager", manager, "-f", "-"].map(str::to_owned);
    let run = |manager: &str, manifest: &str| {
        let args = apply(manager);
        kubectl.stdin(&args.iter().map(String::as_str).collect::<Vec<_>>(), manifest)
    };
    run("first", &boat("v1", "three", json!({"hostPort": "x:1", "note": "a"})));
    run("second", &boat("v2", "three", json!({"host": "x", "port": "1"})));
    run("first", &boat("v1", "three", json!({"hostPort": "x:1"})));
    let three = read(&kubectl, &["get", "boats.v1.hooks.test", "three"]);
    assert_eq!((&three["hostPort"], &three["note"]), (&json!("x:1"), &Value::Null), "{three}");

    // A list of both versions, after the stored one is another.
    kubectl.apply(&definition(&client, "v2"));
    kubectl.apply(&boat("v2", "four", json!({"host": "h", "port": "4"})));
    for (version, field) in [("v1", "hostPort"), ("v2", "port")] {
        let list = read(&kubectl, &["get", &format!("boats.{version}.hooks.test")]);
        let items = list["items"].as_array().expect("items");
        assert!(
            items.len() == 4 && items.iter().all(|item| item[field].is_string() && item["apiVersion"] == list["items"][0]["apiVersion"]),
            "{list}"
        );
    }

    // Lies, and silence.
    for (lie, what) in [
        (Mood::Renames, "must have the same name: four != other"),
        (Mood::Forgets, "returned 0 objects, expected 1"),
        (Mood::Refuses, "failed: not today"),
        (Mood::Raves, "not JSON"),
    ] {
        set(lie);
        let why = kubectl.fails(&["get", "boats.v1.hooks.test", "four"]);
        assert!(why.contains("conversion webhook for hooks.test/v2, Kind=Boat") && why.contains(what), "{lie:?}: {why}");
    }
    set(Mood::Sleeps);
    // What is stored in the version of the path needs nobody.
    assert_eq!(read(&kubectl, &["get", "boats.v2.hooks.test", "four"])["port"], "4");
    kubectl.ok(&["patch", "boats.v2.hooks.test", "four", "--type=merge", "-p", r#"{"port":"5"}"#]);
    set(Mood::Honest);
    assert_eq!(read(&kubectl, &["get", "boats.v1.hooks.test", "four"])["hostPort"], "h:5");
    // Any write brings an old object to the version of today.
    kubectl.ok(&["label", "boats.v2.hooks.test", "one", "moved=yes"]);
    set(Mood::Raves);
    assert_eq!(read(&kubectl, &["get", "boats.v2.hooks.test", "one"])["port"], "9090");
    kubectl.ok(&["delete", "crd", "boats.hooks.test"]);
}
