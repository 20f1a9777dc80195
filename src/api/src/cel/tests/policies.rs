//! What expressions of admission can do: objects made by name, variables, questions to the authorizer, and what is refused.

use serde_json::json;

use super::super::{
    Type, Value,
    authorizer::{Authorize, Decision, Question},
    environment::{ANNOTATION, CONDITION, Compiler, Environment, MESSAGE, configuration, json_patch},
    scope::{AskError, CALL_LIMIT, POLICY_BUDGET, Scope, Variable},
};

const ALL: Environment = Environment { params: true, authorizer: true, patches: true };

/// Everybody may get everything, and the account `a/b` may do anything.
#[derive(Debug)]
struct Readers;

impl Authorize for Readers {
    fn decide(&self, question: &Question) -> Decision {
        let trusted = question.account.as_ref().is_some_and(|(namespace, name)| namespace == "a" && name == "b");
        Decision {
            allowed: trusted || question.verb == "get",
            reason: format!("{}/{}", question.resource, question.name),
            ..Decision::default()
        }
    }

    fn request_resource(&self) -> Question {
        Question { resource: "pods".into(), name: "me".into(), ..Question::default() }
    }
}

/// What an expression says, as JSON.
fn says(source: &str, variables: &[(&str, &str)], results: &[Type<'_>]) -> Result<serde_json::Value, String> {
    let mut compiler = Compiler::default();
    let made: Vec<Variable> = variables
        .iter()
        .map(|(name, source)| Variable { name: (*name).into(), program: compiler.variable(name, source, ALL).map_err(|e| e.to_string()) })
        .collect();
    let program = compiler.compile(source, ALL, results).map_err(|e| e.to_string())?;
    let object = json!({"metadata": {"name": "me", "labels": {"a/b": "c"}}, "spec": {"replicas": 3, "list": [1, 2]}});
    let names = vec![
        ("object", Value::of(&object, None)),
        ("oldObject", Value::Null),
        ("params", Value::Null),
        ("authorizer", Value::authorizer(&Readers)),
    ];
    let scope = Scope::new(names, &made, POLICY_BUDGET);
    scope.ask(&program, source).map_err(|e| e.to_string())?.to_json()
}

#[test]
fn variables_are_made_when_they_are_looked_at() {
    let wrong = ("wrong", "object.nope");
    assert_eq!(says("variables.n + 1", &[("n", "object.spec.replicas * 2"), wrong], &[]), Ok(json!(7)));
    assert_eq!(
        says("variables.m > 5 ? 'big' : 'small'", &[("n", "object.spec.replicas"), ("m", "variables.n * 2")], &MESSAGE),
        Ok(json!("big"))
    );
    assert!(says("variables.wrong == 1", &[wrong], &CONDITION).unwrap_err().contains("no such key: nope"));
    assert!(says("variables.later", &[], &[]).unwrap_err().contains("undefined field 'later'"));
    // Of two with one name the last counts, and may not speak of itself.
    assert!(says("variables.v == 1", &[("v", "1"), ("v", "variables.v + 1")], &CONDITION).unwrap_err().contains("refers to itself"));
    assert_eq!(says("object.spec.list.all(variables, variables > 0)", &[("x", "1")], &CONDITION), Ok(json!(true)));
}

#[test]
fn objects_are_made_by_name() {
    let made = says(
        "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}",
        &[],
        &configuration(),
    );
    assert_eq!(made, Ok(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 4}})));
    let patch = says(
        "has(object.spec.nope) ? [] : [JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y~z'), value: Object.spec{a: [1]}},
            JSONPatch{op: 'remove', path: '/a', ?from: optional.none()}]",
        &[],
        &json_patch(),
    );
    assert_eq!(patch, Ok(json!([{"op": "add", "path": "/metadata/labels/x~1y~0z", "value": {"a": [1]}}, {"op": "remove", "path": "/a"}])));
    for (source, why) in [
        ("JSONPatch{op: 1}", "expected type of field 'op'"),
        ("JSONPatch{nope: 1}", "undefined field 'nope'"),
        ("Thing{}", "undeclared reference to 'Thing'"),
        ("Object{a: 1,", "syntax error"),
        ("Object{a 1}", "syntax error"),
    ] {
        let error = says(source, &[], &[]).unwrap_err();
        assert!(error.contains(why), "{source}: {error}");
    }
    let bare = Compiler::default().compile("Object{}", Environment::default(), &[]);
    assert!(bare.is_err(), "only mutations make objects");
}

