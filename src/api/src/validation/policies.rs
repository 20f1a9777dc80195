//! Admission policies and their bindings: every expression must make sense before a write depends on it.

use super::extensions::{conditions, rule};
use super::field::{Field, doubles};
use super::rules::{label_selector, qualified_name};
use crate::cel::environment::{ANNOTATION, CONDITION, Compiler, Environment, MESSAGE, configuration, json_patch};
use crate::cel::{self, CompileError, Program};
use crate::names;

/// Audit annotations of one policy. Upstream's bound.
const MAX_AUDIT_ANNOTATIONS: usize = 20;
/// Longest expression of an audit annotation, in bytes. Upstream's bound.
const MAX_ANNOTATION_EXPRESSION_BYTES: usize = 5 << 10;
/// What mutating policies may be about: a deletion has nothing to change.
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// A policy of either kind.
pub(super) fn policy(policy: &Field<'_>, mutating: bool) {
    let spec = policy.at("spec");
    spec.at("failurePolicy").optional_one_of(&["Fail", "Ignore"]);
    let params = spec.at("paramKind");
    if params.exists() {
        param_kind(&params);
    }
    let constraints = spec.at("matchConstraints");
    if constraints.exists() {
        match_resources(&constraints, mutating);
        constraints.at("resourceRules").must_exist();
    } else {
        constraints.required("");
    }
    conditions(&spec.at("matchConditions"), params.exists());
    let environment = Environment { params: params.exists(), authorizer: true, patches: false };
    let mut compiler = Compiler::default();
    spec.at("variables").each(|_, each| variable(&each, &mut compiler, environment));
    if mutating {
        mutations(&spec, &compiler, Environment { patches: true, ..environment });
    } else {
        validations(policy, &compiler, environment);
    }
}

/// Tells at a field why its expression cannot be read.
fn told(field: &Field<'_>, compiled: Result<Program, CompileError>) {
    match compiled {
        Ok(_) => {}
        Err(CompileError::Type(why)) if why.starts_with("must evaluate") => field.invalid(&why),
        Err(error) => field.invalid(&format!("compilation failed: {error}")),
    }
}

fn param_kind(params: &Field<'_>) {
    let (api_version, kind) = (params.at("apiVersion"), params.at("kind"));
    if api_version.must_exist() {
        match api_version.text().split('/').collect::<Vec<_>>().as_slice() {
            [version] => api_version.valid_by(|_| names::dns_1035_label(version)),
            [group, version] => {
                if !group.is_empty() {
                    api_version.valid_by(|_| names::dns_subdomain(group));
                }
                if version.is_empty() {
                    api_version.invalid("version must be specified");
                } else {
                    api_version.valid_by(|_| names::dns_1035_label(version));
                }
            }
            _ => api_version.invalid("must be a version, or a group and a version"),
        }
    }
    if kind.must_exist() {
        kind.valid_by(|kind| names::dns_1035_label(&kind.to_lowercase()).map_err(|why| format!("may have mixed case, but: {why}")));
    }
}

fn variable(variable: &Field<'_>, compiler: &mut Compiler<'_>, environment: Environment) {
    let (name, expression) = (variable.at("name"), variable.at("expression"));
    if name.text().trim().is_empty() {
        name.required("name is not specified");
    } else if !is_identifier(name.text()) {
        name.invalid("must be a valid CEL identifier");
    }
    if expression.text().trim().is_empty() {
        expression.required("expression is not specified");
    } else {
        told(&expression, compiler.variable(name.text(), expression.text(), environment));
    }
}

fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !cel::RESERVED.contains(&name) && name != "while"
}

