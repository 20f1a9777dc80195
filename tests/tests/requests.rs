//! Requests that cannot be served: upstream's code, `reason` and `causes`, and a message that says what and where.

use coracle_tests::{Server, http::Proxy};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A refusal: code, reason, and words of its message. It is a Status that says its code again.
struct Refused<'a> {
    what: &'a str,
    method: &'a str,
    path: &'a str,
    kind: &'a str,
    body: Vec<u8>,
    code: u16,
    reason: &'a str,
    message: &'a str,
}

#[test]
fn a_request_that_cannot_be_served_says_why() {
    let server = Server::start(&["--roles=apiserver"]);
    let proxy = Proxy::start(&server.kubectl());
    let bytes = |value: Value| value.to_string().into_bytes();
    let (code, first) = proxy.ask("POST", MAPS, JSON, &bytes(map("kept")));
    assert_eq!(code, 201, "{first}");
    let mut stale = first.clone();
    stale["data"] = json!({"a": "1"});
    assert_eq!(proxy.ask("PUT", &format!("{MAPS}/kept"), JSON, &bytes(stale.clone())).0, 200);

    let mut large = map("large");
    large["data"] = json!({"a": "x".repeat(4 << 20)});
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mut other_name = map("other");
    other_name["data"] = json!({});
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let kept = format!("{MAPS}/kept");
    let refused = |what, method, path, body, code, reason, message| Refused { what, method, path, kind: JSON, body, code, reason, message };
    let cases = [
        refused("malformed", "POST", MAPS, br#"{"metadata": "#.to_vec(), 400, "BadRequest", ""),
        refused("not an object", "POST", MAPS, b"[1]".to_vec(), 400, "BadRequest", ""),
        refused("too deep", "POST", MAPS, deep.into_bytes(), 400, "BadRequest", ""),
        refused("empty", "POST", MAPS, Vec::new(), 400, "BadRequest", ""),
        refused("oversized", "POST", MAPS, bytes(large), 413, "RequestEntityTooLarge", "limit"),
        refused("wrong type", "POST", MAPS, bytes(json!({"metadata": {"name": 5}})), 400, "BadRequest", "name"),
        refused(
            "unknown field",
            "POST",
            &strict,
            bytes(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "spec": {"foo": 1}})),
            400,
            "BadRequest",
            "strict decoding error: unknown field \"spec\"",
        ),
        refused(
            "another kind",
            "POST",
            MAPS,
            bytes(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}})),
            400,
            "BadRequest",
            "Secret",
        ),
        refused(
            "no name",
            "POST",
            MAPS,
            bytes(json!({"apiVersion": "v1", "kind": "ConfigMap"})),
            422,
            "Invalid",
            "name or generateName is required",
        ),
        refused("there already", "POST", MAPS, bytes(map("kept")), 409, "AlreadyExists", "configmaps \"kept\" already exists"),
        refused("stale", "PUT", &kept, bytes(stale), 409, "Conflict", "configmaps \"kept\""),
        refused("another name", "PUT", &kept, bytes(other_name), 400, "BadRequest", "name"),
        refused(
            "not there",
            "GET",
            "/api/v1/namespaces/default/configmaps/none",
            Vec::new(),
            404,
            "NotFound",
            "configmaps \"none\" not found",
        ),
        refused("unknown kind", "GET", "/apis/apps/v1/namespaces/default/kitchens", Vec::new(), 404, "NotFound", ""),
        refused("wrong method", "PUT", MAPS, bytes(map("c")), 405, "MethodNotAllowed", ""),
        refused("bad selector", "GET", "/api/v1/pods?labelSelector=a%3D%3D%3Db", Vec::new(), 400, "BadRequest", ""),
        refused("bad limit", "GET", "/api/v1/pods?limit=many", Vec::new(), 400, "BadRequest", ""),
        refused("gone", "GET", "/api/v1/pods?continue=nonsense", Vec::new(), 400, "BadRequest", "continue"),
    ];
    for case in cases {
        let (code, status) = proxy.ask(case.method, case.path, case.kind, &case.body);
        let what = case.what;
        assert_eq!((code, &status["reason"]), (case.code, &Value::from(case.reason)), "{what}: {status}");
        assert_eq!(
            (&status["kind"], &status["status"], &status["code"]),
            (&"Status".into(), &"Failure".into(), &case.code.into()),
            "{what}"
        );
        assert!(status["message"].as_str().is_some_and(|m| !m.is_empty() && m.contains(case.message)), "{what}: {status}");
    }
    let (code, status) = proxy.ask("POST", MAPS, "text/plain", b"hello");
    assert_eq!((code, &status["reason"]), (415, &"UnsupportedMediaType".into()), "{status}");
    let (code, status) = proxy.ask("PATCH", &kept, JSON, b"{}");
    assert_eq!((code, &status["reason"]), (415, &"UnsupportedMediaType".into()), "{status}");
    // A group that nobody serves is no resource, and no Status either.
    assert_eq!(proxy.ask("POST", "/apis/kitchen.example/v1/namespaces/default/pots", JSON, b"{}").0, 404);
    assert_eq!(proxy.ask("GET", "/readyz", JSON, b"").0, 200, "it goes on");
}

/// Every mistake of an object is a cause of its own, with its field.
#[test]
fn causes_name_the_fields() {
    let server = Server::start(&["--disable-agent"]);
    // Pods are admitted with their ServiceAccount.
    server.kubectl().wait("serviceaccount/default", "create");
    let proxy = Proxy::start(&server.kubectl());
    let causes = |path: &str, body: Value| {
        let (code, status) = proxy.ask("POST", path, JSON, body.to_string().as_bytes());
        assert_eq!((code, &status["reason"]), (422, &"Invalid".into()), "{status}");
        let causes = status["details"]["causes"].as_array().expect("causes").clone();
        causes.iter().map(|c| (c["field"].to_string(), c["reason"].to_string())).collect::<Vec<_>>()
    };
    let pair = |field: &str, reason: &str| (format!("{field:?}"), format!("{reason:?}"));
    assert_eq!(causes(MAPS, map("Bad_Name")), [pair("metadata.name", "FieldValueInvalid")]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a b": "c"}}, "spec": {
        "restartPolicy": "Sometimes",
        "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 70000}], "volumeMounts": [{"name": "none", "mountPath": "/x"}]}, {"name": "c"}],
    }});
    let found = causes("/api/v1/namespaces/default/pods", pod);
    for wanted in [
        pair("metadata.labels", "FieldValueInvalid"),
        pair("spec.restartPolicy", "FieldValueNotSupported"),
        pair("spec.containers[0].ports[0].containerPort", "FieldValueInvalid"),
        pair("spec.containers[0].volumeMounts[0].name", "FieldValueNotFound"),
        pair("spec.containers[1].name", "FieldValueDuplicate"),
        pair("spec.containers[1].image", "FieldValueRequired"),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} in {found:#?}");
    }
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    }});
    let found = causes("/apis/apps/v1/namespaces/default/deployments", deployment);
    assert!(found.contains(&pair("spec.template.metadata.labels", "FieldValueInvalid")), "{found:#?}");
}
