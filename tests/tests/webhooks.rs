//! Admission webhooks with the real kubectl, no node: who is asked, what the answers do, and what becomes of answers that are none.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_tests::{
    Kubectl, Server,
    webhook::{Reply, Webhook},
};
use serde_json::{Value, json};

fn review(call: &Value, mut response: Value) -> Reply {
    response["uid"] = call["request"]["uid"].clone();
    Reply::Json(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}))
}

fn allow(call: &Value) -> Reply {
    review(call, json!({"allowed": true}))
}

fn patch(call: &Value, patch: &Value) -> Reply {
    review(call, json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())}))
}

/// What the webhooks of this test do, by path.
fn answer(path: &str, call: &Value) -> Reply {
    let object = &call["request"]["object"];
    match path {
        "/allow" => allow(call),
        "/stage-1" if object["data"]["start"] == "yes" => patch(call, &json!([{"op": "add", "path": "/data/stage-1", "value": "yes"}])),
        "/stage-2" if object["data"]["stage-1"] == "yes" => patch(call, &json!([{"op": "add", "path": "/data/stage-2", "value": "yes"}])),
        // Counts the containers that it sees; the other one adds one.
        "/count" => {
            let count = object["spec"]["initContainers"].as_array().map_or(0, Vec::len).to_string();
            patch(call, &json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": count}}]))
        }
        "/add-container" if object["spec"]["initContainers"].is_null() => {
            let container = json!([{"name": "added", "image": "example.com/none"}]);
            patch(call, &json!([{"op": "add", "path": "/spec/initContainers", "value": container}]))
        }
        "/deny" => {
            let object = if object.is_null() { &call["request"]["oldObject"] } else { object };
            match object["data"]["bad"] == "yes" {
                true => review(
                    call,
                    json!({"allowed": false, "warnings": ["look at your data"],
                        "status": {"code": 403, "reason": "Forbidden", "message": "the data are bad"}}),
                ),
                false => allow(call),
            }
        }
        "/deny-all" => review(call, json!({"allowed": false, "status": {"message": "nothing passes here"}})),
        "/garbage" => Reply::Garbage("<html>hello</html>"),
        "/endless" => Reply::Endless,
        "/silent" => Reply::Silence,
        "/wrong-uid" => Reply::Json(
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "other", "allowed": true}}),
        ),
        "/huge" => patch(call, &json!([{"op": "add", "path": "/data/x", "value": "x".repeat(16 << 20)}])),
        "/rename" => patch(call, &json!([{"op": "replace", "path": "/metadata/name", "value": "other"}])),
        "/wrong-type" => patch(call, &json!([{"op": "replace", "path": "/data", "value": 7}])),
        "/unknown-field" => patch(call, &json!([{"op": "add", "path": "/nonsense", "value": 7}])),
        "/bad-path" => patch(call, &json!([{"op": "remove", "path": "/no/such"}])),
        _ => allow(call),
    }
}

struct Stage {
    kubectl: Kubectl,
    webhook: Webhook,
}

