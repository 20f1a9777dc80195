//! The same object under another group and version: what is stored once is shown in each.

use serde_json::Value;

use super::Resource;

/// Shows an object of `from` as one of `to`; both must have the same [`super::Storage`].
pub fn convert(from: &Resource, to: &Resource, mut object: Value) -> Value {
    if (&from.group, &from.version) != (&to.group, &to.version)
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert("apiVersion".into(), to.api_version().into());
    }
    object
}
