//! Formats in the schemas of a definition that nobody knows: they are kept, and no value is held to them.

use serde_json::Value;

use super::super::field::Field;
use crate::custom::checks::knows_format;

/// Places of a schema that hold one more, a list of them, or some by name.
const SINGLE: [&str; 4] = ["items", "additionalProperties", "additionalItems", "not"];
const SEVERAL: [&str; 4] = ["allOf", "anyOf", "oneOf", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];

/// Warns of each that was not there before.
pub(super) fn check(definition: &Field<'_>, old: Option<&Value>) {
    let of = |spec: &Value| -> Vec<String> {
        let versions = spec["versions"].as_array().into_iter().flatten();
        let mut found = Vec::new();
        versions.for_each(|version| unknown(&version["schema"]["openAPIV3Schema"], &mut found));
        found
    };
    let before = old.map(|old| of(&old["spec"])).unwrap_or_default();
    for format in of(&definition.value()["spec"]) {
        if !before.contains(&format) {
            definition.warn(format!("unrecognized format {format:?}"));
        }
    }
}

fn unknown(schema: &Value, found: &mut Vec<String>) {
    let Some(map) = schema.as_object() else { return };
    let format = map.get("format").and_then(Value::as_str).unwrap_or_default();
    if !format.is_empty() && !knows_format(map.get("type").and_then(Value::as_str).unwrap_or_default(), format) {
        found.push(format.to_owned());
    }
    SINGLE.iter().filter_map(|name| map.get(*name)).for_each(|inner| unknown(inner, found));
    SEVERAL.iter().filter_map(|name| map.get(*name)?.as_array()).flatten().for_each(|inner| unknown(inner, found));
    NAMED.iter().filter_map(|name| map.get(*name)?.as_object()).flatten().for_each(|(_, inner)| unknown(inner, found));
}
