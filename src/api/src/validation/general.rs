//! What the schema alone can tell: required fields and allowed values. For kinds without rules of their own.

use super::field::Field;
use crate::schema::{Schema, Type};

/// Checks a value against its schema.
pub(super) fn check(schema: &Schema, field: &Field<'_>) {
    if !schema.enumeration.is_empty() && field.exists() && !field.is_empty() && !schema.enumeration.contains(field.value()) {
        let allowed: Vec<&str> = schema.enumeration.iter().filter_map(|v| v.as_str()).collect();
        field.not_supported(&allowed);
    }
    match schema.kind {
        Type::Object => {
            for property in schema.properties() {
                let member = field.at(&property.name);
                if property.required && member.is_empty() && matches!(property.schema().kind, Type::String | Type::List) {
                    member.required("");
                }
                if member.exists() && &*property.name != "metadata" {
                    check(property.schema(), &member);
                }
            }
        }
        Type::List => {
            let Some(items) = schema.items() else { return };
            field.each(|_, item| check(items, &item));
        }
        Type::Map => {
            let Some(values) = schema.items() else { return };
            field.each_key(|_, value| check(values, &value));
        }
        _ => {}
    }
}
