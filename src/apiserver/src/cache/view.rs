//! How a collection shows what the store holds: which fields can be selected and, of a custom resource, the schema of today.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use coracle_api::{catalogue::Resource, custom};
use serde_json::Value;

use super::fields::Fields;

/// How a collection shows its objects.
#[derive(Debug)]
pub struct View {
    /// What `fieldSelector` can name.
    pub fields: Fields,
    stored: Option<Arc<Resource>>,
    tag: Option<u64>,
}

impl View {
    /// Of a kind, by its qualified plural: as it is stored.
    pub fn of(kind: &str) -> Self {
        Self { fields: Fields::of(kind), stored: None, tag: None }
    }

    /// Of a custom resource, in the version that is stored, with what any of its versions lets select. Where a webhook converts, what is stored
    /// does not say what a version shows, and nothing is kept to select by.
    pub fn custom<'r>(stored: &Arc<Resource>, versions: impl Iterator<Item = &'r Arc<Resource>>) -> Self {
        let known = versions.filter_map(|version| version.definition.as_ref()).filter(|definition| definition.webhook.is_none());
        let mut paths: Vec<String> = known.flat_map(|definition| definition.selectable.iter().cloned()).collect();
        paths.sort_unstable();
        paths.dedup();
        let tag = stored.definition.as_ref().map(|definition| {
            let mut tag = DefaultHasher::new();
            (definition.tag, &paths).hash(&mut tag);
            tag.finish()
        });
        Self { fields: Fields::at(&paths), stored: Some(Arc::clone(stored)), tag }
    }

    /// Changes whenever objects are shown otherwise; `None` when they are shown as they are stored.
    pub fn tag(&self) -> Option<u64> {
        self.tag
    }

    /// Brings an object into today's form.
    pub fn settle(&self, object: &mut Value) {
        if let Some(stored) = &self.stored {
            custom::settle(stored, object);
        }
    }
}