#[test]
fn a_result_must_be_known_to_be_what_is_asked_for() {
    for (source, results, fits) in [
        ("object.spec.flag", &CONDITION[..], false),
        ("object.spec.flag == true", &CONDITION, true),
        ("has(object.a) ? object.a : false", &CONDITION, false),
        ("1 + 1", &CONDITION, false),
        ("null", &ANNOTATION, true),
        ("'x'", &ANNOTATION, true),
        ("object.metadata.name", &ANNOTATION, false),
        ("[]", &json_patch(), false),
        ("'str'", &configuration(), false),
        ("Object.spec{}", &configuration(), false),
        (
            "request.userInfo.groups.exists(g, g == 'a') && namespaceObject.metadata.labels['a'] == 'b' && request.operation in ['CREATE']",
            &CONDITION,
            true,
        ),
        ("request.nope == 'a'", &CONDITION, false),
        ("1 == 1.0", &CONDITION, false),
        ("['a', 1] == []", &CONDITION, false),
    ] {
        let compiled = Compiler::default().compile(source, ALL, results);
        assert_eq!(compiled.is_ok(), fits, "{source}: {compiled:?}");
    }
    assert!(Compiler::default().compile("params == null", Environment::default(), &CONDITION).is_err());
}

#[test]
fn the_authorizer_is_asked() {
    for (source, answer) in [
        ("authorizer.group('apps').resource('deployments').namespace('x').name('web').check('get').allowed()", json!(true)),
        ("authorizer.group('').resource('pods').subresource('log').check('create').allowed()", json!(false)),
        ("authorizer.requestResource.check('get').reason()", json!("pods/me")),
        ("authorizer.serviceAccount('a', 'b').requestResource.check('delete').allowed()", json!(true)),
        ("authorizer.serviceAccount('a', 'c').path('/healthz').check('post').allowed()", json!(false)),
        ("authorizer.path('/metrics').check('get').errored()", json!(false)),
    ] {
        assert_eq!(says(source, &[], &[]), Ok(answer), "{source}");
    }
    let thrice = "[1, 2, 3].all(n, authorizer.path('/x').check('get').allowed())";
    assert!(says(thrice, &[], &CONDITION).unwrap_err().contains("costs too much"), "two answers fit into one expression");
    assert!(says("authorizer.path(' ').check('get').allowed()", &[], &CONDITION).unwrap_err().contains("path must not be empty"));
}

#[test]
fn what_is_spent_is_spent_for_all() {
    let compiler = Compiler::default();
    let program = compiler.compile("lists.range(1000).all(a, lists.range(300).all(b, a + b >= 0))", ALL, &CONDITION).unwrap();
    let cheap = compiler.compile("1 + 1 == 2", ALL, &CONDITION).unwrap();
    let scope = Scope::new(Vec::new(), &[], POLICY_BUDGET);
    let error = scope.ask(&program, "x").unwrap_err();
    assert!(matches!(error, AskError::Failed { .. }) && scope.left() >= POLICY_BUDGET - CALL_LIMIT, "one call has a bound of its own");
    assert!(scope.ask(&cheap, "y").is_ok());
    let scope = Scope::new(Vec::new(), &[], 1000);
    assert_eq!(scope.ask(&program, "x").unwrap_err(), AskError::Exhausted);
    assert_eq!(scope.ask(&cheap, "y").unwrap_err(), AskError::Exhausted);
}
