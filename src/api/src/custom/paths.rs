//! Simple JSON paths: names behind dots, nothing else.

use serde_json::Value;

/// Why a path is none.
pub(crate) fn simple(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('.') {
        return Err("must be a simple json path starting with .");
    }
    // A filter in brackets may have spaces.
    let mut depth = 0u32;
    let spaced = path.chars().any(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_whitespace()
    });
    if path.len() < 2 || spaced || path.contains('{') {
        return Err("must be a simple json path with names behind dots");
    }
    Ok(())
}

/// The schema that a path of names leads to; both `.a.b` and `.a['b.c']`.
pub(crate) fn schema_at<'s>(schema: &'s Value, path: &str) -> Option<&'s Value> {
    names(path)?.iter().try_fold(schema, |schema, name| {
        let inside = schema["properties"].get(name).or_else(|| schema.get("additionalProperties").filter(|s| s.is_object()));
        inside.filter(|s| s.is_object())
    })
}

/// The names of a path; `None` when it is none.
pub(crate) fn names(path: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("['") {
            let (name, after) = inner.split_once("']")?;
            out.push(name.to_owned());
            rest = after;
        } else {
            let inner = rest.strip_prefix('.')?;
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            let name = &inner[..end];
            if name.is_empty() || name.contains(char::is_whitespace) {
                return None;
            }
            out.push(name.to_owned());
            rest = &inner[end..];
        }
    }
    (!out.is_empty()).then_some(out)
}
