//! Rule tables, bindings, aggregation, escalation.

use serde_json::{Value, json};

use super::*;
use crate::request::User;

fn rule(value: Value) -> Rule {
    serde_json::from_value(value).unwrap()
}

fn question<'a>(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Question<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Question { is_resource: true, verb, group, version: "v1", resource, subresource, namespace, name, path: "", user, field_selector: "" }
}

#[test]
fn rules_for_resources() {
    let user = User::default();
    let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
    let cases = [
        (&pods, "get", "", "pods", "", true),
        (&pods, "delete", "", "pods", "", false),
        (&pods, "get", "apps", "pods", "", false),
        (&pods, "get", "", "pods/log", "web", true),
        (&pods, "get", "", "pods/exec", "web", false),
        (&json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), "x", "y", "z/w", "n", true),
        (&json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]}), "update", "apps", "deployments/scale", "", true),
        (&json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]}), "update", "apps", "deployments", "", false),
        (&json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/*"]}), "update", "apps", "deployments/scale", "", false),
        (&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}), "get", "", "secrets", "a", true),
        (&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}), "get", "", "secrets", "b", false),
        (
            &json!({"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}),
            "list",
            "",
            "secrets",
            "",
            false,
        ),
        (&json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), "get", "", "pods", "", false),
        (&json!({"verbs": null}), "get", "", "pods", "", false),
    ];
    for (text, verb, group, resource, name, allowed) in cases {
        let Ok(rule) = serde_json::from_value::<Rule>(text.clone()) else {
            assert!(!allowed);
            continue;
        };
        assert_eq!(rule.allows(&question(&user, verb, group, resource, "ns", name)), allowed, "{text} {verb} {resource} {name}");
    }
}

#[test]
fn rules_for_other_paths() {
    let user = User::default();
    for (rules, path, allowed) in [
        (json!(["/healthz"]), "/healthz", true),
        (json!(["/healthz"]), "/healthz/etcd", false),
        (json!(["/healthz/*"]), "/healthz/etcd", true),
        (json!(["/healthz/*"]), "/healthz", false),
        (json!(["*"]), "/anything", true),
        (json!([]), "/healthz", false),
    ] {
        let rule = rule(json!({"verbs": ["get"], "nonResourceURLs": rules}));
        let mut question = question(&user, "get", "", "", "", "");
        (question.is_resource, question.path) = (false, path);
        assert_eq!(rule.allows(&question), allowed, "{rules} {path}");
    }
}

fn snapshot() -> Snapshot {
    let cluster_roles = [
        json!({"metadata": {"name": "view", "labels": {"to": "edit"}}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        json!({"metadata": {"name": "more", "labels": {"to": "edit"}}, "rules": [{"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}]}),
        json!({"metadata": {"name": "edit"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]}, "rules": []}),
    ];
    let cluster_bindings = [
        json!({"metadata": {"name": "viewers"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "dev"}]}),
        json!({"metadata": {"name": "lost"}, "roleRef": {"kind": "ClusterRole", "name": "gone"}, "subjects": [{"kind": "User", "name": "eve"}]}),
    ];
    let roles =
        [json!({"metadata": {"name": "r", "namespace": "a"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]})];
    let bindings = [
        json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "web"}]}),
        json!({"metadata": {"name": "e", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "b"}]}),
    ];
    Snapshot::new(&cluster_roles, &cluster_bindings, &roles, &bindings)
}

#[test]
fn bindings() {
    let snapshot = snapshot();
    let user = |name: &str, group: &str| User { name: name.into(), groups: vec![group.into()], ..User::default() };
    let cases = [
        (user("al", "dev"), "get", "", "pods", "any", true),
        (user("al", "dev"), "get", "", "pods", "", true),
        (user("al", "ops"), "get", "", "pods", "", false),
        (user("system:serviceaccount:a:web", ""), "delete", "", "secrets", "a", true),
        (user("system:serviceaccount:a:web", ""), "delete", "", "secrets", "b", false),
        (user("system:serviceaccount:a:web", ""), "delete", "", "secrets", "", false),
        (user("system:serviceaccount:b:web", ""), "get", "", "pods", "a", true),
        (user("system:serviceaccount:b:web", ""), "get", "x", "y", "a", true),
        (user("system:serviceaccount:b:web", ""), "get", "x", "y", "b", false),
    ];
    for (user, verb, group, resource, namespace, allowed) in cases {
        let decision = snapshot.decide(&question(&user, verb, group, resource, namespace, ""));
        assert_eq!(matches!(decision, Decision::Allow(_)), allowed, "{user:?} {verb} {resource} in {namespace}: {decision:?}");
    }
    let eve = user("eve", "");
    let lost = snapshot.decide(&question(&eve, "get", "", "pods", "", ""));
    assert_eq!(lost, Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found".into()));
    let al = user("al", "dev");
    let why = snapshot.decide(&question(&al, "get", "", "pods", "", ""));
    assert_eq!(why, Decision::Allow("RBAC: allowed by ClusterRoleBinding \"viewers\" of ClusterRole \"view\" to Group \"dev\"".into()));
}

#[test]
fn nobody_grants_more_than_they_have() {
    let owned = [
        rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]})),
        rule(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["a", "b"]})),
        rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]})),
    ];
    for (wanted, uncovered) in [
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), 0),
        (json!({"verbs": ["get", "watch"], "apiGroups": [""], "resources": ["pods"]}), 1),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}), 0),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["rcs/scale"]}), 0),
        (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}), 1),
        (json!({"verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["a"]}), 0),
        (json!({"verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["a", "c"]}), 1),
        (json!({"verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments"]}), 1),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/metrics/cadvisor"]}), 0),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/x"]}), 2),
    ] {
        assert_eq!(covers(&owned, &[rule(wanted.clone())]).len(), uncovered, "{wanted}");
    }
}
