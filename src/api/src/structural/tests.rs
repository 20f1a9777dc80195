//! Cases of the canonical form.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalogue::builtin;

fn check(group: &str, version: &str, kind: &str, mut value: Value, expected: &Value, unknown: &[&str]) {
    let schema = builtin().schema(group, version, kind).unwrap();
    let got = prune(schema, &mut value).unwrap();
    assert_eq!((&value, got.as_slice()), (expected, unknown.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()));
    assert_eq!(prune(schema, &mut value).unwrap(), Vec::<String>::new());
    assert_eq!(&value, expected, "canonical stays canonical");
}

#[test]
fn zeros_are_written_as_go_writes_them() {
    check(
        "",
        "v1",
        "Pod",
        json!({"metadata": {"labels": {"a": null}, "generation": 0}, "spec": {"hostNetwork": false, "nodeName": "", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "a", "stdin": false, "ports": [{"containerPort": 0, "hostPort": 0}], "env": []}]}}),
        &json!({"metadata": {"labels": {"a": ""}}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "a", "ports": [{"containerPort": 0}], "resources": {}}]}, "status": {}}),
        &[],
    );
    check(
        "apps",
        "v1",
        "Deployment",
        json!({"spec": {"replicas": 0, "strategy": null}, "status": null}),
        &json!({"metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}}, "status": {}}),
        &[],
    );
    check("", "v1", "ConfigMap", json!({"data": {}, "immutable": false}), &json!({"metadata": {}, "immutable": false}), &[]);
}

#[test]
fn unknown_fields_go_and_are_told() {
    check(
        "",
        "v1",
        "Pod",
        json!({"bad": 1, "spec": {"containers": [{"name": "a", "zz": {"x": 1}}], "NodeName": "n"}}),
        &json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {}}]}, "status": {}}),
        &["spec.containers[0].zz", "spec.NodeName", "bad"],
    );
}

#[test]
fn wrong_types_are_told_with_their_place() {
    let cases = [
        (json!({"spec": {"replicas": "3"}}), "spec.replicas"),
        (json!({"spec": {"replicas": 2_147_483_648_u64}}), "spec.replicas"),
        (json!({"spec": {"replicas": 1.5}}), "spec.replicas"),
        (json!({"spec": []}), "spec"),
        (json!({"metadata": {"labels": {"a": 1}}}), "metadata.labels.a"),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}}),
            "spec.template.spec.containers[0].resources.limits.cpu",
        ),
        (json!({"metadata": {"creationTimestamp": "yesterday"}}), "metadata.creationTimestamp"),
    ];
    let schema = builtin().schema("apps", "v1", "Deployment").unwrap();
    for (mut value, place) in cases {
        match prune(schema, &mut value) {
            Err(DecodeError::WrongType { path, .. }) => assert_eq!(path, place),
            other => panic!("{place}: {other:?}"),
        }
    }
}

#[test]
fn scalars_have_one_spelling() {
    let cases = [
        (Type::Quantity, json!("0.5"), json!("500m")),
        (Type::Quantity, json!(2), json!("2")),
        (Type::Quantity, json!("1024Mi"), json!("1Gi")),
        (Type::Time, json!("2026-01-02T03:04:05.6+01:00"), json!("2026-01-02T02:04:05Z")),
        (Type::MicroTime, json!("2026-01-02T03:04:05.600000Z"), json!("2026-01-02T03:04:05.600000Z")),
        (Type::Time, json!("0001-01-01T00:00:00Z"), json!(null)),
        (Type::Duration, json!("90s"), json!("1m30s")),
        (Type::Duration, json!("1.5h"), json!("1h30m0s")),
        (Type::Bytes, json!("YWJj\nZA=="), json!("YWJjZA==")),
    ];
    for (kind, mut value, expected) in cases {
        scalar::canonical(kind, &mut value).unwrap();
        assert_eq!(value, expected);
    }
    for (kind, mut value) in [
        (Type::Bytes, json!("a")),
        (Type::Bytes, json!("YW=j")),
        (Type::Quantity, json!("")),
        (Type::Time, json!("2026-01-02")),
        (Type::Duration, json!("1")),
    ] {
        assert!(scalar::canonical(kind, &mut value).is_err(), "{value}");
    }
}

proptest! {
    #[test]
    fn durations_round_trip(nanos: i64) {
        prop_assume!(nanos != i64::MIN);
        prop_assert_eq!(parse_duration(&format_duration(nanos)), Some(nanos));
    }
}
