//! `x-kubernetes-validations` of a schema: rules that can be read, that have a past to compare with, and that cannot cost too much.

use serde_json::Value;

use super::Field;
use crate::cel::estimate::occurrences;
use crate::custom::checks::Checks;
use crate::custom::paths;
use crate::custom::rules::{REASONS, Rule};

/// What one rule may cost at most, for all values of one object. Upstream's bound.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of one schema may cost at most together. Upstream's bound.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// Rules that are named when all together cost too much.
const NAMED_RULES: usize = 4;

/// What is above a schema.
#[derive(Clone, Copy)]
struct Around {
    /// How often it may stand in one object; `None` when nothing bounds that.
    times: Option<u64>,
    /// What it was before can be told.
    correlates: bool,
}

/// What the rules so far cost.
#[derive(Default)]
struct Total {
    cost: u64,
    /// Where, and how much.
    each: Vec<(String, u64)>,
}

/// Checks the rules of a schema and of all below it.
pub(super) fn check(schema: &Field<'_>) {
    let mut total = Total::default();
    walk(schema, Around { times: Some(1), correlates: true }, &mut total);
    if total.cost <= SCHEMA_LIMIT {
        return;
    }
    total.each.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    for (place, _) in total.each.iter().filter(|(_, cost)| *cost >= SCHEMA_LIMIT / 100).take(NAMED_RULES) {
        schema.elsewhere(
            place,
            "FieldValueForbidden",
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
        );
    }
    schema.forbidden(&too_much("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", total.cost, SCHEMA_LIMIT));
}

fn walk(schema: &Field<'_>, around: Around, total: &mut Total) {
    rules(schema, around, total);
    let count = |name: &str| schema.value()[name].as_u64();
    let times = |by: Option<u64>| around.times.zip(by).map(|(times, by)| times.saturating_mul(by));
    let atomic = schema.value()["x-kubernetes-map-type"] == "atomic";
    let (properties, items, additional) = (schema.at("properties"), schema.at("items"), schema.at("additionalProperties"));
    let below = Around { correlates: around.correlates && !atomic, ..around };
    properties.each_key(|_, inner| walk(&inner, below, total));
    if items.value().is_object() {
        let keyed = schema.value()["x-kubernetes-list-type"] == "map";
        walk(&items, Around { times: times(count("maxItems")), correlates: around.correlates && keyed }, total);
    }
    if additional.value().is_object() {
        walk(&additional, Around { times: times(count("maxProperties")), ..below }, total);
    }
}

fn too_much(what: &str, cost: u64, limit: u64) -> String {
    let advice = "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared";
    if cost / limit >= 100 {
        return format!("{what} exceeds budget by factor of more than 100x ({advice})");
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let factor = cost as f64 / limit as f64;
    format!("{what} exceeds budget by factor of {factor:.1}x ({advice})")
}

fn rules(schema: &Field<'_>, around: Around, total: &mut Total) {
    let rules = schema.at("x-kubernetes-validations");
    if rules.is_empty() {
        return;
    }
    let checks = Checks::read(&{
        let mut source = schema.value().clone();
        source["x-kubernetes-validations"] = Value::Null;
        source
    });
    rules.each(|_, rule| self::rule(schema, &checks, &rule, around, total));
}

fn rule(schema: &Field<'_>, checks: &Checks, rule: &Field<'_>, around: Around, total: &mut Total) {
    let (text, made) = (rule.at("rule"), rule.at("messageExpression"));
    let reason = rule.at("reason");
    if reason.exists() && !REASONS.contains(&reason.text()) {
        reason.not_supported(&REASONS);
    }
    let message = rule.at("message");
    if message.exists() && message.text().trim().is_empty() {
        message.invalid("message must be non-empty if specified");
    } else if message.text().trim().contains('\n') {
        message.invalid("message must not contain line breaks");
    } else if message.is_empty() && text.text().trim().contains('\n') {
        message.required("message must be specified if rule contains line breaks");
    }
    let path = rule.at("fieldPath");
    if path.exists() && paths::schema_at(schema.value(), path.text()).is_none() {
        path.invalid("must be a path to a field of the schema, such as .a.b or .a['b.c']");
        return;
    }
    if text.text().trim().is_empty() {
        text.required("rule is not specified");
        return;
    }
    let read = Rule::read(rule.value(), checks);
    if let Some(error) = read.error() {
        text.invalid(&format!("compilation failed: {error}"));
    }
    if let Some(error) = read.message_error() {
        made.invalid(&format!("compilation failed: {error}"));
    }
    if read.error().is_none() {
        let optional = rule.at("optionalOldSelf");
        if read.compares && !around.correlates {
            text.invalid("oldSelf cannot be used on the uncorrelatable portion of the schema");
        } else if !read.compares && optional.exists() {
            optional.invalid("may not be set if oldSelf is not used in rule");
        }
    }
    let (cost, message_cost) = read.most_cost(checks);
    let cost = cost.saturating_mul(around.times.unwrap_or_else(|| occurrences(checks)));
    for (field, cost, what) in [(&text, cost, "estimated rule cost"), (&made, message_cost, "estimated messageExpression cost")] {
        if cost > RULE_LIMIT {
            field.forbidden(&too_much(what, cost, RULE_LIMIT));
        }
        total.cost = total.cost.saturating_add(cost);
        total.each.push((field.path(), cost));
    }
}
