//! Who keeps the keys that seal values: the key file itself, or a key management service that wraps them for the file.

use std::fmt;

use async_trait::async_trait;

/// A key was not wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
#[error("{wrapper} did not answer for a key: {why}")]
pub struct WrapError {
    /// The wrapper's name.
    pub wrapper: String,
    /// Its word.
    pub why: String,
}

/// Wraps keys for the key file. It is asked when the store opens and when keys are rotated, never per value.
#[async_trait]
pub trait KeyWrapper: Send + Sync + fmt::Debug {
    /// Stands in the key file beside the keys that it has wrapped, and stays the same.
    fn name(&self) -> &str;
    /// The form of a key that may lie on the disk.
    async fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, WrapError>;
    /// The key again.
    async fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, WrapError>;
}

/// No service: the key lies in the file as it is, and the file's mode keeps it.
#[derive(Clone, Copy, Debug)]
pub struct InFile;

#[async_trait]
impl KeyWrapper for InFile {
    fn name(&self) -> &str {
        "file"
    }

    async fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(key.to_vec())
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(wrapped.to_vec())
    }
}
