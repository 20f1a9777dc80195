//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch, on values.

pub mod strategic;

use serde_json::Value;

pub use strategic::strategic;

/// Operations in one JSON patch, as upstream bounds them.
pub const MAX_OPERATIONS: usize = 10_000;

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
    // Operations that nobody knows can be read, but not done.
    let refuse = if operations.iter().all(Value::is_object) { PatchError::Inapplicable } else { PatchError::Malformed };
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|e| refuse(e.to_string()))?;
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &patch).map_err(|e| PatchError::Inapplicable(e.to_string()))?;
    *object = patched;
    Ok(())
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
    fn merge_patch_removes_by_null() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut object, &json!({"a": {"b": null, "d": 3}, "l": [3]})).expect("applies");
        assert_eq!(object, json!({"a": {"c": 2, "d": 3}, "l": [3]}));
    }
}
