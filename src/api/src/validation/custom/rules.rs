//! `x-kubernetes-validations` of an object, wherever the schema has them.

use serde_json::Value;

use super::super::field::Field;
use super::Past;
use crate::custom::checks::{Checks, same};
use crate::custom::rules::{Budget, Verdict};

/// Asks all rules.
pub(super) fn check(checks: &Checks, object: &Field<'_>, old: Option<&Value>) {
    let mut budget = Budget::default();
    walk(checks, object, old, false, &mut budget);
}

/// `settled`: the value is part of one that did not change.
fn walk(checks: &Checks, field: &Field<'_>, old: Option<&Value>, settled: bool, budget: &mut Budget) {
    if !checks.has_rules || field.value().is_null() {
        return;
    }
    let settled = settled || old.is_some_and(|old| same(old, field.value()));
    for rule in &checks.rules {
        // What did not change and does not look at its past was judged when it came.
        if !rule.compares && settled {
            continue;
        }
        match rule.ask(checks, field.value(), old, budget) {
            Verdict::Holds => {}
            Verdict::Broken { message } => {
                let mut names: Vec<&str> = rule.field_path.iter().map(|name| &**name).collect();
                names.reverse();
                told(field, &mut names, rule.reason, &message);
            }
            Verdict::Spent => {
                field.invalid("call cost exceeds limit: no further validation rules will be run");
                return;
            }
        }
    }
    let past = |name: &str| if checks.atomic { None } else { old.and_then(|old| old.get(name)) };
    match field.value() {
        Value::Object(map) => {
            for name in map.keys() {
                if let Some(inner) = checks.property(name).or(checks.additional.as_deref()) {
                    walk(inner, &field.at(name), past(name), settled, budget);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &checks.items else { return };
            let past = Past::read(checks, old);
            field.each(|i, item| walk(items, &item, past.of(checks, &list[i]), settled, budget));
        }
        _ => {}
    }
}

/// Tells a cause at a path below the field.
fn told(field: &Field<'_>, names: &mut Vec<&str>, reason: &'static str, message: &str) {
    match names.pop() {
        Some(name) => told(&field.at(name), names, reason, message),
        None => field.because(reason, message),
    }
}
