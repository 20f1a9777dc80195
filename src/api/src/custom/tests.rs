//! Definitions and what is served of them.

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::decode::MAX_DEPTH;
use names::Taken;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A definition of boats whose `v1` has this schema, with its names accepted.
fn boats(schema: Value) -> Value {
    let mut definition = json!({"metadata": {"name": "boats.golden.test"}, "spec": {"group": "golden.test", "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList", "shortNames": ["bo"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    definition["status"] = names::status(&definition, &Taken::default(), now());
    definition
}

fn settled(schema: Value, mut object: Value) -> Value {
    let (served, _) = resources(&boats(schema));
    settle(&served[0], &mut object);
    object
}

#[test]
fn what_the_schema_does_not_know_goes_and_defaults_come() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "crew": {"type": "integer", "default": 3}, "deep": {"type": "object", "default": {}, "properties": {"a": {"type": "string", "default": "x"}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}},
        "null": {"type": "string", "nullable": true, "default": "d"}, "solid": {"type": "string", "default": "e"},
        "keep": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
        "more": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}}}}}});
    let object = json!({"apiVersion": "golden.test/v0", "kind": "Boat", "metadata": {"name": "a", "bogus": 1}, "top": 1, "spec": {"zz": 1,
        "list": [{}, {"n": 1}], "null": null, "solid": null, "keep": {"any": {"thing": 1}, "known": {"a": 1, "b": 2}}, "more": {"x": {"c": 1}, "y": null}}});
    let expected = json!({"apiVersion": "golden.test/v1", "kind": "Boat", "metadata": {"name": "a"}, "spec": {"crew": 3, "deep": {"a": "x"},
        "list": [{"n": 7}, {"n": 1}], "null": null, "solid": "e", "keep": {"any": {"thing": 1}, "known": {"a": 1}}, "more": {"x": {"b": 1}}}});
    assert_eq!(settled(schema, object), expected);
}

#[test]
fn an_embedded_object_has_metadata_of_its_own() {
    let schema = json!({"type": "object", "properties": {"inner": {"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true}}});
    let object = json!({"inner": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "bogus": 1}, "any": 1}});
    assert_eq!(settled(schema, object)["inner"], json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "any": 1}));
}

#[test]
fn a_catalogue_has_what_is_served_and_knows_what_is_stored() {
    let mut definition = boats(json!({"type": "object"}));
    let version = |name: &str, served: bool, storage: bool| json!({"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    definition["spec"]["versions"] = json!([version("v1", true, false), version("v2", true, false), version("v0", false, true)]);
    let (served, hidden) = resources(&definition);
    let all = catalogue(&served, &hidden, 1);
    assert_eq!(all.versions("golden.test"), ["v2", "v1"]);
    assert!(all.resource("golden.test", "v0", "boats").is_none());
    let boat = all.kind("golden.test", "v1", "Boat").unwrap();
    assert_eq!(all.stored(boat).version, "v0");
    assert_eq!((boat.columns.len(), boat.serves("create"), boat.short_names.as_slice()), (2, true, ["bo".to_owned()].as_slice()));
    names::set(definition["status"]["conditions"].as_array_mut().unwrap(), "Terminating", true, "", "", now());
    assert!(!resources(&definition).0[0].serves("create"));
}

#[test]
fn built_in_resources_keep_their_names() {
    let mut definition = boats(json!({"type": "object"}));
    definition["spec"]["group"] = "apps".into();
    definition["spec"]["names"] = json!({"plural": "deployments", "kind": "Deployment"});
    definition["status"] = json!({});
    definition["status"] = names::status(&definition, &Taken::by_builtin("apps"), now());
    assert!(resources(&definition).0.is_empty(), "its names are taken");
    assert_eq!(definition["status"]["conditions"][0]["reason"], "KindConflict");
}

#[test]
fn names_that_others_have_are_not_given() {
    let mut taken = Taken::default();
    taken.add(&json!({"plural": "ships", "singular": "ship", "shortNames": ["bo"], "kind": "Ship", "listKind": "ShipList"}));
    let mut definition = boats(json!({"type": "object"}));
    definition["status"] = json!({"storedVersions": ["v1"]});
    let status = names::status(&definition, &taken, now());
    assert_eq!(status["acceptedNames"], json!({"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"}));
    let word = |i: usize| (status["conditions"][i]["status"].as_str().unwrap(), status["conditions"][i]["reason"].as_str().unwrap());
    assert_eq!((word(0), word(1)), (("False", "ShortNamesConflict"), ("False", "NotAccepted")));
    // The name is free again: it is given, and the same look gives the same status.
    definition["status"] = names::status(&definition, &Taken::default(), now());
    assert!(is_true(&definition, "Established"));
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(names::status(&definition, &Taken::default(), later), definition["status"]);
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    // What was established stays so.
    definition["spec"]["names"]["shortNames"] = json!(["sh"]);
    taken.add(&json!({"shortNames": ["sh"]}));
    definition["status"] = names::status(&definition, &taken, now());
    assert!(is_true(&definition, "Established") && !is_true(&definition, "NamesAccepted"));
    assert_eq!(definition["status"]["acceptedNames"]["shortNames"], json!(["bo"]));
}

#[test]
fn groups_of_kubernetes_need_an_approval() {
    for (group, protected) in [("k8s.io", true), ("x.k8s.io", true), ("a.kubernetes.io", true), ("ak8s.io", false), ("golden.test", false)]
    {
        assert_eq!(names::is_protected(group), protected, "{group}");
    }
    let mut definition = boats(json!({"type": "object"}));
    definition["spec"]["group"] = "gateway.networking.k8s.io".into();
    definition["metadata"]["annotations"] = json!({names::APPROVED: "https://github.com/kubernetes-sigs/gateway-api/pull/891"});
    let status = names::status(&definition, &Taken::default(), now());
    assert!(status["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "ApprovedAnnotation" && c["status"] == "True"));
}

#[test]
fn a_deep_object_is_no_danger() {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let deep = (0..MAX_DEPTH * 2).fold(json!(1), |inner, _| json!({"a": inner}));
    assert!(settled(schema, json!({"spec": deep}))["spec"].is_object());
}