impl Stage {
    /// Makes a configuration of one webhook, for one scene.
    fn configure(&self, kind: &str, name: &str, client: &Value, rule: Value, further: Value) {
        let mut hook = json!({"name": format!("{name}.hooks.test"), "clientConfig": client, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "rules": [rule], "namespaceSelector": {"matchLabels": {"hooks": "yes"}}});
        hook.as_object_mut().expect("a map").extend(further.as_object().expect("a map").clone());
        let object = json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}, "webhooks": [hook]});
        self.kubectl.stdin(&["apply", "-f", "-"], &object.to_string());
    }

    fn mutating(&self, name: &str, path: &str, rule: Value, further: Value) {
        self.configure("MutatingWebhookConfiguration", name, &self.webhook.by_url(path), rule, further);
    }

    fn validating(&self, name: &str, path: &str, rule: Value, further: Value) {
        self.configure("ValidatingWebhookConfiguration", name, &self.webhook.by_url(path), rule, further);
    }

    /// The scene is over.
    fn clear(&self) {
        self.kubectl.ok(&["delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "--all"]);
    }

    fn map(&self, name: &str, data: Value) -> Result<Value, String> {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "hooks"}, "data": data});
        self.create(&object)
    }

    fn create(&self, object: &Value) -> Result<Value, String> {
        use std::io::Write as _;
        let mut command = self.kubectl.command(&["create", "-o", "json", "-f", "-"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("kubectl can be started");
        child.stdin.take().expect("piped").write_all(object.to_string().as_bytes()).expect("kubectl reads it");
        let output = child.wait_with_output().expect("kubectl ends");
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

fn rule(operations: &[&str], group: &str, version: &str, resource: &str) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": [resource]})
}

fn maps() -> Value {
    rule(&["CREATE", "UPDATE", "DELETE"], "", "v1", "configmaps")
}

#[test]
fn webhooks_change_and_refuse_writes() {
    let server = Server::start(&["--roles=apiserver"]);
    let stage = Stage { kubectl: server.kubectl(), webhook: Webhook::start("hook.hooks.svc", answer) };
    let kubectl = &stage.kubectl;
    kubectl.ok(&["create", "namespace", "hooks"]);
    kubectl.ok(&["label", "namespace", "hooks", "hooks=yes"]);
    kubectl.ok(&["create", "serviceaccount", "default", "-n", "hooks"]);
    kubectl.stdin(&["apply", "-f", "-"], &stage.webhook.service(kubectl, "hooks", "hook").to_string());
    in_turn(&stage);
    again_after_a_change(&stage);
    refusals(&stage);
    only_who_is_meant(&stage);
    what_is_told(&stage);
    connections(&stage);
    other_versions(&stage);
    nobody_there(&stage);
    liars(&stage);
    conditions(&stage);
    counted(&stage);
    // Nobody can lock himself out.
    let everything = rule(&["*"], "*", "*", "*/*");
    stage.validating("all", "/deny-all", everything, json!({"namespaceSelector": {}}));
    assert!(stage.map("none", json!({})).expect_err("denied").contains("nothing passes here"));
    stage.clear();
    stage.map("again", json!({})).expect("created");
}

/// One by URL, one by Service, in the order of their names.
fn in_turn(stage: &Stage) {
    stage.mutating("a-first", "/stage-1", maps(), json!({}));
    let client = stage.webhook.by_service("hooks", "hook", "/stage-2");
    stage.configure("MutatingWebhookConfiguration", "b-second", &client, maps(), json!({}));
    let made = stage.map("turns", json!({"start": "yes"})).expect("created");
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes", "stage-2": "yes"}));
    let dry =
        stage.kubectl.ok(&["create", "configmap", "dry", "--from-literal=start=yes", "-n", "hooks", "--dry-run=server", "-o", "json"]);
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(dry["data"]["stage-2"], "yes", "{dry}");
    assert_eq!(stage.webhook.heard("/stage-1").pop().expect("a call")["request"]["dryRun"], true);
    stage.clear();
}

/// A pod that one webhook has counted and the next one changed is counted again, and keeps its defaults.
fn again_after_a_change(stage: &Stage) {
    let pods = || rule(&["CREATE"], "", "v1", "pods");
    stage.mutating("a-count", "/count", pods(), json!({"reinvocationPolicy": "IfNeeded"}));
    stage.mutating("b-add", "/add-container", pods(), json!({}));
    let pod = |name: &str| {
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "hooks"},
            "spec": {"containers": [{"name": "c", "image": "example.com/none"}], "automountServiceAccountToken": false}})
    };
    let made = stage.create(&pod("counted")).expect("created");
    assert_eq!(made["metadata"]["annotations"]["seen"], "1", "{made}");
    let added = &made["spec"]["initContainers"];
    assert_eq!((added[0]["terminationMessagePolicy"].as_str(), added[1].is_null()), (Some("File"), true), "{added}");
    assert_eq!((stage.webhook.heard("/count").len(), stage.webhook.heard("/add-container").len()), (2, 1));
    stage.mutating("a-count", "/count", pods(), json!({"reinvocationPolicy": "Never"}));
    let made = stage.create(&pod("once")).expect("created");
    assert_eq!(made["metadata"]["annotations"]["seen"], "0", "{made}");
    stage.clear();
}

