//! Admission policies, from their creation to what becomes of a write.

use super::*;
use crate::{
    admission,
    authorization::{Authorizers, node::NodeAuthorizer, rbac::RbacAuthorizer},
    objects::Objects,
};

const POLICIES: &str = "admissionregistration.k8s.io/v1/-/validatingadmissionpolicies";
const BINDINGS: &str = "admissionregistration.k8s.io/v1/-/validatingadmissionpolicybindings";
const MUTATING: &str = "admissionregistration.k8s.io/v1/-/mutatingadmissionpolicies";
const MUTATING_BINDINGS: &str = "admissionregistration.k8s.io/v1/-/mutatingadmissionpolicybindings";

/// A server with all plugins and a namespace `a`.
async fn guarded() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
    let config = Config { service_cidr: "10.43.0.0/24".into(), node_ports: 30000..=30099, history: Bounds::default() };
    let plugins = |cache: &Cache| {
        let objects: Arc<dyn Objects> = Arc::new(cache.clone());
        let both = Authorizers { node: NodeAuthorizer::new(Arc::clone(&objects)), rbac: RbacAuthorizer::new(Arc::clone(&objects)) };
        admission::plugins(&objects, &Arc::new(both), &Default::default())
    };
    let registry = Registry::open(store, plugins, config).await.unwrap();
    let server = Server { registry, _dir: dir };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "x"}}});
    server.ok("create", "v1/-/namespaces", namespace).await;
    server
}

fn named(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn about(resources: &[&str], mut spec: Value) -> Value {
    spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": ["", "apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}]});
    spec
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

impl Server {
    async fn validating(&self, name: &str, spec: Value, binding: Value) {
        self.ok("create", POLICIES, named("ValidatingAdmissionPolicy", name, spec)).await;
        let mut binding = binding;
        binding["policyName"] = name.into();
        self.ok("create", BINDINGS, named("ValidatingAdmissionPolicyBinding", name, binding)).await;
    }

    async fn mutating(&self, name: &str, mut spec: Value) {
        spec["reinvocationPolicy"] = spec.get("reinvocationPolicy").cloned().unwrap_or_else(|| "Never".into());
        self.ok("create", MUTATING, named("MutatingAdmissionPolicy", name, spec)).await;
        self.ok("create", MUTATING_BINDINGS, named("MutatingAdmissionPolicyBinding", name, json!({"policyName": name}))).await;
    }

    /// Code and warnings of a creation.
    async fn create(&self, path: &str, body: Value) -> (u16, Value, Vec<String>) {
        let cx = request("create", path, "application/json");
        let response = self.registry.handle(&cx, body.to_string().into()).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap(), cx.warnings.told())
    }
}

#[tokio::test]
async fn a_policy_refuses_with_its_own_reason_and_words() {
    let server = guarded().await;
    let spec = json!({"variables": [{"name": "n", "expression": "has(object.data) ? size(object.data) : 0"}],
        "matchConditions": [{"name": "skip", "expression": "object.metadata.name != 'skip'"}],
        "validations": [{"expression": "variables.n < 2", "messageExpression": "'n is ' + string(variables.n)"},
            {"expression": "object.metadata.name != 'f'", "reason": "Forbidden", "message": "not f"},
            {"expression": "namespaceObject.metadata.labels['team'] == 'x' && request.operation == 'CREATE' || request.name == 'up'"}]});
    server.validating("p", about(&["configmaps"], spec), json!({"validationActions": ["Deny"]})).await;
    let maps = "v1/a/configmaps";
    let (code, status, _) = server.create(maps, config_map("x", json!({"a": "1", "b": "2"}))).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    let message = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: n is 2";
    assert_eq!(status["message"], format!("configmaps \"x\" is forbidden: {message}"));
    assert_eq!(status["details"], json!({"name": "x", "kind": "configmaps", "causes": [{"message": message}]}));
    let (code, status, _) = server.create(maps, config_map("f", json!({}))).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    server.ok("create", maps, config_map("skip", json!({"a": "1", "b": "2"}))).await;
    server.ok("create", maps, config_map("up", json!({"a": "1"}))).await;
    assert_eq!(server.send("patch", "v1/a/configmaps/up", json!({"data": {"b": "2"}})).await.0, 422);
    server.ok("patch", "v1/a/configmaps/up", json!({"data": {"a": "2"}})).await;
    server.ok("delete", "v1/a/configmaps/up", Value::Null).await;
    // A change of the policy counts with the next write.
    let lax = json!({"spec": {"validations": [{"expression": "true"}]}});
    server.ok("patch", &format!("{POLICIES}/p"), lax).await;
    server.ok("create", maps, config_map("x", json!({"a": "1", "b": "2"}))).await;
}

