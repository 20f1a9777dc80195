//! The registry: every resource request that is not a stream to a node ends here, for every kind alike.

use std::{fmt, ops::Deref, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use coracle_api::catalogue::Catalogue;
use coracle_store::Store;
use http::Response;

use crate::{
    admission::Plugin,
    body::Body,
    cache::{Cache, OpenError},
    request::Context,
};

/// What the registry is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `10.43.0.0/16`; two of different families, comma separated, for dual stack.
    pub service_cidr: String,
    /// Ports that Services may take on nodes.
    pub node_ports: RangeInclusive<u16>,
}

/// The registry; clones share it. Reads inside the process go to the [`Cache`] that it derefs to.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    store: Arc<dyn Store>,
    catalogue: &'static Catalogue,
    admission: Vec<Arc<dyn Plugin>>,
    config: Config,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("cache", &self.inner.cache).finish_non_exhaustive()
    }
}

impl Deref for Registry {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.inner.cache
    }
}

impl Registry {
    /// Fills the cache from the store. `admission` makes the plugins, which may read the cache.
    pub async fn open(
        store: Arc<dyn Store>,
        catalogue: &'static Catalogue,
        admission: impl FnOnce(&Cache) -> Vec<Arc<dyn Plugin>>,
        config: Config,
    ) -> Result<Self, OpenError> {
        let cache = Cache::open(Arc::clone(&store)).await?;
        let admission = admission(&cache);
        Ok(Self { inner: Arc::new(Inner { cache, store, catalogue, admission, config }) })
    }

    /// Answers a resource request.
    pub async fn handle(&self, cx: &Context, body: Bytes) -> Response<Body> {
        let _ = (cx, body, &self.inner.store, &self.inner.catalogue, &self.inner.admission, &self.inner.config);
        todo!()
    }
}
