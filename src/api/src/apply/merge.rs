//! The merge of a configuration into an object.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    element::Element,
    shape::{self, Shape},
};
use crate::schema::Schema;

/// The object with what the configuration says. Both must fit the schema; the configuration has no element twice ([`super::check`]).
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Value {
    let divided = |shape| shape::of(schema, live) == shape && shape::of(schema, config) == shape;
    if divided(Shape::Members) {
        return members(schema, live, config);
    }
    if divided(Shape::Elements) {
        return elements(schema, live, config);
    }
    config.clone()
}

fn members(schema: &Schema, live: &Value, config: &Value) -> Value {
    let (before, wanted) = (live.as_object(), config.as_object());
    if before.is_none_or(Map::is_empty) && wanted.is_none_or(Map::is_empty) {
        return config.clone(); // null and {} are told apart
    }
    let mut out = before.cloned().unwrap_or_default();
    for (name, value) in wanted.into_iter().flatten() {
        let merged = match out.get(name) {
            Some(old) => merge(shape::member(schema, name), old, value),
            None => value.clone(),
        };
        out.insert(name.clone(), merged);
    }
    Value::Object(out)
}

fn elements(schema: &Schema, live: &Value, config: &Value) -> Value {
    let before = live.as_array().map(Vec::as_slice).unwrap_or_default();
    let wanted = config.as_array().map(Vec::as_slice).unwrap_or_default();
    if before.is_empty() && wanted.is_empty() {
        return config.clone();
    }
    match (shape::items(schema, before), shape::items(schema, wanted)) {
        (Some(before), Some(wanted)) => Value::Array(interleave(shape::element(schema), &before, &wanted)),
        _ => config.clone(),
    }
}

/// Elements that both have are in the order of the configuration; those that only one has stay near their neighbours there.
fn interleave(schema: &Schema, before: &[(Element, &Value)], wanted: &[(Element, &Value)]) -> Vec<Value> {
    let in_config: HashSet<&Element> = wanted.iter().map(|(element, _)| element).collect();
    let mut in_live: HashMap<&Element, Option<&Value>> = HashMap::with_capacity(before.len());
    for (element, value) in before {
        // Of elements that come twice none is the one to merge with.
        in_live.entry(element).and_modify(|value| *value = None).or_insert(Some(value));
    }
    let mut shared: VecDeque<&Element> = wanted.iter().map(|(element, _)| element).filter(|e| in_live.contains_key(e)).collect();
    let merged = |element: &Element, value: &Value| match in_live.get(element) {
        Some(Some(old)) => merge(schema, old, value),
        _ => value.clone(),
    };
    let mut done: HashSet<&Element> = HashSet::with_capacity(wanted.len());
    let mut out = Vec::with_capacity(before.len() + wanted.len());
    let (mut l, mut r) = (0, 0);
    while l < before.len() || r < wanted.len() {
        if let (Some((old, _)), Some((new, value))) = (before.get(l), wanted.get(r)) {
            if old == new {
                out.push(merged(new, value));
                done.insert(new);
                shared.pop_front();
                (l, r) = (l + 1, r + 1);
                continue;
            }
            if in_config.contains(old) && shared.front().is_some_and(|next| *next != old) {
                l += 1; // comes later, where the configuration has it
                continue;
            }
        }
        if let Some((old, value)) = before.get(l) {
            if !in_config.contains(old) {
                out.push((*value).clone());
                l += 1;
                continue;
            }
            if done.contains(old) {
                l += 1;
            }
        }
        if let Some((new, value)) = wanted.get(r) {
            out.push(merged(new, value));
            done.insert(new);
            if shared.front() == Some(&new) {
                shared.pop_front();
            }
            r += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{ListType, Type};

    fn order(before: &[&str], wanted: &[&str], after: &[&str]) {
        let set = Schema { list_type: ListType::Set, ..Schema::of(Type::List) }.with_items(Schema::of(Type::String).into());
        assert_eq!(merge(&set, &json!(before), &json!(wanted)), json!(after), "{before:?} + {wanted:?}");
    }

    #[test]
    fn elements_keep_the_order_of_the_configuration() {
        order(&[], &["a"], &["a"]);
        order(&["a", "b"], &[], &["a", "b"]);
        order(&["a", "b"], &["c"], &["a", "b", "c"]);
        order(&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]);
        order(&["a", "b"], &["b", "a"], &["b", "a"]);
        order(&["b", "x"], &["a", "b"], &["a", "b", "x"]);
        order(&["x", "b", "y"], &["b", "n"], &["x", "b", "y", "n"]);
        order(&["a", "a", "b"], &["b"], &["a", "a", "b"]);
    }
}
