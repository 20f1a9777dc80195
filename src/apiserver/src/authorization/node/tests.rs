//! What a node may reach, by way of its pods.

use serde_json::{Value, json};

use super::*;
use crate::{objects::PodRecord, request::User};

/// Objects as (group, resource, namespace, name, object).
#[derive(Debug)]
struct Given(Vec<(&'static str, &'static str, Value)>);

#[async_trait::async_trait]
impl Objects for Given {
    async fn appears(&self, group: &str, resource: &str, namespace: &str, name: &str, _: std::time::Duration) -> Option<Value> {
        self.get(group, resource, namespace, name)
    }

    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.list(group, resource, namespace).into_iter().find(|object| object["metadata"]["name"] == name)
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
        let of = |object: &Value| namespace.is_empty() || object["metadata"]["namespace"] == namespace;
        self.0.iter().filter(|(g, r, object)| *g == group && *r == resource && of(object)).map(|(_, _, object)| object.clone()).collect()
    }

    fn version(&self, _: &str, _: &str) -> u64 {
        1
    }

    fn pods_on(&self, node: &str, namespace: &str) -> Vec<PodRecord> {
        let record =
            |pod: Value| PodRecord { name: pod["metadata"]["name"].as_str().unwrap().into(), revision: 1, decode: Box::new(move || pod) };
        self.list("", "pods", namespace).into_iter().filter(|pod| pod["spec"]["nodeName"] == node).map(record).collect()
    }
}

fn authorizer() -> NodeAuthorizer {
    let pod = |name: &str, node: &str, volumes: Value| {
        json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node, "serviceAccountName": "default", "volumes": volumes,
            "imagePullSecrets": [{"name": format!("pull-{name}")}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": format!("env-{name}")}}}], "envFrom": [{"configMapRef": {"name": "from"}}]}]}})
    };
    let mut mirror = pod("mirror", "n1", json!([]));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let volumes = json!([{"name": "s", "secret": {"secretName": "vol"}}, {"name": "e", "ephemeral": {}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]);
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "one-e"}}});
    NodeAuthorizer::new(Arc::new(Given(vec![
        ("", "pods", pod("one", "n1", volumes)),
        ("", "pods", pod("two", "n2", json!([]))),
        ("", "pods", mirror),
        ("", "persistentvolumes", volume),
    ])))
}

#[test]
fn a_node_reaches_what_its_pods_reference() {
    let authorizer = authorizer();
    let node = User { name: "system:node:n1".into(), groups: vec![NODES_GROUP.into()], ..User::default() };
    // verb, group, resource, namespace, name, field selector
    let cases = [
        ("get", "", "secrets", "a", "vol", "", true),
        ("list", "", "secrets", "a", "vol", "", true),
        ("get", "", "secrets", "a", "env-one", "", true),
        ("get", "", "secrets", "a", "pull-one", "", true),
        ("get", "", "secrets", "a", "env-two", "", false),
        ("get", "", "secrets", "a", "env-mirror", "", false),
        ("get", "", "secrets", "b", "vol", "", false),
        ("list", "", "secrets", "a", "", "", false),
        ("list", "", "secrets", "", "", "", false),
        ("update", "", "secrets", "a", "vol", "", false),
        ("get", "", "configmaps", "a", "from", "", true),
        ("watch", "", "configmaps", "a", "kube-root-ca.crt", "", true),
        ("get", "", "configmaps", "a", "other", "", false),
        ("get", "", "persistentvolumeclaims", "a", "one-e", "", true),
        ("get", "", "persistentvolumeclaims", "a", "two-e", "", false),
        ("get", "", "persistentvolumes", "", "pv", "", true),
        ("create", "", "serviceaccounts/token", "a", "default", "", true),
        ("create", "", "serviceaccounts/token", "a", "admin", "", false),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1", "", true),
        ("create", "coordination.k8s.io", "leases", "kube-node-lease", "", "", true),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2", "", false),
        ("update", "coordination.k8s.io", "leases", "kube-system", "n1", "", false),
        ("get", "", "nodes", "", "n1", "", true),
        ("get", "", "nodes", "", "n2", "", false),
        ("patch", "", "nodes/status", "", "n1", "", true),
        ("delete", "", "nodes", "", "n1", "", false),
        ("get", "", "pods", "a", "one", "", true),
        ("get", "", "pods", "a", "two", "", false),
        ("list", "", "pods", "", "", "spec.nodeName=n1", true),
        ("watch", "", "pods", "", "", "spec.nodeName==n1", true),
        ("list", "", "pods", "", "", "spec.nodeName=n2", false),
        ("list", "", "pods", "", "", "spec.nodeName=n1x", false),
        ("list", "", "pods", "", "", "", false),
        ("patch", "", "pods/status", "a", "one", "", true),
        ("list", "", "services", "", "", "", true),
        ("create", "", "events", "a", "", "", true),
        ("create", "", "deployments", "a", "", "", false),
        ("get", "", "nodes/proxy", "", "n1", "", false),
    ];
    for (verb, group, resource, namespace, name, field_selector, allowed) in cases {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let question = Question {
            user: &node,
            verb,
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            path: "",
            field_selector,
        };
        let decision = authorizer.decide(&question);
        assert_eq!(matches!(decision, Decision::Allow(_)), allowed, "{verb} {resource}/{subresource} {namespace}/{name}: {decision:?}");
    }
}

#[test]
fn only_nodes_are_nodes() {
    let user = |name: &str, group: &str| User { name: name.into(), groups: vec![group.into()], ..User::default() };
    assert_eq!(node_name(&user("system:node:n1", NODES_GROUP)), Some("n1"));
    assert_eq!(node_name(&user("system:node:n1", "dev")), None);
    assert_eq!(node_name(&user("n1", NODES_GROUP)), None);
}
