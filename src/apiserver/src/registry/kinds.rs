//! What is served, for plugins that look at an object in another version than the stored one.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use coracle_api::{
    catalogue::{self, Catalogue, Resource},
    status::Status,
};
use serde_json::Value;

use super::Inner;
use crate::admission::Kinds;

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("cache", &self.cache).finish_non_exhaustive()
    }
}

#[async_trait]
impl Kinds for Inner {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.now()
    }

    async fn convert(&self, to: &Arc<Resource>, object: Value) -> Result<Value, Status> {
        let catalogue = self.catalogue.now();
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let served = catalogue.kind(group, version, text("kind"));
        let Some(from) = served.or_else(|| Some(catalogue.stored(to))).filter(|from| from.api_version() != to.api_version()) else {
            return Ok(object);
        };
        let from = Arc::clone(from);
        Ok(catalogue::convert(&from, to, object))
    }
}
