//! The fields that a value says something about.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    element::Element,
    fields::{FieldSet, Node},
    shape::{self, Shape},
};
use crate::schema::Schema;

/// The fields of a configuration or object. Structs are no members by themselves, unlike keys of maps, elements of lists and what is empty.
pub(super) fn collect(schema: &Schema, object: &Value) -> FieldSet {
    below(schema, object).1
}

/// Whether the value itself is a member, and what is below it.
fn below(schema: &Schema, value: &Value) -> (bool, FieldSet) {
    match (shape::of(schema, value), value) {
        (Shape::Members, Value::Object(map)) => {
            let nodes = map.iter().map(|(name, value)| {
                let (here, below) = below(shape::member(schema, name), value);
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                Node { element: Element::field(name), member: here || empty || !shape::is_named(schema, name), below }
            });
            (false, FieldSet::of(nodes.collect()))
        }
        (Shape::Elements, Value::Array(list)) => match shape::items(schema, list) {
            Some(items) => (false, elements(shape::element(schema), &items)),
            None => (true, FieldSet::default()),
        },
        (Shape::Members | Shape::Elements, _) => (false, FieldSet::default()),
        (Shape::Leaf, _) => (true, FieldSet::default()),
    }
}

fn elements(schema: &Schema, items: &[(Element, &Value)]) -> FieldSet {
    let mut times: HashMap<&Element, usize> = HashMap::with_capacity(items.len());
    for (element, _) in items {
        *times.entry(element).or_default() += 1;
    }
    let mut nodes = Vec::with_capacity(items.len());
    for (element, value) in items {
        // Elements that came twice are owned as one.
        let below = if times[element] == 1 { below(schema, value).1 } else { FieldSet::default() };
        nodes.push(Node { element: element.clone(), member: true, below });
    }
    FieldSet::of(nodes)
}
