//! How a value is divided among managers: as one, by members, or by elements.

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{ListType, Schema, Type, any};

/// The message that holds whole objects of somebody else.
const RAW_EXTENSION: &str = "runtime/RawExtension";

/// How a value is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Not at all: scalars, atomic lists and maps.
    Leaf,
    /// By the names of its members.
    Members,
    /// By the keys or values of its elements.
    Elements,
}

/// The shape of a value; `null` has that of what could be in its place. A value that does not fit its schema is a leaf (validation tells).
pub(super) fn of(schema: &Schema, value: &Value) -> Shape {
    match schema.kind {
        Type::Object | Type::Map if !schema.atomic && matches!(value, Value::Object(_) | Value::Null) => Shape::Members,
        Type::List if schema.list_type != ListType::Atomic && matches!(value, Value::Array(_) | Value::Null) => Shape::Elements,
        Type::Any if &*schema.message == RAW_EXTENSION => Shape::Leaf,
        // What has no schema is divided as far as it consists of objects.
        Type::Any | Type::SchemaOrList | Type::SchemaOrBool | Type::SchemaOrNames if matches!(value, Value::Object(_) | Value::Null) => {
            Shape::Members
        }
        _ => Shape::Leaf,
    }
}

/// Schema of a member; what the schema does not know may be anything.
pub(super) fn member<'s>(schema: &'s Schema, name: &str) -> &'s Schema {
    match schema.kind {
        Type::Object => schema.field(name).map_or(any(), |property| property.schema()),
        Type::Map => schema.items().unwrap_or(any()),
        _ => any(),
    }
}

/// Schema of an element.
pub(super) fn element(schema: &Schema) -> &Schema {
    schema.items().unwrap_or(any())
}

/// Whether the member has a name that its kind knows, unlike the keys of a map.
pub(super) fn is_named(schema: &Schema, name: &str) -> bool {
    schema.kind == Type::Object && schema.field(name).is_some()
}

/// What tells a list's element from the others; the words say why nothing does.
pub(super) fn item(schema: &Schema, value: &Value) -> Result<Element, String> {
    if schema.list_type == ListType::Set {
        return match value {
            Value::Object(_) | Value::Array(_) => Err("a set may not have an element that is an object or a list".into()),
            Value::Null => Err("a set may not have an element that is null".into()),
            scalar => Ok(Element::value(scalar)),
        };
    }
    let Value::Object(map) = value else { return Err("a list with keys may have objects only".into()) };
    let default = |key: &str| schema.items().and_then(|items| items.field(key)?.schema().default.clone());
    let keys = schema.list_keys.iter();
    let keys: Map<String, Value> =
        keys.filter_map(|key| Some((key.to_string(), map.get(&**key).cloned().or_else(|| default(key))?))).collect();
    if keys.is_empty() {
        return Err(format!("an element has none of the key fields {:?}", schema.list_keys));
    }
    Ok(Element::key(keys))
}

/// The elements of a list with what tells them apart; `None` when some cannot be told.
pub(super) fn items<'v>(schema: &Schema, list: &'v [Value]) -> Option<Vec<(Element, &'v Value)>> {
    list.iter().map(|value| item(schema, value).ok().map(|element| (element, value))).collect()
}