fn validations(policy: &Field<'_>, compiler: &Compiler<'_>, environment: Environment) {
    let spec = policy.at("spec");
    let (list, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if list.is_empty() && annotations.is_empty() {
        list.required("validations or auditAnnotations must contain at least one item");
        annotations.required("validations or auditAnnotations must contain at least one item");
    }
    list.each(|_, each| validation(&each, compiler, environment));
    if annotations.list().len() > MAX_AUDIT_ANNOTATIONS {
        annotations.invalid(&format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"));
    }
    let metadata = policy.at("metadata");
    let owner = metadata.at("name").text();
    let mut keys: Vec<String> = Vec::new();
    annotations.each(|_, annotation| {
        let (key, value) = (annotation.at("key"), annotation.at("valueExpression"));
        if owner.is_empty() {
            key.invalid("requires metadata.name be non-empty");
        } else {
            key.all_invalid(qualified_name(&format!("{owner}/{}", key.text())));
        }
        if keys.iter().any(|k| k == key.text()) {
            key.duplicate();
        }
        keys.push(key.text().to_owned());
        match value.text().trim() {
            "" => value.required("valueExpression is not specified"),
            long if long.len() > MAX_ANNOTATION_EXPRESSION_BYTES => {
                value.required(&format!("must not exceed {MAX_ANNOTATION_EXPRESSION_BYTES} bytes in length"));
            }
            source => told(&value, compiler.compile(source, environment, &ANNOTATION)),
        }
    });
}

fn validation(validation: &Field<'_>, compiler: &Compiler<'_>, environment: Environment) {
    let (expression, message, made) = (validation.at("expression"), validation.at("message"), validation.at("messageExpression"));
    if expression.text().trim().is_empty() {
        expression.required("expression is not specified");
    } else {
        told(&expression, compiler.compile(expression.text(), environment, &CONDITION));
    }
    if !made.is_empty() && made.text().trim().is_empty() {
        made.invalid("must be non-empty if specified");
    } else if !made.is_empty() {
        told(&made, compiler.compile(made.text(), Environment { authorizer: false, ..environment }, &MESSAGE));
    }
    if !message.is_empty() && message.text().trim().is_empty() {
        message.invalid("must be non-empty if specified");
    } else if message.text().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    validation.at("reason").optional_one_of(&["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

/// What a mutating policy does, and whether again.
fn mutations(spec: &Field<'_>, compiler: &Compiler<'_>, environment: Environment) {
    let list = spec.at("mutations");
    if list.is_empty() {
        list.required("mutations must contain at least one item");
    }
    list.each(|_, mutation| {
        let kind = mutation.at("patchType");
        kind.required_one_of(&["ApplyConfiguration", "JSONPatch"]);
        let (part, other, made) = match kind.text() {
            "ApplyConfiguration" => (mutation.at("applyConfiguration"), mutation.at("jsonPatch"), configuration()),
            "JSONPatch" => (mutation.at("jsonPatch"), mutation.at("applyConfiguration"), json_patch()),
            _ => return,
        };
        if other.exists() {
            other.invalid(&format!("must not be specified when patchType is {}", kind.text()));
        }
        let expression = part.at("expression");
        if !part.exists() {
            part.required(&format!("must be specified when patchType is {}", kind.text()));
        } else if expression.text().trim().is_empty() {
            expression.required("");
        } else {
            told(&expression, compiler.compile(expression.text().trim(), environment, &made));
        }
    });
    spec.at("reinvocationPolicy").required_one_of(&["IfNeeded", "Never"]);
}

fn match_resources(constraints: &Field<'_>, mutating: bool) {
    constraints.at("matchPolicy").optional_one_of(&["Equivalent", "Exact"]);
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(&constraints.at(selector));
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        constraints.at(rules).each(|_, each| {
            let names = each.at("resourceNames");
            let list = names.list();
            let doubled = doubles(list);
            names.each(|i, name| {
                name.valid_by(names::path_segment);
                if doubled[i] {
                    name.duplicate();
                }
            });
            rule(&each);
        });
    }
    if !mutating {
        return;
    }
    // Upstream tells these at a place of their own.
    let told = constraints.called("resourceRules");
    constraints.at("resourceRules").each(|_, rule| {
        for operation in rule.at("operations").list() {
            if !operation.as_str().is_some_and(|operation| MUTABLE.contains(&operation)) {
                told.called("operations").holding(operation).not_supported(&MUTABLE);
            }
        }
    });
}

/// A binding of either kind.
pub(super) fn binding(spec: &Field<'_>, mutating: bool) {
    spec.at("policyName").must_be_valid(names::dns_subdomain);
    let reference = spec.at("paramRef");
    if reference.exists() {
        let (name, selector) = (reference.at("name"), reference.at("selector"));
        if name.is_empty() && !selector.exists() {
            reference.required("one of name or selector must be specified");
        } else if !name.is_empty() && selector.exists() {
            name.forbidden("name and selector are mutually exclusive");
            selector.forbidden("name and selector are mutually exclusive");
        }
        name.may_be_valid(names::path_segment);
        label_selector(&selector);
        let action = reference.at("parameterNotFoundAction");
        if action.exists() { action.one_of(&["Allow", "Deny"]) } else { action.required("") }
    }
    let resources = spec.at("matchResources");
    if resources.exists() {
        match_resources(&resources, mutating);
    }
    if mutating {
        return;
    }
    let actions = spec.at("validationActions");
    let list = actions.list();
    let doubled = doubles(list);
    actions.must_exist();
    actions.each(|i, action| {
        action.one_of(&["Audit", "Deny", "Warn"]);
        if doubled[i] {
            action.duplicate();
        }
    });
    if ["Deny", "Warn"].iter().all(|both| list.iter().any(|action| action == both)) {
        actions.invalid("must not contain both Deny and Warn: the same failure would be told twice");
    }
}
