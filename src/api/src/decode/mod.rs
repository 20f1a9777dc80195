//! Request bodies to values: JSON and YAML, with bounds on size and depth.

mod json;
mod path;
mod yaml;

use serde_json::Value;

pub use json::json;
pub(crate) use path::Path;
pub use yaml::yaml;

/// Largest body in bytes: what upstream takes (3 MiB) and what etcd can still hold after defaulting.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting in levels: a JSON schema of a CRD stays below 60; each level costs stack.
pub const MAX_DEPTH: usize = 100;
/// Objects in a body, those that aliases make counted as often as they stand. Each takes up to a KiB while it is worked on, and the densest bodies of
/// real clients, definitions of a megabyte, have some ten thousand.
pub const MAX_OBJECTS: usize = 100_000;
/// Duplicate or unknown fields that are told; more would only blow up the answer.
pub const MAX_REPORTED_FIELDS: usize = 100;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The body.
    pub value: Value,
    /// Fields that came twice; the last one counts.
    pub duplicates: Vec<Duplicate>,
}

/// A field that came twice. Told in the words of upstream's decoder, which clients look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// In JSON.
    Path(String),
    /// In YAML.
    Line {
        /// Of the second one, from 1.
        line: usize,
        /// Its name.
        key: String,
    },
}

impl std::fmt::Display for Duplicate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Duplicate::Path(path) => write!(f, "duplicate field \"{path}\""),
            Duplicate::Line { line, key } => write!(f, "line {line}: key \"{key}\" already set in map"),
        }
    }
}

/// Why a body is no object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Larger than the server takes.
    #[error("the body has {size} bytes, more than {limit}")]
    TooLarge {
        /// Bytes of the body.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Nested too deep.
    #[error("the body nests deeper than {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// Too many objects.
    #[error("the body has more than {limit} objects")]
    TooMany {
        /// Objects allowed.
        limit: usize,
    },
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Json(String),
    /// Not YAML.
    #[error("the body is not YAML: {0}")]
    Yaml(String),
    /// Not protobuf.
    #[error("the body is not protobuf of this kind: {0}")]
    Protobuf(String),
    /// A value of another type than the schema has.
    #[error("{path}: {found} where {expected} is expected")]
    WrongType {
        /// Where.
        path: String,
        /// What the schema wants.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

/// Bytes of a value as JSON, about.
pub(crate) fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|value| bytes_of(value) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + bytes_of(value) + 4).sum::<usize>() + 2,
        _ => 4,
    }
}

fn bounded(body: &[u8]) -> Result<(), DecodeError> {
    match body.len() {
        size if size > MAX_BODY_BYTES => Err(DecodeError::TooLarge { size, limit: MAX_BODY_BYTES }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
