//! OpenAPI v2 of several servers in one document: what an extension API server has of its own is taken out of its document and added to ours.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

/// What references begin with.
const DEFINITIONS: &str = "#/definitions/";

/// The paths of a document below a prefix, with the definitions that they need; nothing else of it.
pub fn confine(mut document: Value, prefix: &str) -> Value {
    let mut taken = |field: &str| document.get_mut(field).and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    let (mut paths, mut definitions) = (taken("paths"), taken("definitions"));
    paths.retain(|path, _| path.starts_with(prefix));
    let mut needed = BTreeSet::new();
    let mut open: Vec<String> = paths.values().flat_map(references).collect();
    while let Some(name) = open.pop() {
        if let Some(definition) = definitions.get(&name)
            && needed.insert(name)
        {
            open.extend(references(definition));
        }
    }
    definitions.retain(|name, _| needed.contains(name));
    let parts = [("paths", paths), ("definitions", definitions)];
    parts.into_iter().map(|(name, part)| (name.to_owned(), Value::Object(part))).collect::<Map<_, _>>().into()
}

/// A document with others: of a path the last one counts; a definition of the same name and another content gets a name of its own.
pub(super) fn all(mut document: Value, further: &[Value]) -> Value {
    further.iter().for_each(|other| add(&mut document, other));
    document
}

fn add(document: &mut Value, other: &Value) {
    let empty = Map::new();
    let part = |name: &str| other[name].as_object().unwrap_or(&empty);
    let Some(known) = document["definitions"].as_object_mut() else { return };
    let mut renamed = HashMap::new();
    for (name, definition) in part("definitions") {
        if known.get(name).is_some_and(|there| there != definition) {
            renamed.insert(name.as_str(), free(name, known, part("definitions")));
        }
    }
    let rename = |value: &Value| {
        let mut value = value.clone();
        follow(&mut value, &renamed);
        value
    };
    for (name, definition) in part("definitions") {
        let name = renamed.get(name.as_str()).unwrap_or(name);
        known.entry(name).or_insert_with(|| rename(definition));
    }
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.extend(part("paths").iter().map(|(path, item)| (path.clone(), rename(item))));
    }
}

/// `NAME_v2`, or the first number that nobody has.
fn free(name: &str, known: &Map<String, Value>, own: &Map<String, Value>) -> String {
    let candidates = (2_u32..).map(|number| format!("{name}_v{number}"));
    let mut free = candidates.filter(|candidate| !known.contains_key(candidate) && !own.contains_key(candidate));
    free.next().unwrap_or_else(|| name.to_owned())
}

/// The definitions that a value names.
fn references(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk(value, &mut |name| out.push(name.to_owned()));
    out
}

fn walk(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, each)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str().and_then(|text| text.strip_prefix(DEFINITIONS)) {
                    Some(definition) if name == "$ref" => each(definition),
                    _ => walk(field, each),
                }
            }
        }
        _ => {}
    }
}

/// Points references to renamed definitions at their new names.
fn follow(value: &mut Value, renamed: &HashMap<&str, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| follow(item, renamed)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let target = field.as_str().filter(|_| name == "$ref").and_then(|text| text.strip_prefix(DEFINITIONS));
                match target.and_then(|target| renamed.get(target)) {
                    Some(new) => *field = format!("{DEFINITIONS}{new}").into(),
                    None => follow(field, renamed),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn to(name: &str) -> Value {
        json!({"$ref": format!("#/definitions/{name}")})
    }

    #[test]
    fn what_a_prefix_needs() {
        let document = json!({
            "info": {},
            "paths": {"/apis/g/v1/things": {"get": {"schema": to("Thing")}}, "/apis/g/v1beta1/things": {"get": {"schema": to("Old")}}},
            "definitions": {"Thing": {"properties": {"self": to("Thing"), "meta": to("Meta"), "lost": to("Lost")}}, "Meta": {}, "Old": {}},
        });
        let own = confine(document, "/apis/g/v1/");
        assert_eq!(own["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/apis/g/v1/things"]);
        assert_eq!(own["definitions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Meta", "Thing"]);
        assert_eq!(confine(json!(null), "/"), json!({"paths": {}, "definitions": {}}));
    }

    #[test]
    fn definitions_of_one_name() {
        let ours = json!({"paths": {"/a": {}}, "definitions": {"Meta": {"type": "object"}, "Same": {}, "Meta_v2": {}}});
        let theirs = json!({
            "paths": {"/b": {"x": [to("Meta"), to("Same")]}},
            "definitions": {"Meta": {"type": "string"}, "Same": {}, "Thing": {"properties": {"$ref": to("Meta")}}},
        });
        let merged = all(ours, &[theirs]);
        assert_eq!(merged["paths"]["/b"]["x"], json!([to("Meta_v3"), to("Same")]));
        assert_eq!(merged["definitions"]["Meta"], json!({"type": "object"}));
        assert_eq!(merged["definitions"]["Meta_v3"], json!({"type": "string"}));
        assert_eq!(merged["definitions"]["Thing"]["properties"]["$ref"], to("Meta_v3"));
    }
}