/// Create, patch, replace and delete.
fn refusals(stage: &Stage) {
    stage.map("bad", json!({"bad": "yes"})).expect("created");
    stage.map("good", json!({})).expect("created");
    stage.validating("deny", "/deny", maps(), json!({}));
    let said = "admission webhook \"deny.hooks.test\" denied the request: the data are bad";
    let why = stage.map("worse", json!({"bad": "yes"})).expect_err("denied");
    assert!(why.contains("Error from server (Forbidden)") && why.contains(said) && why.contains("Warning: look at your data"), "{why}");
    let kubectl = &stage.kubectl;
    assert!(kubectl.fails(&["patch", "cm", "good", "-n", "hooks", "-p", r#"{"data":{"bad":"yes"}}"#]).contains(said));
    assert!(kubectl.fails(&["delete", "cm", "bad", "-n", "hooks"]).contains(said));
    assert!(kubectl.fails(&["delete", "cm", "--all", "-n", "hooks"]).contains(said));
    kubectl.ok(&["patch", "cm", "bad", "-n", "hooks", "-p", r#"{"data":{"bad":"no"}}"#]);
    kubectl.ok(&["delete", "cm", "bad", "-n", "hooks"]);
    stage.clear();
}

/// Selectors of namespaces and objects.
fn only_who_is_meant(stage: &Stage) {
    stage.validating("deny", "/deny-all", maps(), json!({"objectSelector": {"matchLabels": {"checked": "yes"}}}));
    stage.kubectl.ok(&["create", "configmap", "elsewhere", "--from-literal=a=1"]);
    stage.map("unmarked", json!({})).expect("created");
    let why = stage.kubectl.fails(&["label", "cm", "unmarked", "-n", "hooks", "checked=yes"]);
    assert!(why.contains("nothing passes here"), "{why}");
    stage.clear();
}

/// What a webhook hears of a write.
fn what_is_told(stage: &Stage) {
    stage.validating("hear", "/hear", maps(), json!({}));
    stage.map("told", json!({"a": "1"})).expect("created");
    let heard = stage.webhook.heard("/hear").pop().expect("a call");
    let request = &heard["request"];
    assert_eq!((&heard["kind"], &heard["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["requestKind"], &request["requestResource"]), (&request["kind"], &request["resource"]));
    assert_eq!(
        (&request["name"], &request["namespace"], &request["operation"], &request["dryRun"]),
        (&json!("told"), &json!("hooks"), &json!("CREATE"), &json!(false))
    );
    assert!(request["userInfo"]["groups"].as_array().is_some_and(|groups| groups.contains(&json!("system:authenticated"))), "{request}");
    assert_eq!((&request["object"]["data"]["a"], &request["oldObject"]), (&json!("1"), &Value::Null));
    assert_eq!((&request["options"]["kind"], &request["options"]["fieldManager"]), (&json!("CreateOptions"), &json!("kubectl-create")));
    stage.kubectl.ok(&["delete", "cm", "told", "-n", "hooks"]);
    let heard = stage.webhook.heard("/hear").pop().expect("a call");
    let request = &heard["request"];
    assert_eq!((&request["operation"], &request["options"]["kind"]), (&json!("DELETE"), &json!("DeleteOptions")));
    assert_eq!((&request["object"], &request["oldObject"]["data"]["a"]), (&Value::Null, &json!("1")));
    stage.clear();
}

/// Attaching to a pod is refused before anybody looks for its node.
fn connections(stage: &Stage) {
    stage.validating("connect", "/deny-all", rule(&["CONNECT"], "", "v1", "pods/*"), json!({}));
    let why = stage.kubectl.fails(&["exec", "counted", "-n", "hooks", "-c", "c", "--", "true"]);
    assert!(why.contains("nothing passes here"), "{why}");
    let heard = stage.webhook.heard("/deny-all").pop().expect("a call");
    let request = &heard["request"];
    assert_eq!((&request["kind"]["kind"], &request["subResource"]), (&json!("PodExecOptions"), &json!("exec")), "{request}");
    assert_eq!(request["object"]["command"], json!(["true"]));
    stage.clear();
}

/// A webhook that knows one version is shown that one, whatever the client writes.
fn other_versions(stage: &Stage) {
    let rule = rule(&["CREATE"], "autoscaling", "v1", "horizontalpodautoscalers");
    stage.mutating("old", "/old", rule.clone(), json!({}));
    let scaler = |name: &str| {
        json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {"name": name, "namespace": "hooks"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}})
    };
    let made = stage.create(&scaler("seen")).expect("created");
    assert_eq!((&made["apiVersion"], &made["spec"]["metrics"]), (&json!("autoscaling/v2"), &scaler("seen")["spec"]["metrics"]));
    let heard = stage.webhook.heard("/old").pop().expect("a call");
    let request = &heard["request"];
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 50, "{request}");
    stage.mutating("old", "/old", rule, json!({"matchPolicy": "Exact"}));
    stage.create(&scaler("unseen")).expect("created");
    assert_eq!(stage.webhook.heard("/old").len(), 0);
    stage.clear();
}

/// Nobody listens, or nobody answers.
fn nobody_there(stage: &Stage) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut nowhere = stage.webhook.by_url("/allow");
    nowhere["url"] = format!("https://127.0.0.1:{closed}/allow").into();
    let lost = stage.webhook.by_service("hooks", "gone", "/allow");
    for (client, what) in [(&nowhere, "onnection refused"), (&lost, "service \"gone\" not found")] {
        stage.configure("ValidatingWebhookConfiguration", "down", client, maps(), json!({"failurePolicy": "Fail"}));
        let why = stage.map("down", json!({})).expect_err("refused");
        assert!(why.contains("InternalError") && why.contains("failed calling webhook \"down.hooks.test\"") && why.contains(what), "{why}");
        stage.configure("ValidatingWebhookConfiguration", "down", client, maps(), json!({"failurePolicy": "Ignore"}));
        stage.map("down", json!({})).expect("created");
        stage.kubectl.ok(&["delete", "cm", "down", "-n", "hooks"]);
    }
    stage.clear();
    stage.mutating("silent", "/silent", maps(), json!({"timeoutSeconds": 1}));
    let why = stage.map("late", json!({})).expect_err("refused");
    assert!(why.contains("/silent?timeout=1s") && why.contains("context deadline exceeded"), "{why}");
    stage.clear();
}

/// Answers that are none: each is named, and none is believed.
fn liars(stage: &Stage) {
    for (path, what) in [
        ("/garbage", "not JSON"),
        ("/endless", "larger than"),
        ("/wrong-uid", "expected response.uid"),
        ("/huge", "larger than"),
        ("/rename", "metadata.name"),
        ("/wrong-type", "Internal error occurred"),
        ("/bad-path", "Internal error occurred"),
    ] {
        stage.mutating("liar", path, maps(), json!({}));
        let why = stage.map("lied", json!({"a": "1"})).expect_err(path);
        assert!(why.contains(what), "{path}: {why}");
    }
    stage.mutating("liar", "/unknown-field", maps(), json!({}));
    let made = stage.map("pruned", json!({"a": "1"})).expect("created");
    assert_eq!(made["nonsense"], Value::Null);
    stage.mutating("liar", "/garbage", maps(), json!({"failurePolicy": "Ignore"}));
    stage.map("lied", json!({})).expect("created");
    stage.clear();
}

/// Expressions that must hold for the webhook to be asked.
fn conditions(stage: &Stage) {
    let only = |expression: &str| json!({"matchConditions": [{"name": "only", "expression": expression}]});
    stage.validating("cond", "/deny-all", maps(), only("object.metadata.name.startsWith('checked') && request.operation == 'CREATE'"));
    stage.map("free", json!({})).expect("created");
    assert!(stage.map("checked-1", json!({})).expect_err("denied").contains("nothing passes here"));
    // One that cannot be answered counts as the webhook's failurePolicy has it.
    let mut wrong = only("object.data.nothing == 'x'");
    stage.validating("cond", "/allow", maps(), wrong.clone());
    let why = stage.map("asked", json!({"a": "1"})).expect_err("refused");
    assert!(why.contains("Forbidden") && why.contains("no such key"), "{why}");
    wrong["failurePolicy"] = "Ignore".into();
    stage.validating("cond", "/deny-all", maps(), wrong);
    stage.map("asked", json!({"a": "1"})).expect("created");
    stage.clear();
}

/// Metrics tell of webhooks as long as these are there.
fn counted(stage: &Stage) {
    let page = || stage.kubectl.ok(&["get", "--raw", "/metrics"]);
    let only = json!({"matchConditions": [{"name": "only", "expression": "object.metadata.name != 'left-out'"}]});
    stage.validating("seen", "/deny", maps(), only);
    let mut nowhere = stage.webhook.by_service("hooks", "gone", "/allow");
    nowhere["service"]["port"] = 444.into();
    stage.configure("MutatingWebhookConfiguration", "lost", &nowhere, maps(), json!({"failurePolicy": "Ignore"}));
    for (name, bad) in [("seen-1", "no"), ("seen-2", "yes"), ("left-out", "yes")] {
        assert_eq!(stage.map(name, json!({"bad": bad})).is_ok(), name != "seen-2", "{name}");
    }
    let told = page();
    let has = |family: &str, labels: &str, count: u32| {
        let line = format!("apiserver_admission_{family}{{{labels}}} {count}");
        assert!(told.lines().any(|found| found == line), "no {line} in\n{told}");
    };
    let (seen, lost) = ("name=\"seen.hooks.test\",operation=\"CREATE\"", "name=\"lost.hooks.test\",operation=\"CREATE\"");
    has("webhook_request_total", &format!("code=\"200\",{seen},rejected=\"false\",type=\"validating\""), 1);
    has("webhook_request_total", &format!("code=\"403\",{seen},rejected=\"true\",type=\"validating\""), 1);
    has("webhook_rejection_count", &format!("error_type=\"no_error\",{seen},rejection_code=\"403\",type=\"validating\""), 1);
    has("webhook_admission_duration_seconds_count", &format!("{seen},rejected=\"true\",type=\"validating\""), 1);
    has("match_condition_exclusions_total", &format!("kind=\"webhook\",{seen},type=\"validating\""), 1);
    has("webhook_request_total", &format!("code=\"503\",{lost},rejected=\"false\",type=\"admit\""), 3);
    has("webhook_fail_open_count", "name=\"lost.hooks.test\",type=\"admit\"", 3);
    stage.clear();
    stage.map("unseen", json!({})).expect("created");
    assert!(!page().contains(".hooks.test\""), "{}", page());
}
