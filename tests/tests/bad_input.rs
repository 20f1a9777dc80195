//! What clients send to do harm: each is refused in words, soon, and costs nobody else an answer.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use coracle_tests::{
    Kubectl, Server,
    http::Proxy,
    webhook::{Reply, Webhook},
};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// No refusal may take longer, on a machine with other work and without optimisation.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the server may hold after bodies of megabytes, several at once: the allocator keeps some of what they took.
const HARMED_KIB: u64 = 256 << 10;

struct Stage {
    kubectl: Kubectl,
    proxy: Proxy,
}

impl Stage {
    /// The answer to something harmful; while it is judged, and after, somebody else is answered.
    fn send(&self, what: &str, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let began = Instant::now();
        let answer = std::thread::scope(|scope| {
            let harmful = scope.spawn(|| self.proxy.ask(method, path, content_type, body));
            assert_eq!(self.proxy.ask("GET", "/api/v1/namespaces/default", JSON, b"").0, 200, "{what}: somebody else is answered");
            harmful.join().expect("an answer")
        });
        assert!(began.elapsed() < PATIENCE, "{what}: {:?}", began.elapsed());
        answer
    }

    fn refused(&self, what: &str, (method, path, content_type): (&str, &str, &str), body: &[u8], code: u16, words: &str) {
        let (got, status) = self.send(what, method, path, content_type, body);
        assert_eq!((got, &status["kind"]), (code, &"Status".into()), "{what}: {status}");
        assert!(status["message"].as_str().is_some_and(|message| message.contains(words)), "{what}: {status}");
    }
}

