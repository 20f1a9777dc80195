//! Round trips through protobuf.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Type;
use crate::structural::prune;

fn round_trip(schema: &Schema, mut object: Value) -> Result<(), TestCaseError> {
    prune(schema, &mut object).unwrap();
    let mut back = decode(schema, &encode(schema, &object)).unwrap();
    prune(schema, &mut back).unwrap();
    prop_assert_eq!(back, object);
    Ok(())
}

#[test]
fn a_known_pod_has_upstreams_bytes() {
    let schema = builtin().schema("", "v1", "Pod").unwrap();
    let body = encode(
        schema,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
    );
    assert!(body.starts_with(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12"), "{body:x?}");
    let volume = b"\x0a\x01v\x12\x02\x12\x00"; // name, then VolumeSource { emptyDir: {} }
    assert!(body.windows(volume.len()).any(|w| w == volume), "{body:x?}");
    assert!(body.ends_with(b"\x1a\x00\x22\x00"));
}

#[test]
fn special_types_round_trip() {
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"fieldsV1": {"f:a": {}}}]},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}}, "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 5},
            "readinessProbe": {"tcpSocket": {"port": 80}}}], "terminationGracePeriodSeconds": 0, "hostNetwork": true}});
    round_trip(builtin().schema("", "v1", "Pod").unwrap(), object).unwrap();
    round_trip(builtin().schema("", "v1", "Secret").unwrap(), json!({"data": {"a": "AAEC", "b": ""}})).unwrap();
    let rules = json!({"webhooks": [{"name": "w", "rules": [{"operations": ["CREATE"], "apiGroups": [""], "scope": "*"}], "clientConfig": {"caBundle": "YQ=="}}]});
    round_trip(builtin().schema("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration").unwrap(), rules).unwrap();
    let crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "minimum": 1.5, "default": {"a": 1},
        "properties": {"x": {"additionalProperties": {"type": "string"}}, "y": {"additionalProperties": false}, "z": {"items": {"type": "string"}}},
        "dependencies": {"a": ["b"]}}}}]}});
    round_trip(builtin().schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap(), crd).unwrap();
    let csr = json!({"spec": {"extra": {"k": ["a", "b"]}, "request": "YQ=="}});
    round_trip(builtin().schema("certificates.k8s.io", "v1", "CertificateSigningRequest").unwrap(), csr).unwrap();
}

#[test]
fn damaged_bodies_are_errors() {
    let schema = builtin().schema("", "v1", "Pod").unwrap();
    let body = encode(schema, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "abc", "labels": {"a": "b"}}}));
    assert_eq!(kind(&body).unwrap(), ("v1".into(), "Pod".into()));
    assert!(decode(schema, b"").is_err());
    assert!(decode(schema, b"k8s\0\xff").is_err());
    for cut in 5..body.len() - 4 {
        let _ = decode(schema, &body[..cut]); // must not panic
    }
    assert!(decode(schema, &body[..body.len() - 8]).is_err());
}

/// Any value that a schema allows, canonical or not.
fn arbitrary(schema: &Schema, depth: usize) -> BoxedStrategy<Value> {
    let word = "[a-z]{0,5}";
    match schema.kind {
        Type::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Type::Int32 => any::<i32>().prop_map(Value::from).boxed(),
        Type::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        Type::Number => (-1e6..1e6f64).prop_map(Value::from).boxed(),
        Type::String => word.prop_map(Value::from).boxed(),
        Type::Bytes => prop::sample::select(vec!["", "YQ==", "AAEC"]).prop_map(Value::from).boxed(),
        Type::Time => Just(json!("2026-01-02T03:04:05Z")).boxed(),
        Type::MicroTime => Just(json!("2026-01-02T03:04:05.000007Z")).boxed(),
        Type::Duration => Just(json!("1m30s")).boxed(),
        Type::Quantity => prop::sample::select(vec!["1", "100m", "2Gi"]).prop_map(Value::from).boxed(),
        Type::IntOrString => prop_oneof![any::<i32>().prop_map(Value::from), word.prop_map(Value::from)].boxed(),
        Type::Any => prop::sample::select(vec![json!({"a": [1, "b"]}), json!({"f:x": {}})]).boxed(),
        _ if depth == 0 => Just(Value::Null).boxed(),
        Type::List => prop::collection::vec(arbitrary(schema.items().unwrap(), depth - 1), 1..3).prop_map(Value::from).boxed(),
        Type::Map => prop::collection::btree_map(word, arbitrary(schema.items().unwrap(), depth - 1), 1..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
            .boxed(),
        Type::Object => {
            let fields: Vec<_> = schema.properties().iter().filter(|p| p.number != 0).collect();
            if fields.is_empty() {
                return Just(json!({})).boxed();
            }
            let fields: Vec<_> = fields.into_iter().map(|p| (p.name.to_string(), p.schema().clone())).collect();
            prop::sample::subsequence(fields.clone(), 0..=fields.len().min(4))
                .prop_flat_map(move |some| {
                    some.into_iter().map(|(name, schema)| (Just(name), arbitrary(&schema, depth - 1))).collect::<Vec<_>>()
                })
                .prop_map(|fields| Value::Object(fields.into_iter().collect()))
                .boxed()
        }
        _ => Just(Value::Null).boxed(),
    }
}

/// JSON tells an empty list from an absent one where Go writes both; protobuf does not.
fn without_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| v.as_array().is_none_or(|l| !l.is_empty()));
            fields.values_mut().for_each(without_empty_lists);
        }
        Value::Array(list) => list.iter_mut().for_each(without_empty_lists),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_object_of_any_kind_round_trips(object in prop::sample::select(builtin().resources()).prop_flat_map(|r| (Just(r.clone()), arbitrary(&r.schema, 6)))) {
        let (resource, mut object) = object;
        without_empty_lists(&mut object);
        round_trip(&resource.schema, object)?;
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let schema = builtin().schema("", "v1", "Pod").unwrap();
        let _ = decode(schema, &[&MAGIC[..], &bytes].concat());
    }
}
