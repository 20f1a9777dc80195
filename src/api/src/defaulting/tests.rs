//! Cases of defaults.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalogue::builtin;
use crate::structural::prune;

fn defaulted(group: &str, version: &str, plural: &str, mut object: Value) -> Value {
    let resource = builtin().resource(group, version, plural).unwrap();
    prune(&resource.schema, &mut object).unwrap();
    apply(resource, &mut object);
    let mut again = object.clone();
    prune(&resource.schema, &mut again).unwrap();
    apply(resource, &mut again);
    assert_eq!(object, again, "defaults are canonical and idempotent");
    object
}

#[test]
fn pods() {
    let pod = defaulted(
        "",
        "v1",
        "pods",
        json!({"spec": {"hostNetwork": true, "serviceAccount": "x", "volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "web",
            "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "100u"}}, "livenessProbe": {"httpGet": {"port": 80}}}]}}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "x");
    assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
    let container = &spec["containers"][0];
    assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(container["resources"]["limits"]["cpu"], "1m");
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"port": 80, "path": "/", "scheme": "HTTP"}));
    assert_eq!(container["imagePullPolicy"], "Always");
}

#[test]
fn images_that_may_change_are_pulled_always() {
    for (image, policy) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("r.io:5000/a/web", "Always"),
        ("web:1", "IfNotPresent"),
        ("r.io:5000/a/web:1.2", "IfNotPresent"),
        ("web@sha256:aa", "IfNotPresent"),
        ("", "IfNotPresent"),
        ("Not Valid!", "IfNotPresent"),
    ] {
        let pod = defaulted("", "v1", "pods", json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn workloads() {
    let deployment = defaulted("apps", "v1", "deployments", json!({"spec": {}}));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    let deployment = defaulted("apps", "v1", "deployments", json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
    assert_eq!((&deployment["spec"]["strategy"], &deployment["spec"]["replicas"]), (&json!({"type": "Recreate"}), &json!(0)));
    let job = defaulted("batch", "v1", "jobs", json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
    assert_eq!((&job["metadata"]["labels"], &job["spec"]["completions"]), (&json!({"a": "b"}), &json!(1)));
    let secret = defaulted("", "v1", "secrets", json!({"stringData": {"a": "b"}}));
    assert_eq!(secret, json!({"metadata": {}, "type": "Opaque", "data": {"a": "Yg=="}}));
}

#[test]
fn every_rule_names_a_message_and_a_field_that_exist() {
    for (message, rule) in rules() {
        let schema = builtin().message(message).unwrap_or_else(|| panic!("{message}"));
        for (field, value) in &rule.values {
            let property = schema.field(field).unwrap_or_else(|| panic!("{message}.{field}"));
            let mut canonical = value.clone();
            prune(property.schema(), &mut canonical).unwrap();
            assert_eq!(&canonical, value, "{message}.{field}");
        }
    }
}

proptest! {
    #[test]
    fn defaults_of_any_kind_are_canonical_and_idempotent(index: prop::sample::Index) {
        let resource = index.get(builtin().resources());
        defaulted(&resource.group, &resource.version, &resource.plural, json!({"metadata": {"name": "x"}, "spec": {}}));
    }
}

#[test]
fn a_default_does_not_fill_all_memory() {
    let text = "x".repeat(100_000);
    let spec = json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object",
        "properties": {"a": {"type": "string", "default": text}}}}}});
    let schema = crate::custom::value_schema(&spec);
    let mut object = json!({"list": vec![json!({}); 10_000]});
    apply_schema(&schema, &mut object);
    let given = object["list"].as_array().unwrap().iter().filter(|item| item["a"].is_string()).count();
    assert!((70..90).contains(&given), "{given}: more than the store takes, and then no more");
}
