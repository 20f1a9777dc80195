//! Strategic merge patch: lists merge by the keys that the schema names, and directives say what plain JSON cannot.
//!
//! The format is that of upstream's "strategic-merge-patch.md": `$patch: replace|delete|merge`, `$retainKeys`,
//! `$setElementOrder/<list>` and `$deleteFromPrimitiveList/<list>`.

mod order;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Schema, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Applies `patch` to `object`, both of `schema`.
pub fn strategic(schema: &Schema, object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let patch = patch.as_object().ok_or_else(|| malformed("", "a strategic merge patch of an object is an object"))?;
    let Value::Object(object) = object else {
        return Err(PatchError::Inapplicable("the object is not an object".into()));
    };
    merge_object(Some(schema), object, patch, "")
}

fn merge_object(schema: Option<&Schema>, object: &mut Object, patch: &Object, path: &str) -> Result<(), PatchError> {
    match directive(patch, path)? {
        Some("replace") => {
            *object = patch.iter().filter(|(k, _)| *k != PATCH).map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        _ => {}
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        let keys = keys.as_array().ok_or_else(|| malformed(path, "$retainKeys is a list of names"))?;
        for name in patch.keys().filter(|k| !k.starts_with('$')) {
            if !keys.iter().any(|k| k == name.as_str()) && !patch[name].is_null() {
                return Err(malformed(path, &format!("$retainKeys lacks {name:?}, which the patch sets")));
            }
        }
        object.retain(|name, _| keys.iter().any(|k| k == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_PRIMITIVES) {
            let gone = value.as_array().ok_or_else(|| malformed(path, &format!("{name} is a list")))?;
            if let Some(Value::Array(have)) = object.get_mut(list) {
                let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
                have.retain(|item| !gone.contains(&item.to_string()));
            }
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let below = schema.and_then(|s| s.property(name)).map(|s| &**s);
        merge_member(below, object, patch, name, value, &join(path, name))?;
    }
    reorder_unpatched(schema, object, patch, path)
}

fn merge_member(
    schema: Option<&Schema>,
    object: &mut Object,
    siblings: &Object,
    name: &str,
    value: &Value,
    path: &str,
) -> Result<(), PatchError> {
    match (value, object.get_mut(name)) {
        (Value::Null, _) => {
            object.remove(name);
        }
        (Value::Object(patch), have) => match have {
            Some(Value::Object(have)) if !opaque(schema) => merge_object(schema, have, patch, path)?,
            Some(have) if opaque(schema) && have.is_object() => *have = value.clone(),
            _ => drop(match plain(value) {
                Some(value) => object.insert(name.into(), value),
                None => object.remove(name),
            }),
        },
        (Value::Array(patch), have) if schema.is_some_and(Schema::patch_merges) => {
            let schema = schema.filter(|s| s.kind == Type::List).ok_or_else(|| malformed(path, "a list is given where there is none"))?;
            let have = match have {
                Some(Value::Array(have)) => std::mem::take(have),
                _ => Vec::new(),
            };
            let wanted = match siblings.get(&format!("{ORDER}{name}")) {
                Some(order) => Some(order.as_array().ok_or_else(|| malformed(path, "$setElementOrder is a list"))?.as_slice()),
                None => None,
            };
            object.insert(name.into(), merge_list(schema, have, patch, wanted, path)?.into());
        }
        (_, _) => {
            object.insert(name.into(), value.clone());
        }
    }
    Ok(())
}

fn merge_list(schema: &Schema, have: Vec<Value>, patch: &[Value], wanted: Option<&[Value]>, path: &str) -> Result<Vec<Value>, PatchError> {
    let Some(key) = schema.patch_merge_key() else {
        let before = have.clone();
        let mut merged = have;
        let mut known: HashSet<String> = merged.iter().map(Value::to_string).collect();
        merged.extend(patch.iter().filter(|item| known.insert(item.to_string())).cloned());
        return Ok(order::arrange(merged, &before, wanted.unwrap_or(patch), |item| item.clone()));
    };
    if patch.iter().any(|item| item.get(PATCH).and_then(Value::as_str) == Some("replace")) {
        return Ok(patch.iter().filter(|item| item.get(PATCH).is_none()).cloned().collect());
    }
    let before = have.clone();
    // What is deleted leaves a hole: the places of the others stay as the index has them.
    let mut merged: Vec<Option<Value>> = have.into_iter().map(Some).collect();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, id) in merged.iter().enumerate().filter_map(|(place, item)| Some((place, item.as_ref()?.get(key)?))) {
        places.entry(id.to_string()).or_default().push(place);
    }
    for item in patch {
        let item = item.as_object().ok_or_else(|| malformed(path, "the elements of this list are objects"))?;
        let id = item.get(key).ok_or_else(|| malformed(path, &format!("an element has no {key:?}, the key that this list merges by")))?;
        let id = id.to_string();
        match (directive(item, path)?, places.get(&id).and_then(|places| places.first())) {
            (Some("delete"), _) => places.remove(&id).into_iter().flatten().for_each(|place| merged[place] = None),
            (_, Some(place)) => {
                if let Some(Value::Object(object)) = &mut merged[*place] {
                    merge_object(schema.items().map(|s| &**s), object, item, path)?;
                }
            }
            (_, None) => {
                let mut fresh = Object::new();
                merge_object(schema.items().map(|s| &**s), &mut fresh, item, path)?;
                places.entry(id).or_default().push(merged.len());
                merged.push(Some(fresh.into()));
            }
        }
    }
    let merged = merged.into_iter().flatten().collect();
    Ok(order::arrange(merged, &before, wanted.unwrap_or(patch), |item| item.get(key).cloned().unwrap_or_default()))
}

/// `$setElementOrder` may come for a list that the patch does not change otherwise.
fn reorder_unpatched(schema: Option<&Schema>, object: &mut Object, patch: &Object, path: &str) -> Result<(), PatchError> {
    for (directive, wanted) in patch {
        let Some(name) = directive.strip_prefix(ORDER) else { continue };
        let wanted = wanted.as_array().ok_or_else(|| malformed(path, &format!("{directive} is a list")))?;
        if patch.contains_key(name) {
            continue;
        }
        let Some(Value::Array(have)) = object.get_mut(name) else { continue };
        let key = schema.and_then(|s| s.property(name)).and_then(|s| s.patch_merge_key().map(str::to_owned));
        let before = std::mem::take(have);
        *have = order::arrange(before.clone(), &before, wanted, |item| match &key {
            Some(key) => item.get(key).cloned().unwrap_or_default(),
            None => item.clone(),
        });
    }
    Ok(())
}

/// What a patch says of a place where there is nothing to merge with: without nulls, and without what carries a directive, as it has no object.
fn plain(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(PATCH) => return None,
        Value::Object(map) => {
            let said = map.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            said.filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect::<Object>().into()
        }
        Value::Array(list) => list.iter().filter_map(plain).collect(),
        other => other.clone(),
    })
}

/// Objects that a patch replaces as a whole (`patchStrategy: replace`).
fn opaque(schema: Option<&Schema>) -> bool {
    schema.is_some_and(|s| s.patch_strategies().any(|strategy| strategy == "replace"))
}

fn directive<'a>(patch: &'a Object, path: &str) -> Result<Option<&'a str>, PatchError> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(word)) if matches!(word.as_str(), "replace" | "delete" | "merge") => Ok(Some(word)),
        Some(other) => Err(malformed(path, &format!("Unknown patch type: {other}"))),
    }
}

fn malformed(path: &str, what: &str) -> PatchError {
    PatchError::Malformed(if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests;