#[tokio::test]
async fn parameters_warnings_and_failures() {
    let server = guarded().await;
    server.ok("create", "v1/a/configmaps", config_map("limits", json!({"most": "3"}))).await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "failurePolicy": "Fail",
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "message": "too many"}]});
    let warns = json!({"validationActions": ["Warn", "Audit"], "paramRef": {"name": "limits", "namespace": "a", "parameterNotFoundAction": "Deny"}});
    server.validating("warns", about(&["replicasets"], spec.clone()), warns).await;
    let set = |name: &str, replicas: i64| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let (code, _, warnings) = server.create("apps/v1/a/replicasets", set("big", 5)).await;
    assert_eq!(
        (code, warnings),
        (201, vec!["Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns': too many".to_owned()])
    );
    let missing = json!({"validationActions": ["Deny"], "paramRef": {"name": "nowhere", "parameterNotFoundAction": "Deny"}});
    server.validating("denies", about(&["replicasets"], spec.clone()), missing).await;
    let (code, status, _) = server.create("apps/v1/a/replicasets", set("small", 1)).await;
    assert!(code == 422 && status["message"].as_str().unwrap().contains("no params found"), "{status}");
    server.ok("patch", &format!("{POLICIES}/denies"), json!({"spec": {"failurePolicy": "Ignore"}})).await;
    server.ok("create", "apps/v1/a/replicasets", set("small", 1)).await;
    // What goes wrong in an expression is for failurePolicy to judge, too.
    let broken = json!({"validations": [{"expression": "object.spec.nope > 1"}]});
    server.validating("broken", about(&["replicasets"], broken), json!({"validationActions": ["Deny"]})).await;
    let (code, status, _) = server.create("apps/v1/a/replicasets", set("other", 1)).await;
    assert!(code == 422 && status["message"].as_str().unwrap().contains("resulted in error: no such key: nope"), "{status}");
}

#[tokio::test]
async fn mutating_policies_change_what_is_written() {
    let server = guarded().await;
    let expression = "Object{metadata: Object.metadata{labels: {'added': 'yes', 'by': request.operation}}}";
    let apply = json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    server.mutating("labels", about(&["configmaps"], apply)).await;
    let patch =
        "has(object.data) ? [JSONPatch{op: 'test', path: '/data/a', value: '1'}, JSONPatch{op: 'add', path: '/data/b', value: '2'}] : []";
    let patch = json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]});
    server.mutating("patches", about(&["configmaps"], patch)).await;
    let made = server.ok("create", "v1/a/configmaps", config_map("x", json!({"a": "1"}))).await;
    assert_eq!((&made["metadata"]["labels"], &made["data"]), (&json!({"added": "yes", "by": "CREATE"}), &json!({"a": "1", "b": "2"})));
    let fields = made["metadata"]["managedFields"].to_string();
    assert!(!fields.contains("f:added"), "nobody manages what a policy sets: {fields}");
    let other = server.ok("create", "v1/a/configmaps", config_map("y", json!({"a": "9"}))).await;
    assert_eq!(other["data"], json!({"a": "9"}), "a test that fails is a condition");
    let atomic = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'c', args: ['x']}]}}}}";
    let atomic = json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": atomic}}]});
    server.mutating("atomic", about(&["replicasets"], atomic)).await;
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "args": ["y"]}]}}}});
    let (code, status, _) = server.create("apps/v1/a/replicasets", set).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Invalid")));
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("policy 'atomic' with binding 'atomic' denied request: error applying patch: may not mutate atomic")
    );
}

