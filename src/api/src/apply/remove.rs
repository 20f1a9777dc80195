//! Fields taken out of an object, and field sets brought in line with a schema.

use serde_json::Value;

use super::{
    fields::{FieldSet, Node},
    shape::{self, Shape},
};
use crate::schema::{ListType, Schema, Type};

/// The object without these fields. What has lost all its content is `null`.
pub(super) fn remove(schema: &Schema, object: Value, fields: &FieldSet) -> Value {
    match (shape::of(schema, &object), object) {
        (Shape::Members, Value::Object(map)) => {
            let mut out = serde_json::Map::new();
            for (name, value) in map {
                match fields.named(&name) {
                    Some(node) if node.member => {}
                    Some(node) => drop(out.insert(name.clone(), remove(shape::member(schema, &name), value, &node.below))),
                    None => drop(out.insert(name, value)),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Shape::Elements, Value::Array(list)) => {
            let mut out = Vec::with_capacity(list.len());
            for value in list {
                match shape::item(schema, &value).ok().and_then(|element| fields.node(&element)) {
                    Some(node) if node.member => {}
                    Some(node) => out.push(remove(shape::element(schema), value, &node.below)),
                    None => out.push(value),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (Shape::Leaf, scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => scalar,
        _ => Value::Null,
    }
}

/// The set with all structs on the way of its members.
pub(super) fn with_structs(schema: &Schema, fields: &FieldSet) -> FieldSet {
    let nodes = fields.nodes().iter().map(|node| {
        let element = &node.element;
        let (named, below) = match (element.name(), schema.kind) {
            (Some(name), Type::Object | Type::Map) => {
                (shape::is_named(schema, name), with_structs(shape::member(schema, name), &node.below))
            }
            (None, Type::List) if element.is_key() => (false, with_structs(shape::element(schema), &node.below)),
            _ => (false, node.below.clone()),
        };
        Node { element: element.clone(), member: node.member || (named && !node.below.is_empty()), below }
    });
    FieldSet::of(nodes.collect())
}

/// The set as it is meant after a schema's lists or maps have become atomic: who owned a part of one owns it. `None`: nothing changed.
pub(super) fn in_line(schema: &Schema, fields: &FieldSet) -> Option<FieldSet> {
    let mut changed = false;
    let nodes = fields.nodes().iter().map(|node| {
        let mut node = node.clone();
        let schema = match node.element.name() {
            Some(name) => shape::member(schema, name),
            None => shape::element(schema),
        };
        if is_atomic(schema) && !node.below.is_empty() {
            node = Node { element: node.element, member: true, below: FieldSet::default() };
            changed = true;
        } else if let Some(below) = in_line(schema, &node.below) {
            node.below = below;
            changed = true;
        }
        node
    });
    let nodes = nodes.collect();
    changed.then(|| FieldSet::of(nodes))
}

fn is_atomic(schema: &Schema) -> bool {
    match schema.kind {
        Type::Object | Type::Map => schema.atomic,
        Type::List => schema.list_type == ListType::Atomic,
        _ => false,
    }
}
