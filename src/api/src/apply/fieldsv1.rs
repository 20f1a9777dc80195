//! `fieldsV1`: field sets as the JSON that clients see.

use serde_json::{Map, Value};

use super::{
    element::Element,
    fields::{FieldSet, Node},
    managers::ManagedFieldsError,
};

/// Says that the path itself is a member, where something below it is one too.
const SELF: &str = ".";

/// The set as JSON.
pub(super) fn encode(fields: &FieldSet) -> Value {
    Value::Object(members(fields).collect())
}

fn members(fields: &FieldSet) -> impl Iterator<Item = (String, Value)> {
    fields.nodes().iter().map(|node| {
        let mut below = Map::new();
        if !node.below.is_empty() {
            if node.member {
                below.insert(SELF.to_owned(), Value::Object(Map::new()));
            }
            below.extend(members(&node.below));
        }
        (node.element.as_str().to_owned(), Value::Object(below))
    })
}

/// The set that JSON tells; `null` is the empty one.
pub(super) fn decode(value: &Value) -> Result<FieldSet, ManagedFieldsError> {
    match value {
        Value::Null => Ok(FieldSet::default()),
        Value::Object(map) => map.iter().filter(|(name, _)| *name != SELF).map(node).collect::<Result<Vec<_>, _>>().map(FieldSet::of),
        _ => Err(ManagedFieldsError::Shape),
    }
}

fn node((name, value): (&String, &Value)) -> Result<Node, ManagedFieldsError> {
    let map = value.as_object().ok_or(ManagedFieldsError::Shape)?;
    Ok(Node { element: Element::parse(name)?, member: map.is_empty() || map.contains_key(SELF), below: decode(value)? })
}