/// A definition of `Thing` with this schema for its spec.
fn definition(plural: &str, spec: &Value) -> Vec<u8> {
    let kind = format!("Kind{plural}");
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.harm.test")},
        "spec": {"group": "harm.test", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
    .to_string()
    .into_bytes()
}

#[test]
fn harm_is_refused_in_words_and_nobody_else_waits() {
    let server = Server::start(&["--roles=apiserver"]).may_use(HARMED_KIB);
    let kubectl = server.kubectl();
    let stage = Stage { proxy: Proxy::start(&kubectl), kubectl };
    bodies(&stage);
    patches(&stage);
    definitions(&stage);
    rules(&stage);
    tokens(&stage, &server.kubeconfig());
    silent_webhooks(&stage);
}

/// Bodies that end too soon, lie deep, or stand for more than they are.
fn bodies(stage: &Stage) {
    // A ConfigMap of the name "cut" in protobuf: envelope, then metadata and data.
    let whole = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x13\x0a\x05\x0a\x03cut\x12\x0a\x0a\x03key\x12\x03val\x1a\x00\x22\x00";
    let post = ("POST", MAPS, PROTOBUF);
    // Behind the fourth byte an empty object would be whole.
    for end in [0, 3, 6, 20, 24, 28, 33, 38] {
        stage.refused(&format!("protobuf cut at {end}"), post, &whole[..end], 400, "");
    }
    stage.refused("a length of 2^63", post, b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x0a", 400, "");
    let (code, made) = stage.send("the whole of it", "POST", MAPS, PROTOBUF, whole);
    assert_eq!((code, &made["data"]["key"]), (201, &"val".into()), "{made}");
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        bomb += &format!("a{i}: &a{i} [{}]\n", format!("*a{},", i - 1).repeat(10));
    }
    stage.refused("aliases", ("POST", MAPS, YAML), bomb.as_bytes(), 400, "aliases");
    for (what, open) in [("lists", "["), ("objects", "{\"a\":")] {
        stage.refused(what, ("POST", MAPS, JSON), open.repeat(200_000).as_bytes(), 400, "levels");
        stage.refused(what, ("POST", MAPS, YAML), open.repeat(200_000).as_bytes(), 400, "");
    }
    stage.refused("no UTF-8", ("POST", MAPS, JSON), b"{\"kind\":\"\xff\xfe\"}", 400, "");
}

/// Patches that would make much of little.
fn patches(stage: &Stage) {
    let (code, _) = stage.send("a map", "POST", MAPS, JSON, br#"{"metadata": {"name": "patched"}, "data": {"a": "some text"}}"#);
    assert_eq!(code, 201);
    let patch = ("PATCH", "/api/v1/namespaces/default/configmaps/patched", JSON_PATCH);
    let doubling: Value = (0..60).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/x{i}")})).collect();
    stage.refused("a map in itself", patch, doubling.to_string().as_bytes(), 422, "");
    let many = Value::Array(vec![json!({"op": "test", "path": "/data/a", "value": "some text"}); 10_001]);
    stage.refused("many operations", patch, many.to_string().as_bytes(), 413, "maximum operations");
    assert_eq!(stage.send("what is left", "GET", patch.1, JSON, b"").1["data"], json!({"a": "some text"}));
}

/// Schemas that explode: in depth, in alternatives, in defaults.
fn definitions(stage: &Stage) {
    let nested = |levels: usize, word: &str| {
        (0..levels).fold(json!({"properties": {"x": {"minimum": 1}}}), |inner, _| json!({ word: [inner.clone(), inner] }))
    };
    let mut wide = nested(12, "anyOf");
    wide["type"] = "object".into();
    wide["properties"] = json!({"x": {"type": "integer"}});
    assert_eq!(stage.send("alternatives", "POST", DEFINITIONS, JSON, &definition("wides", &wide)).0, 201);
    let mut tall = (0..30).fold(json!({"properties": {"x": {"minimum": 1}}}), |inner, _| json!({"allOf": [inner]}));
    tall["type"] = "object".into();
    tall["properties"] = json!({"x": {"type": "integer"}});
    assert_eq!(stage.send("levels", "POST", DEFINITIONS, JSON, &definition("talls", &tall)).0, 201);
    let deep = (0..50).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    let code = stage.send("depth", "POST", DEFINITIONS, JSON, &definition("deeps", &deep)).0;
    assert!(matches!(code, 400 | 422), "{code}");
    let text = "x".repeat(100_000);
    let filled = json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object",
        "properties": {"a": {"type": "string", "default": text}}}}}});
    assert_eq!(stage.send("defaults", "POST", DEFINITIONS, JSON, &definition("filleds", &filled)).0, 201);
    for name in ["wides", "talls", "filleds"] {
        stage.kubectl.ok(&["wait", "--for=condition=Established", &format!("crd/{name}.harm.test"), "--timeout=30s"]);
    }
    let path = |plural: &str| format!("/apis/harm.test/v1/namespaces/default/{plural}");
    let object = |plural: &str, spec: Value| {
        json!({"apiVersion": "harm.test/v1", "kind": format!("Kind{plural}"), "metadata": {"name": "one"}, "spec": spec})
            .to_string()
            .into_bytes()
    };
    stage.refused("none of many", ("POST", &path("wides"), JSON), &object("wides", json!({"x": 0})), 422, "spec");
    stage.refused("none of one", ("POST", &path("talls"), JSON), &object("talls", json!({"x": 0})), 422, "spec");
    let empty = Value::Array(vec![json!({}); 50_000]);
    let (code, status) = stage.send("many defaults", "POST", &path("filleds"), JSON, &object("filleds", json!({"list": empty})));
    assert!(matches!(code, 413 | 422), "{code} {status}");
}

/// Rules in CEL that would never end.
fn rules(stage: &Stage) {
    let loops = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c > 0)))";
    let spec = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": loops}]});
    stage.refused("a dear rule", ("POST", DEFINITIONS, JSON), &definition("loops", &spec), 422, "budget");
    for (what, rule) in
        [("a chain", format!("1{} > 0", " + 1".repeat(20_000))), ("brackets", format!("{}1{} > 0", "(".repeat(30_000), ")".repeat(30_000)))]
    {
        let spec = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]});
        stage.refused(what, ("POST", DEFINITIONS, JSON), &definition("chains", &spec), 422, "nested too deep");
    }
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "endless"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]},
            "validations": [{"expression": "lists.range(10000).all(a, lists.range(10000).all(b, lists.range(10000).all(c, a + b + c >= 0)))"}]}});
    assert_eq!(stage.send("a policy", "POST", POLICIES, JSON, policy.to_string().as_bytes()).0, 201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "endless"},
        "spec": {"policyName": "endless", "validationActions": ["Deny"]}});
    let bindings = POLICIES.replace("policies", "policybindings");
    assert_eq!(stage.send("a binding", "POST", &bindings, JSON, binding.to_string().as_bytes()).0, 201);
    let secret = br#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "asked"}}"#;
    stage.refused("an endless policy", ("POST", "/api/v1/namespaces/default/secrets", JSON), secret, 422, "cost");
    stage.kubectl.ok(&["delete", "validatingadmissionpolicybinding/endless", "validatingadmissionpolicy/endless"]);
}

