//! How a collection shows what the store holds: which fields can be selected and, of a custom resource, the schema of today.

use std::sync::Arc;

use coracle_api::{catalogue::Resource, custom};
use serde_json::Value;

use super::fields::Fields;

/// How a collection shows its objects.
#[derive(Debug)]
pub struct View {
    /// What `fieldSelector` can name.
    pub fields: Fields,
    stored: Option<Arc<Resource>>,
}

impl View {
    /// Of a kind, by its qualified plural: as it is stored.
    pub fn of(kind: &str) -> Self {
        Self { fields: Fields::of(kind), stored: None }
    }

    /// Of a custom resource, in the version that is stored.
    pub fn custom(stored: &Arc<Resource>) -> Self {
        let paths = stored.definition.as_ref().map(|d| d.selectable.as_slice()).unwrap_or_default();
        Self { fields: Fields::at(paths), stored: Some(Arc::clone(stored)) }
    }

    /// Changes whenever objects are shown otherwise; `None` when they are shown as they are stored.
    pub fn tag(&self) -> Option<u64> {
        Some(self.stored.as_ref()?.definition.as_ref()?.tag)
    }

    /// Brings an object into today's form.
    pub fn settle(&self, object: &mut Value) {
        if let Some(stored) = &self.stored {
            custom::settle(stored, object);
        }
    }
}
