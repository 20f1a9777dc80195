//! What is wrong with a validating policy's expressions for the kinds that it is about: told in its status, and of no effect.

use serde_json::Value;

use super::{
    Type,
    environment::{Compiler, Environment, Kinds},
};

/// Kinds that a policy is checked for at most. Upstream's bound.
pub const MAX_KINDS: usize = 10;

/// A kind that a policy is about.
#[derive(Clone, Debug)]
pub struct Subject<'c> {
    /// `apps/v1, Kind=Deployment`
    pub name: String,
    /// Its objects.
    pub object: Type<'c>,
}

/// A remark on an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// `spec.validations[0].expression`
    pub field: String,
    /// For people.
    pub text: String,
}

/// The groups, versions and plurals that a policy names, without those that stand for more than one.
pub fn named(spec: &Value) -> Vec<[String; 3]> {
    let mut out = Vec::new();
    let rules = spec["matchConstraints"]["resourceRules"].as_array().map(Vec::as_slice).unwrap_or_default();
    for rule in rules {
        let list = |name: &str| {
            let mut list: Vec<&str> = rule[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            list.sort_unstable();
            list
        };
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        for group in &groups {
            for version in &versions {
                for plural in list("resources").into_iter().filter(|plural| !plural.contains(['*', '/'])) {
                    let found = [group, version, plural].map(str::to_owned);
                    if out.len() < MAX_KINDS && !out.contains(&found) {
                        out.push(found);
                    }
                }
            }
        }
    }
    out
}

/// What is wrong, expression by expression.
pub fn remarks(spec: &Value, subjects: &[Subject<'_>], params: Option<&Type<'_>>) -> Vec<Remark> {
    let mut out = Vec::new();
    for (i, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for name in ["expression", "messageExpression"] {
            let source = validation[name].as_str().unwrap_or_default();
            if source.is_empty() {
                continue;
            }
            let wrong: Vec<String> = subjects.iter().filter_map(|subject| wrong(spec, source, subject, params)).collect();
            if !wrong.is_empty() {
                out.push(Remark { field: format!("spec.validations[{i}].{name}"), text: wrong.join("\n") });
            }
        }
    }
    out
}

fn wrong(spec: &Value, source: &str, subject: &Subject<'_>, params: Option<&Type<'_>>) -> Option<String> {
    let kinds = Kinds { object: subject.object.clone(), params: params.cloned().unwrap_or(Type::Dyn) };
    let environment = Environment { params: spec["paramKind"].is_object(), authorizer: true, patches: false };
    let mut compiler = Compiler::of(kinds);
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let text = |name: &str| variable[name].as_str().unwrap_or_default();
        // What is wrong with a variable shows where it is used.
        let _ = compiler.variable(text("name"), text("expression"), environment);
    }
    let error = compiler.compile(source, environment, &[]).err()?;
    Some(format!("{}: {error}\n", subject.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::builtin;

    #[test]
    fn expressions_are_held_against_the_kinds_of_the_policy() {
        let spec = |expression: &str| {
            json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale"]},
                {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]}]},
                "variables": [{"name": "n", "expression": "object.spec.replicas"}],
                "validations": [{"expression": expression, "messageExpression": "'got ' + string(variables.n)"}]})
        };
        assert_eq!(named(&spec("true")), [["apps", "v1", "deployments"].map(str::to_owned)]);
        let schema = &builtin().resource("apps", "v1", "deployments").unwrap().schema;
        let subjects = [Subject { name: "apps/v1, Kind=Deployment".into(), object: Type::of_schema(schema) }];
        for right in [
            "object.spec.replicas > 1",
            "variables.n > 1 && object.metadata.labels['a'] == 'b'",
            "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && !has(c.securityContext.privileged))",
            "object.spec.strategy.rollingUpdate.maxSurge == '25%' && oldObject == null",
            "object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
        ] {
            assert_eq!(remarks(&spec(right), &subjects, None), [], "{right}");
        }
        for (wrong, why) in [
            ("object.spec.replicas > '1'", "found no matching overload for '_>_' applied to '(int, string)'"),
            ("object.nope == 'x'", "undefined field 'nope'"),
            ("object.spec.template.spec.containers.all(c, c.name > 1)", "'_>_' applied to '(string, int)'"),
        ] {
            let found = remarks(&spec(wrong), &subjects, None);
            assert!(found.len() == 1 && found[0].field == "spec.validations[0].expression" && found[0].text.contains(why), "{found:?}");
        }
    }
}
