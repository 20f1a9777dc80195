//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch, on values.

pub mod strategic;

use serde_json::Value;

pub use strategic::strategic;

use crate::decode::{MAX_DEPTH, bytes_of};

/// Operations in one JSON patch, as upstream bounds them.
pub const MAX_OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one JSON patch may make together. Upstream's bound.
const MAX_COPIED_BYTES: usize = 3 << 20;

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// the patch itself cannot be read (400)
    #[error("{0}")]
    Malformed(String),
    /// the patch asks for more operations than the bound (413)
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// the patch can be read, but not applied to this object (422)
    #[error("the server rejected our request due to an error in our request: {0}")]
    Inapplicable(String),
}

/// Applies a JSON patch: all of it, or nothing.
pub fn json(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().ok_or_else(|| PatchError::Malformed("a JSON patch is an array of operations".into()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooMany(operations.len()));
    }
    if !operations.iter().all(Value::is_object) {
        return Err(PatchError::Malformed("an operation of a JSON patch is an object".into()));
    }
    let (mut patched, mut copied) = (object.clone(), 0);
    for operation in operations {
        let operation = if counts_from_the_end(operation) { from_the_start(&patched, operation) } else { operation.clone() };
        bounded(&patched, &operation, &mut copied)?;
        // Operations that nobody knows can be read, but not done.
        let operation: json_patch::Patch =
            serde_json::from_value(Value::Array(vec![operation])).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
        json_patch::patch(&mut patched, &operation).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
    }
    *object = patched;
    Ok(())
}

/// A few operations could copy an object into itself until it fills all memory, or lies deeper than any stack.
fn bounded(object: &Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let place = |name: &str| operation[name].as_str();
    let Some(path) = place("path") else { return Ok(()) };
    let put = match operation["op"].as_str() {
        Some("add" | "replace") => Some(&operation["value"]),
        Some("move" | "copy") => place("from").and_then(|from| object.pointer(from)),
        _ => None,
    };
    let Some(put) = put else { return Ok(()) };
    if operation["op"] == "copy" {
        *copied += bytes_of(put);
        if *copied > MAX_COPIED_BYTES {
            return Err(PatchError::Inapplicable(format!("its copies make more than {MAX_COPIED_BYTES} bytes")));
        }
    }
    if path.matches('/').count() + depth(put) > MAX_DEPTH {
        return Err(PatchError::Inapplicable(format!("it makes the object deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

/// Levels of a value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Places of an operation.
const PLACES: [&str; 2] = ["path", "from"];

/// Whether a place in an operation may be counted from the end of a list, which RFC 6902 does not know and upstream does: `/a/-1`.
fn counts_from_the_end(operation: &Value) -> bool {
    let negative = |segment: &str| segment.strip_prefix('-').is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    PLACES.iter().filter_map(|place| operation[*place].as_str()).any(|path| path.split('/').any(negative))
}

/// The operation with places as RFC 6902 counts them.
fn from_the_start(object: &Value, operation: &Value) -> Value {
    let mut out = operation.clone();
    for place in PLACES {
        let Some(path) = operation[place].as_str() else { continue };
        // What is added after the last element is one more.
        let more = usize::from(operation["op"] == "add" && place == "path");
        let (mut counted, segments) = (String::new(), path.split('/').skip(1).collect::<Vec<_>>());
        for (i, segment) in segments.iter().enumerate() {
            let length = object.pointer(&counted).and_then(Value::as_array).map(Vec::len);
            let last = i + 1 == segments.len();
            let back = segment.strip_prefix('-').and_then(|digits| digits.parse::<usize>().ok());
            let index = length.zip(back).and_then(|(length, back)| (length + if last { more } else { 0 }).checked_sub(back));
            counted.push('/');
            match index {
                Some(index) => counted.push_str(&index.to_string()),
                None => counted.push_str(segment),
            }
        }
        out[place] = counted.into();
    }
    out
}

/// Applies a JSON merge patch: null removes, objects merge, all else replaces.
pub fn merge(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch of an object is an object".into()));
    }
    json_patch::merge(object, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patch_is_all_or_nothing() {
        let mut object = json!({"a": [1], "b": 2});
        json(&mut object, &json!([{"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/b"}])).expect("applies");
        assert_eq!(object, json!({"a": [1, 3]}));
        let failed = json(&mut object, &json!([{"op": "remove", "path": "/a"}, {"op": "test", "path": "/x", "value": 1}]));
        assert!(matches!(failed, Err(PatchError::Inapplicable(_))));
        assert_eq!(object, json!({"a": [1, 3]}));
    }

    #[test]
    fn lists_are_counted_from_both_ends() {
        let check = |operation: Value, expected: Value| {
            let mut object = json!({"l": [1, {"m": [2]}, 3]});
            let applied = json(&mut object, &json!([operation]));
            assert_eq!(applied.map_or(Value::Null, |()| object["l"].clone()), expected, "{operation}");
        };
        check(json!({"op": "remove", "path": "/l/-1"}), json!([1, {"m": [2]}]));
        check(json!({"op": "add", "path": "/l/-1", "value": 4}), json!([1, {"m": [2]}, 3, 4]));
        check(json!({"op": "replace", "path": "/l/-2/m/-1", "value": 5}), json!([1, {"m": [5]}, 3]));
        check(json!({"op": "remove", "path": "/l/-4"}), Value::Null);
        check(json!({"op": "remove", "path": "/-1"}), Value::Null);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        let mut object = json!({});
        assert!(matches!(json(&mut object, &json!({})), Err(PatchError::Malformed(_))));
        assert!(matches!(json(&mut object, &json!([{"op": "explode"}])), Err(PatchError::Inapplicable(_))));
        assert!(matches!(json(&mut object, &json!([1])), Err(PatchError::Malformed(_))));
        assert!(matches!(merge(&mut object, &json!([])), Err(PatchError::Malformed(_))));
        let many = Value::Array(vec![json!({"op": "add", "path": "/a", "value": 1}); MAX_OPERATIONS + 1]);
        assert_eq!(json(&mut object, &many), Err(PatchError::TooMany(MAX_OPERATIONS + 1)));
    }

    #[test]
    fn copies_neither_grow_nor_deepen_without_end() {
        let doubling: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/x{i}")})).collect();
        let mut object = json!({"a": {"b": "some text"}});
        assert!(matches!(json(&mut object, &doubling.into()), Err(PatchError::Inapplicable(_))));
        let deepening = vec![json!({"op": "copy", "from": "/a", "path": "/a/x"}); MAX_DEPTH];
        assert!(matches!(json(&mut object, &deepening.into()), Err(PatchError::Inapplicable(_))));
        let moved = json!([{"op": "add", "path": "/c", "value": {"d": 1}}, {"op": "move", "from": "/a", "path": "/c/a"}]);
        json(&mut object, &moved).expect("applies");
        assert_eq!(object, json!({"c": {"d": 1, "a": {"b": "some text"}}}));
    }

    #[test]
    fn merge_patch_removes_by_null() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut object, &json!({"a": {"b": null, "d": 3}, "l": [3]})).expect("applies");
        assert_eq!(object, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }
}
