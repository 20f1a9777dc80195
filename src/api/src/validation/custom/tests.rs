//! Objects and the causes that they are refused for.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::*;

/// The causes, as `reason field`, of an object by the schema of its spec.
fn causes(spec: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let checks = Checks::read(&json!({"type": "object", "properties": {"spec": spec}}));
    let causes = RefCell::default();
    let (new, old) = (json!({ "spec": new }), old.map(|old| json!({ "spec": old })));
    let field = Field::root(&new, &causes);
    judge(&checks, &field, old.as_ref());
    let mut out: Vec<String> =
        causes.into_inner().iter().map(|c| format!("{} {}", c.reason.trim_start_matches("FieldValue"), c.field)).collect();
    out.sort();
    out
}

fn rules() -> Value {
    json!({"type": "object", "required": ["crew"], "properties": {
        "crew": {"type": "integer", "minimum": 1, "maximum": 5}, "port": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "minLength": 2},
        "kind": {"type": "string", "enum": ["a", "b"]}, "num": {"type": "number", "multipleOf": 0.5}, "arr": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "ios": {"x-kubernetes-int-or-string": true}, "when": {"type": "string", "format": "date-time"}, "ip": {"type": "string", "format": "ipv4"},
        "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}}, "n": {"type": "string", "nullable": true},
        "one": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 9}}}},
        "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}})
}

#[test]
fn every_rule_has_its_cause() {
    for (with, expected) in [
        (json!({}), &[] as &[&str]),
        (json!({"crew": 0}), &["Invalid spec.crew"]),
        (json!({"crew": 9}), &["Invalid spec.crew"]),
        (json!({"crew": 2.0}), &[]),
        (json!({"crew": "x"}), &["TypeInvalid spec.crew"]),
        (json!({"crew": 1.5}), &["TypeInvalid spec.crew"]),
        (json!({"port": "A1"}), &["Invalid spec.port"]),
        (json!({"port": "abcdefgh"}), &["TooLong spec.port"]),
        (json!({"kind": "c"}), &["NotSupported spec.kind"]),
        (json!({"num": 0.3}), &["Invalid spec.num"]),
        (json!({"arr": []}), &["Invalid spec.arr"]),
        (json!({"arr": ["a", "b", "c"]}), &["TooMany spec.arr"]),
        (json!({"arr": [1]}), &["TypeInvalid spec.arr[0]"]),
        (json!({"ios": true}), &["TypeInvalid spec.ios"]),
        (json!({"ios": "50%"}), &[]),
        (json!({"when": "yesterday"}), &["TypeInvalid spec.when"]),
        (json!({"ip": "999.1.1.1"}), &["TypeInvalid spec.ip"]),
        (json!({"map": {"a": 1, "b": 2}}), &["TooMany spec.map"]),
        (json!({"map": {"a": "x"}}), &["TypeInvalid spec.map.a"]),
        (json!({"one": {}}), &["Invalid <nil>", "Required spec.one.a"]),
        (json!({"one": {"a": 1, "b": 2}}), &["Invalid <nil>"]),
        (json!({"n": null}), &[]),
        (json!({"set": ["a", "a"]}), &["Duplicate spec.set[1]"]),
        (json!({"keyed": [{"k": "x"}, {"k": "x", "v": 1}]}), &["Duplicate spec.keyed[1]"]),
        (json!({"inner": {"kind": "Pod"}}), &["Required spec.inner.apiVersion"]),
    ] {
        let mut spec = json!({"crew": 1});
        spec.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        assert_eq!(causes(&rules(), spec, None), expected, "{with}");
    }
    assert_eq!(causes(&rules(), json!({}), None), ["Required spec.crew"]);
    assert_eq!(causes(&rules(), json!("str"), None), ["TypeInvalid spec"]);
}

#[test]
fn what_was_wrong_before_may_stay_as_it_is() {
    let old = json!({"crew": 9, "keyed": [{"k": "x", "v": 10}], "port": "A1"});
    assert!(causes(&rules(), json!({"crew": 9, "keyed": [{"k": "y"}, {"k": "x", "v": 10}], "port": "ok"}), Some(old.clone())).is_empty());
    assert_eq!(
        causes(&rules(), json!({"crew": 8, "keyed": [{"k": "x", "v": 11}]}), Some(old)),
        ["Invalid spec.crew", "Invalid spec.keyed[0].v"]
    );
}

#[test]
fn rules_in_cel_see_the_past_and_say_where() {
    let spec = json!({"type": "object", "x-kubernetes-validations": [
            {"rule": "self.crew <= self.max", "fieldPath": ".crew", "reason": "FieldValueForbidden", "message": "m"},
            {"rule": "!has(oldSelf.max) || self.max >= oldSelf.max", "message": "shrunk"}],
        "properties": {"crew": {"type": "integer"}, "max": {"type": "integer"},
            "fix": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "messageExpression": "'was ' + oldSelf"}]},
            "once": {"type": "string", "x-kubernetes-validations": [{"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true}]},
            "names": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self.startsWith('x')"}]}}}});
    let old = json!({"crew": 2, "max": 4, "fix": "f", "names": ["a"]});
    let check =
        |new: Value, old: Option<&Value>, expected: &[&str]| assert_eq!(causes(&spec, new.clone(), old.cloned()), expected, "{new}");
    check(old.clone(), Some(&old), &[]);
    check(json!({"crew": 9, "max": 4}), None, &["Forbidden spec.crew"]);
    check(json!({"crew": 2, "max": 3}), Some(&old), &["Invalid spec"]);
    check(json!({"crew": 2, "max": 4, "fix": "g"}), Some(&old), &["Invalid spec.fix"]);
    check(json!({"crew": 2, "max": 4, "once": "old"}), None, &["Invalid spec.once"]);
    check(json!({"crew": 2, "max": 4, "names": ["xa", "b"]}), Some(&old), &["Invalid spec.names[1]"]);
    check(json!({"crew": "x", "max": 4}), None, &["Invalid <nil>", "TypeInvalid spec.crew"]);
}

#[test]
fn alternatives_in_alternatives_are_judged_in_time() {
    for word in ["allOf", "anyOf", "oneOf"] {
        let nested = (0..30).fold(json!({"properties": {"x": {"minimum": 1.0}}}), |inner, _| json!({ word: [inner] }));
        let mut spec = nested;
        spec["type"] = "object".into();
        let judge = || {
            assert!(!causes(&spec, json!({"x": 0}), None).is_empty());
            assert!(causes(&spec, json!({"x": 1}), None).is_empty());
        };
        assert!(crate::effort::seconds(judge) < 10, "{word}");
    }
}

#[test]
fn long_lists_with_keys_find_their_past_in_time() {
    let spec = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object",
        "properties": {"k": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}});
    let list = |v: usize| -> Value { (0..5_000).map(|i| json!({"k": format!("k{i}"), "v": v})).collect() };
    let judge = || {
        assert!(causes(&spec, list(2), Some(list(1))).is_empty());
        assert!(!causes(&spec, list(1), Some(list(2))).is_empty());
    };
    assert!(crate::effort::seconds(judge) < 20);
}