/// Webhooks that are asked and say nothing, by many writes at once: whoever does not need them is answered meanwhile.
fn silent_webhooks(stage: &Stage) {
    const WRITES: usize = 30;
    let (asked, hangs) = mpsc::channel();
    let webhook = Webhook::start("silent.test", move |_, _| {
        let _ = asked.send(());
        Reply::Silence
    });
    let kinds = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["podtemplates"]});
    let hook = json!({"name": "silent.harm.test", "clientConfig": webhook.by_url("/"), "sideEffects": "None", "timeoutSeconds": 5,
        "admissionReviewVersions": ["v1"], "rules": [kinds]});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"}, "webhooks": [hook]});
    let configurations = POLICIES.replace("validatingadmissionpolicies", "validatingwebhookconfigurations");
    assert_eq!(stage.send("a webhook", "POST", &configurations, JSON, configuration.to_string().as_bytes()).0, 201);
    std::thread::scope(|scope| {
        let write = |number: usize| {
            let template = json!({"metadata": {"name": format!("waits-{number}")},
                "template": {"spec": {"containers": [{"name": "c", "image": "example.com/none"}]}}});
            stage.proxy.ask("POST", "/api/v1/namespaces/default/podtemplates", JSON, template.to_string().as_bytes())
        };
        let writes: Vec<_> = (0..WRITES).map(|number| scope.spawn(move || write(number))).collect();
        for number in 0..WRITES {
            hangs.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("write {number} comes to the webhook: {error}"));
        }
        let map = json!({"metadata": {"name": "passes"}}).to_string();
        for (method, path, body, code) in [
            ("POST", MAPS, map.as_bytes(), 201),
            ("GET", "/api/v1/namespaces/default/podtemplates", b"".as_slice(), 200),
            ("DELETE", &format!("{MAPS}/passes"), b"", 200),
        ] {
            assert_eq!(stage.proxy.ask(method, path, JSON, body).0, code, "{method} {path}");
        }
        assert!(!writes.iter().any(|write| write.is_finished()), "others are answered while the writes hang");
        for write in writes {
            let (code, status) = write.join().expect("an answer");
            assert!(
                code == 500 && status["message"].as_str().is_some_and(|why| why.contains("context deadline exceeded")),
                "{code} {status}"
            );
        }
    });
    assert_eq!(stage.send("it goes", "DELETE", &format!("{configurations}/silent"), JSON, b"").0, 200);
}

/// A token that is for somebody else, for nobody, or cut.
fn tokens(stage: &Stage, kubeconfig: &Path) {
    stage.kubectl.ok(&["create", "serviceaccount", "visitor"]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kubeconfig");
    std::fs::copy(kubeconfig, &file).expect("copied");
    let visitor = Kubectl::new(&file);
    visitor.ok(&["config", "set-context", "--current", "--user=visitor"]);
    let ask = |token: &str| {
        visitor.ok(&["config", "set-credentials", "visitor", &format!("--token={token}")]);
        let output = visitor.output(&["auth", "whoami"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let own = stage.kubectl.ok(&["create", "token", "visitor"]);
    let other = stage.kubectl.ok(&["create", "token", "visitor", "--audience=somebody-else"]);
    let (own, other) = (own.trim(), other.trim());
    assert!(ask(own).0, "the token itself is good");
    for broken in [other, &own[..own.len() - 5], &own[5..], "a.b.c", "..", "not a token"] {
        let (in_, why) = ask(broken);
        assert!(!in_ && (why.contains("Unauthorized") || why.contains("must be logged in")), "{broken}: {why}");
    }
}
