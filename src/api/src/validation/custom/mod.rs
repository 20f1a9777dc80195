//! Objects of definitions: by the value rules of their schema, then by its CEL rules. On update, what did not change is not judged anew.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::field::Field;
use crate::catalogue::Resource;
use crate::custom::checks::{Checks, Kind, Unique, has_format, same};

mod rules;

/// Causes after which CEL rules are not asked: they could not rely on the object's shape.
const BLOCKING: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];

/// Checks an object; `old` is the one that it takes the place of.
pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>) {
    if let Some(definition) = &resource.definition {
        judge(definition.checks(), object, old);
    }
}

fn judge(checks: &Checks, object: &Field<'_>, old: Option<&Value>) {
    value(checks, object, old, true, Told::All);
    if !checks.has_rules {
        return;
    }
    if object.reasons().iter().any(|reason| BLOCKING.contains(reason)) {
        object.nowhere(
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        );
        return;
    }
    rules::check(checks, object, old);
}

/// Whether a value keeps the rules, without a word about it.
pub(super) fn holds(checks: &Checks, object: &Value) -> bool {
    let causes = std::cell::RefCell::default();
    value(checks, &Field::root(object, &causes), None, false, Told::Whether);
    causes.into_inner().is_empty()
}

/// What is told of `allOf` and its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// What is wrong inside of them.
    All,
    /// Whether they hold. To look again at each for what is wrong would double the work with every level that they are nested.
    Whether,
}

fn value(checks: &Checks, field: &Field<'_>, old: Option<&Value>, root: bool, told: Told) {
    let new = field.value();
    if old.is_some_and(|old| same(old, new)) || (new.is_null() && checks.nullable) {
        return;
    }
    if !is_of(checks, new) {
        field.type_invalid(match checks.kind {
            Kind::Boolean => "boolean",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::IntOrString => "integer,string",
            Kind::Object | Kind::Any => "object",
        });
        return;
    }
    if !checks.enumeration.is_empty() && !checks.enumeration.iter().any(|one| same(one, new)) {
        let allowed: Vec<String> = checks.enumeration.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        field.not_supported(&allowed.iter().map(String::as_str).collect::<Vec<_>>());
    }
    match new {
        Value::Number(number) => self::number(checks, field, number.as_f64().unwrap_or_default()),
        Value::String(text) => self::text(checks, field, text),
        Value::Array(list) => self::list(checks, field, list, old, told),
        Value::Object(_) => object(checks, field, old, root, told),
        Value::Null | Value::Bool(_) => {}
    }
    combined(checks, field, old, root, told);
}

fn is_of(checks: &Checks, value: &Value) -> bool {
    match checks.kind {
        Kind::Any => true,
        Kind::Boolean => value.is_boolean(),
        Kind::Integer => is_integer(value),
        Kind::Number => value.is_number(),
        Kind::String => value.is_string(),
        Kind::Array => value.is_array(),
        Kind::Object => value.is_object(),
        Kind::IntOrString => value.is_string() || is_integer(value),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn number(checks: &Checks, field: &Field<'_>, number: f64) {
    if let Some((least, exclusive)) = checks.minimum
        && (number < least || (exclusive && number <= least))
    {
        field.invalid(&format!("should be greater than {}{least}", if exclusive { "" } else { "or equal to " }));
    }
    if let Some((most, exclusive)) = checks.maximum
        && (number > most || (exclusive && number >= most))
    {
        field.invalid(&format!("should be less than {}{most}", if exclusive { "" } else { "or equal to " }));
    }
    if let Some(factor) = checks.multiple_of.filter(|f| *f > 0.0) {
        let times = number / factor;
        if (times - times.round()).abs() > 1e-9 {
            field.invalid(&format!("should be a multiple of {factor}"));
        }
    }
}

/// Of length and pattern the first that does not hold is told.
fn text(checks: &Checks, field: &Field<'_>, text: &str) {
    let length = text.chars().count() as u64;
    if let Some(most) = checks.length.1.filter(|most| length > *most) {
        field.too_long(usize::try_from(most).unwrap_or(usize::MAX));
    } else if let Some(least) = checks.length.0.filter(|least| length < *least) {
        field.invalid(&format!("should be at least {least} chars long"));
    } else if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        field.invalid(&format!("should match '{pattern}'"));
    }
    if !has_format(&checks.format, text) {
        field.type_invalid(&checks.format);
    }
}

fn list(checks: &Checks, field: &Field<'_>, list: &[Value], old: Option<&Value>, told: Told) {
    let count = list.len() as u64;
    if let Some(most) = checks.items_count.1.filter(|most| count > *most) {
        field.too_many(usize::try_from(most).unwrap_or(usize::MAX));
    }
    if let Some(least) = checks.items_count.0.filter(|least| count < *least) {
        field.invalid(&format!("should have at least {least} items"));
    }
    // Text of the keys: whole values would be compared each with each.
    let key = |item: &Value| match &checks.unique {
        Unique::No => None,
        Unique::Members => Some(item.to_string()),
        Unique::Keys(keys) => Some(text_of_keys(keys, item)),
    };
    let (past, mut seen) = (Past::read(checks, old), HashSet::new());
    field.each(|i, item| {
        if let Some(key) = key(&list[i])
            && !seen.insert(key)
        {
            item.duplicate();
        }
        if let Some(items) = &checks.items {
            value(items, &item, past.of(checks, &list[i]), false, told);
        }
    });
}

/// What the members of a list were before, by their keys; only members with keys have a past.
pub(super) struct Past<'v>(HashMap<String, &'v Value>);