#[tokio::test]
async fn earlier_policies_see_what_later_ones_changed() {
    let server = guarded().await;
    let label = |name: &str, when: &str| {
        let expression = format!("Object{{metadata: Object.metadata{{labels: {{'{name}': 'yes'}}}}}}");
        json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}], "matchConditions": [{"name": "when", "expression": when}]})
    };
    let mut first = label("first", "has(object.metadata.labels) && 'second' in object.metadata.labels");
    first["reinvocationPolicy"] = "IfNeeded".into();
    server.mutating("a-first", about(&["configmaps"], first)).await;
    let mut never = label("never", "has(object.metadata.labels) && 'second' in object.metadata.labels");
    never["reinvocationPolicy"] = "Never".into();
    server.mutating("a-never", about(&["configmaps"], never)).await;
    server.mutating("b-second", about(&["configmaps"], label("second", "true"))).await;
    let made = server.ok("create", "v1/a/configmaps", config_map("x", json!({}))).await;
    assert_eq!(made["metadata"]["labels"], json!({"second": "yes"}), "who was not asked in the first round is not asked again");
    let mut again = label("again", "true");
    let counted = "Object{metadata: Object.metadata{labels: {'rounds': 'n' + string(size(object.metadata.?labels.orValue({})))}}}";
    again["mutations"][0]["applyConfiguration"]["expression"] = counted.into();
    again["reinvocationPolicy"] = "IfNeeded".into();
    server.mutating("a-again", about(&["configmaps"], again)).await;
    let made = server.ok("create", "v1/a/configmaps", config_map("y", json!({}))).await;
    assert_eq!(made["metadata"]["labels"]["rounds"], "n2", "it sees its own label and the later one: {made}");
}

#[tokio::test]
async fn what_policies_find_is_counted_while_they_are_bound() {
    let server = guarded().await;
    let told = || {
        let mut page = crate::metrics::page::Page::default();
        server.registry.metrics().admission.write(&mut page);
        page.finish()
    };
    let spec = json!({"failurePolicy": "Ignore", "matchConditions": [{"name": "skip", "expression": "object.metadata.name != 'skip'"}],
        "validations": [{"expression": "object.metadata.name != 'bad'"}, {"expression": "object.data.nothing == 'x'"}]});
    server.validating("p", about(&["configmaps"], spec), json!({"validationActions": ["Deny", "Audit"]})).await;
    let apply = json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"}}]});
    server.mutating("m", about(&["configmaps"], apply)).await;
    for (name, code) in [("bad", 422), ("good", 201), ("skip", 201)] {
        assert_eq!(server.create("v1/a/configmaps", config_map(name, json!({}))).await.0, code, "{name}");
    }
    let page = told();
    let has = |line: String| assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    for (action, count) in [("deny", 1), ("audit", 1), ("allow", 2)] {
        let labels = format!("enforcement_action=\"{action}\",error_type=\"invalid_error\",policy=\"p\",policy_binding=\"p\"");
        has(format!("apiserver_validating_admission_policy_check_total{{{labels}}} {count}"));
        has(format!("apiserver_validating_admission_policy_check_duration_seconds_count{{{labels}}} {count}"));
    }
    has("apiserver_mutating_admission_policy_check_total{error_type=\"no_error\",policy=\"m\",policy_binding=\"m\"} 3".to_owned());
    let of = "kind=\"policy\",name=\"p\",operation=\"CREATE\",type=\"validate\"";
    has(format!("apiserver_admission_match_condition_exclusions_total{{{of}}} 1"));
    has(format!("apiserver_admission_match_condition_evaluation_seconds_count{{{of}}} 3"));
    let plugin = "apiserver_admission_controller_admission_duration_seconds_count{name=\"ValidatingAdmissionPolicy\"";
    has(format!("{plugin},operation=\"CREATE\",rejected=\"true\",type=\"validate\"}} 1"));
    server.ok("delete", &format!("{BINDINGS}/p"), Value::Null).await;
    server.ok("delete", &format!("{MUTATING}/m"), Value::Null).await;
    server.ok("create", "v1/a/configmaps", config_map("after", json!({}))).await;
    let page = told();
    assert!(!page.contains("policy=\"") && !page.contains("kind=\"policy\""), "{page}");
}
