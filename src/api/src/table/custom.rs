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

/// Values that one step of a path may lead to.
const MAX_FOUND: usize = 1000;

/// Follows `.a.b[0]['c.d'][*].e[?(@.type=="Ready")].status` to the first value.
pub(crate) fn find<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = vec![root];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        let (step, after) = Step::read(rest)?;
        at = at.into_iter().flat_map(|value| step.follow(value)).take(MAX_FOUND).collect();
        rest = after;
    }
    at.first().copied()
}

enum Step<'p> {
    Name(String),
    Index(i64),
    All,
    /// Elements of which a path leads to a value that compares so.
    Where(&'p str, &'p str, Value),
}

impl<'p> Step<'p> {
    fn read(rest: &'p str) -> Option<(Self, &'p str)> {
        if let Some(filter) = rest.strip_prefix("[?(") {
            let (inside, after) = filter.split_once(")]")?;
            let sign = ["==", "!=", ">=", "<=", ">", "<"].into_iter().find(|sign| inside.contains(sign))?;
            let (path, value) = inside.split_once(sign)?;
            let value = value.trim();
            let text = value.trim_matches(['\'', '"']);
            let value = if text.len() < value.len() { text.into() } else { serde_json::from_str(value).unwrap_or_else(|_| value.into()) };
            return Some((Self::Where(path.trim().strip_prefix('@')?, sign, value), after));
        }
        if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']')?;
            let name = inside.trim_matches(['\'', '"']);
            let step = match inside {
                "*" => Self::All,
                _ if name.len() < inside.len() => Self::Name(name.to_owned()),
                index => Self::Index(index.parse().ok()?),
            };
            return Some((step, after));
        }
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
        let step = if key == "*" { Self::All } else { Self::Name(key) };
        Some((step, &name[end..]))
    }

    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Name(name), value) => value.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(list)) => {
                let at = if *index < 0 {
                    list.len().checked_sub(usize::try_from(-index).unwrap_or(usize::MAX))
                } else {
                    usize::try_from(*index).ok()
                };
                at.and_then(|at| list.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(list)) => list.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where(path, sign, wanted), Value::Array(list)) => {
                list.iter().filter(|element| find(element, path).is_some_and(|found| compares(found, sign, wanted))).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn compares(found: &Value, sign: &str, wanted: &Value) -> bool {
    let order = match (found, wanted) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    match (sign, order) {
        ("==", _) => found == wanted || order.is_some_and(|o| o.is_eq()),
        ("!=", _) => !(found == wanted || order.is_some_and(|o| o.is_eq())),
        (">=", Some(order)) => order.is_ge(),
        ("<=", Some(order)) => order.is_le(),
        (">", Some(order)) => order.is_gt(),
        ("<", Some(order)) => order.is_lt(),
        _ => false,
    }
}
