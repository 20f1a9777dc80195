//! Generations, resets and isolation, kind by kind.

use serde_json::json;

use super::*;

const DEPLOYMENTS: Kind<'_> = Kind { group: "apps", plural: "deployments", has_status: true, custom: false };

fn update(kind: Kind<'_>, old: &Value, new: Value) -> Value {
    let mut new = new;
    meta::carry_over(&mut new, old);
    prepare_update(kind, &mut new, old, Timestamp::UNIX_EPOCH);
    new
}

#[test]
fn a_generation_counts_changes_of_the_spec() {
    let old = json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    for (change, want) in [
        (json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {}}), 3),
        (json!({"metadata": {"name": "a", "generation": 99}, "spec": {"replicas": 1}}), 3),
        (json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"replicas": 1}}), 3),
        (json!({"metadata": {"name": "a", "annotations": {"a": "b"}}, "spec": {"replicas": 1}}), 4),
        (json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}}), 4),
    ] {
        let new = update(DEPLOYMENTS, &old, change.clone());
        assert_eq!((meta::generation(&new), &new["status"]), (want, &old["status"]), "{change}");
    }
}

#[test]
fn a_status_update_changes_the_status_alone() {
    let old = json!({"metadata": {"name": "a", "labels": {"a": "1"}}, "spec": {"replicas": 1}, "status": {}});
    let mut new = json!({"metadata": {"name": "a", "labels": {"a": "2"}, "annotations": {"x": "y"}}, "spec": {"replicas": 9}, "status": {"replicas": 4}});
    prepare_subresource(DEPLOYMENTS, "status", &mut new, &old, Timestamp::UNIX_EPOCH);
    assert_eq!((&new["spec"]["replicas"], &new["status"]["replicas"]), (&json!(1), &json!(4)));
    assert_eq!((&new["metadata"]["labels"]["a"], &new["metadata"]["annotations"]["x"]), (&json!("1"), &json!("y")));
}

#[test]
fn births_are_as_their_kind_says() {
    let now = Timestamp::UNIX_EPOCH;
    let kind = |group, plural| Kind { group, plural, has_status: true, custom: false };
    let born = |group, plural, mut object: Value| {
        prepare_create(kind(group, plural), &mut object, now);
        object
    };
    let pod = born("", "pods", json!({"metadata": {}, "spec": {"containers": []}, "status": {"phase": "Running"}}));
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let node = born("", "nodes", json!({"metadata": {}, "status": {"capacity": {"cpu": "1"}}}));
    assert_eq!(node["status"]["capacity"]["cpu"], "1");
    let namespace = born("", "namespaces", json!({"metadata": {"name": "a"}}));
    assert_eq!(
        (&namespace["spec"]["finalizers"], &namespace["metadata"]["labels"]["kubernetes.io/metadata.name"]),
        (&json!(["kubernetes"]), &json!("a"))
    );
    let job = born("batch", "jobs", json!({"metadata": {"name": "once", "uid": "u"}, "spec": {"template": {"spec": {}}}}));
    assert_eq!(job["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    assert_eq!(
        (&job["spec"]["template"]["metadata"]["labels"]["job-name"], &job["metadata"]["labels"]["job-name"]),
        (&json!("once"), &json!("once"))
    );
    let secret = born("", "secrets", json!({"metadata": {}, "data": {"a": "eA=="}, "stringData": {"a": "y"}}));
    assert_eq!((&secret["data"]["a"], secret.get("stringData")), (&json!("eQ=="), None));
    let daemons = born("apps", "daemonsets", json!({"metadata": {}, "spec": {}}));
    assert_eq!(daemons["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
}