impl<'v> Past<'v> {
    pub(super) fn read(checks: &Checks, old: Option<&'v Value>) -> Self {
        let mut by_key = HashMap::new();
        if let Unique::Keys(keys) = &checks.unique {
            for item in old.and_then(Value::as_array).into_iter().flatten() {
                by_key.entry(text_of_keys(keys, item)).or_insert(item);
            }
        }
        Self(by_key)
    }

    pub(super) fn of(&self, checks: &Checks, item: &Value) -> Option<&'v Value> {
        let Unique::Keys(keys) = &checks.unique else { return None };
        if self.0.is_empty() { None } else { self.0.get(&text_of_keys(keys, item)).copied() }
    }
}

fn text_of_keys(keys: &[Box<str>], item: &Value) -> String {
    let list: Value = keys.iter().map(|name| item.get(&**name).cloned().unwrap_or_default()).collect();
    list.to_string()
}

fn object(checks: &Checks, field: &Field<'_>, old: Option<&Value>, root: bool, told: Told) {
    let Some(map) = field.value().as_object() else { return };
    let count = map.len() as u64;
    if let Some(most) = checks.properties_count.1.filter(|most| count > *most) {
        field.too_many(usize::try_from(most).unwrap_or(usize::MAX));
    }
    if let Some(least) = checks.properties_count.0.filter(|least| count < *least) {
        field.invalid(&format!("should have at least {least} properties"));
    }
    for name in checks.required.iter().filter(|name| !map.contains_key(&***name)) {
        field.at(name).required("");
    }
    if checks.embedded && !root {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) && !checks.required.iter().any(|r| **r == *name) {
                field.at(name).required("must not be empty");
            }
        }
    }
    let past = |name: &str| old.and_then(|old| old.get(name));
    for name in map.keys() {
        match (checks.property(name), &checks.additional) {
            (Some(inner), _) => value(inner, &field.at(name), past(name), false, told),
            (None, Some(inner)) if !(root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) => {
                value(inner, &field.at(name), past(name), false, told)
            }
            _ => {}
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`: which of them does not hold is told without a place, as upstream does.
fn combined(checks: &Checks, field: &Field<'_>, old: Option<&Value>, root: bool, told: Told) {
    let holds = |inner: &&Checks| self::holds(inner, field.value());
    let failing = checks.all_of.iter().filter(|inner| !holds(inner)).count();
    if failing > 0 {
        if told == Told::All {
            checks.all_of.iter().for_each(|inner| value(inner, field, old, root, told));
        }
        field.nowhere("must validate all the schemas (allOf)");
    }
    for (several, word) in [(&checks.any_of, "anyOf"), (&checks.one_of, "oneOf")] {
        let holding = several.iter().filter(holds).count();
        match (several.first(), holding) {
            (None, _) | (_, 1) => {}
            (Some(first), 0) => {
                // The first of them says what it would take.
                if told == Told::All {
                    value(first, field, old, root, told);
                }
                field.nowhere(&format!(
                    "must validate {} schema ({word}): none holds",
                    if word == "anyOf" { "at least one" } else { "one and only one" }
                ));
            }
            _ if word == "oneOf" => field.nowhere(&format!("must validate one and only one schema (oneOf): {holding} hold")),
            _ => {}
        }
    }
    if checks.not.as_deref().is_some_and(|inner| self::holds(inner, field.value())) {
        field.nowhere("must not validate the schema (not)");
    }
}

#[cfg(test)]
mod tests;
