//! Lines of custom resources: each column is a simple JSON path.

use serde_json::Value;

use super::{Seen, text};
use crate::catalogue::Column;

/// Name first, then what the columns' paths find.
pub(super) fn cells(columns: &[Column], object: &Seen<'_>) -> Vec<Value> {
    columns.iter().map(|column| if column.json_path.is_empty() { object.name() } else { cell(column, object) }).collect()
}

fn cell(column: &Column, object: &Seen<'_>) -> Value {
    let Some(value) = find(object.object, &column.json_path) else { return Value::Null };
    match (column.kind.as_str(), value) {
        ("date", Value::String(time)) => text::since(time, object.now).unwrap_or_else(|| "<invalid>".into()).into(),
        ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        _ => Value::Null,
    }
}

/// Follows `.a.b[0]['c.d']`.
pub(crate) fn find<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = root;
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']')?;
            let name = inside.trim_matches(['\'', '"']);
            at = if name.len() < inside.len() { at.get(name)? } else { at.get(inside.parse::<usize>().ok()?)? };
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let mut key = String::new();
            let mut end = name.len();
            let mut escaped = false;
            for (i, c) in name.char_indices() {
                match c {
                    '\\' if !escaped => escaped = true,
                    '.' | '[' if !escaped => {
                        end = i;
                        break;
                    }
                    c => {
                        key.push(c);
                        escaped = false;
                    }
                }
            }
            at = at.get(&key)?;
            rest = &name[end..];
        }
    }
    Some(at)
}
