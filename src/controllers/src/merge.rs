//! The merge patch (RFC 7386) that takes one document to another, and its application.

use serde_json::{Map, Value};

/// The patch from `before` to `after`; `None` when they are equal. Both are objects, and `after` has no nulls: such a field cannot be said
/// in a merge patch, and Kubernetes treats it as absent.
pub fn diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new {
        match old.get(name) {
            None => drop(patch.insert(name.clone(), value.clone())),
            Some(was) => {
                if let Some(change) = diff(was, value) {
                    patch.insert(name.clone(), change);
                }
            }
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Applies a merge patch.
pub fn apply(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(fields) = document else { return };
    for (name, change) in patch {
        if change.is_null() {
            fields.remove(name);
        } else {
            apply(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3i32).prop_map(Value::from), "[ab]".prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    fn objects() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", documents(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_patch_takes_any_document_to_any_other(before in objects(), after in objects()) {
            let mut document = before.clone();
            match diff(&before, &after) {
                Some(patch) => apply(&mut document, &patch),
                None => prop_assert_eq!(&before, &after),
            }
            prop_assert_eq!(document, after);
        }
    }

    #[test]
    fn lists_are_replaced_and_lost_fields_are_null() {
        let patch = diff(&json!({"a": [1, 2], "b": {"c": 1, "d": 2}, "e": 1}), &json!({"a": [2], "b": {"c": 1}, "e": 1}));
        assert_eq!(patch, Some(json!({"a": [2], "b": {"d": null}})));
    }
}
