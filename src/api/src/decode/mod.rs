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

fn bounded(body: &[u8]) -> Result<(), DecodeError> {
    match body.len() {
        size if size > MAX_BODY_BYTES => Err(DecodeError::TooLarge { size, limit: MAX_BODY_BYTES }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
