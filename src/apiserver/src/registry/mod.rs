//! The registry: every resource request that is not a stream to a node ends here, for every kind alike.

mod apply;
mod binding;
pub(crate) mod body;
mod bootstrap;
pub(crate) mod chance;
mod connect;
mod convert;
mod create;
mod delete;
mod eviction;
mod expiry;
pub(crate) mod manage;
pub(crate) mod options;
mod patch;
pub(crate) mod read;
mod scale;
mod select;
mod target;
#[cfg(test)]
mod tests;
mod update;
mod watch;
mod watches;
mod write;

use std::{
    fmt,
    ops::{Deref, RangeInclusive},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use coracle_api::{
    catalogue::{Catalogue, Resource},
    status::Status,
    validation,
};
use coracle_store::Store;
use http::Response;
use jiff::SignedDuration;
use tokio_util::task::AbortOnDropHandle;

use convert::Converter;
pub(crate) use target::Target;

use crate::{
    admission::Plugin,
    allocator::{Holding, Services, range::RangeError, records::Records},
    body::Body,
    cache::{
        self, Cache,
        collection::{Bounds, Collection},
    },
    catalogue::Live,
    definitions,
    metrics::Metrics,
    output::{self, format::Format},
    request::Context,
    strategy::Kind,
};

/// Kinds whose objects bring others into a write, for as long as they please.
const WEBHOOKS: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// Why the registry did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No objects.
    #[error("the registry cannot read its objects")]
    Cache(#[from] cache::OpenError),
    /// No addresses for Services.
    #[error("the range of Service addresses is not valid")]
    Range(#[from] RangeError),
}

/// What the registry is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `10.43.0.0/16`; two of different families, comma separated, for dual stack.
    pub service_cidr: String,
    /// Ports that Services may take on nodes.
    pub node_ports: RangeInclusive<u16>,
    /// How much of the past watches and continued lists can reach.
    pub history: Bounds,
}

/// The registry; clones share it. Reads inside the process go to the [`Cache`] that it derefs to.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cache: Cache,
    store: Arc<dyn Store>,
    pub(crate) catalogue: Live,
    metrics: Metrics,
    admission: Vec<Arc<dyn Plugin>>,
    converter: Arc<Converter>,
    services: Services,
    addresses: Records,
    watches: Arc<watches::Watches>,
    packed: Arc<output::packed::Packed>,
    /// The configurations of admission webhooks.
    webhooks: [Arc<Collection>; 2],
    _addresses: AbortOnDropHandle<()>,
    _expiry: AbortOnDropHandle<()>,
    definitions: OnceLock<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("cache", &self.inner.cache).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("cache", &self.cache).finish_non_exhaustive()
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
        admission: impl FnOnce(&Cache) -> Vec<Arc<dyn Plugin>>,
        config: Config,
    ) -> Result<Self, OpenError> {
        let services = Services::new(&config.service_cidr, config.node_ports)?;
        let cache = Cache::open(Arc::clone(&store), config.history).await?;
        for service in cache.list("", "services", "").objects {
            services.restore(&Holding::of(&service.value()));
        }
        let addresses = Records::new(cache.clone(), Arc::clone(&store), services.clone());
        addresses.repair(SignedDuration::ZERO).await;
        let keeper = AbortOnDropHandle::new(tokio::spawn(addresses.clone().run()));
        let admission = admission(&cache);
        let expiry = AbortOnDropHandle::new(tokio::spawn(expiry::run(cache.clone(), Arc::clone(&store))));
        let catalogue = Live::default();
        let definitions = definitions::Book::open(&cache, &catalogue);
        let converter = Arc::new(Converter::new(&cache));
        let metrics = Metrics::new(admission.iter().map(|plugin| plugin.name()));
        let webhooks = WEBHOOKS.map(|kind| cache.collection(&cache::stored("admissionregistration.k8s.io", kind)));
        let inner = Inner {
            webhooks,
            packed: Arc::default(),
            cache,
            store,
            catalogue,
            metrics,
            admission,
            converter,
            services,
            addresses,
            watches: Arc::default(),
            _addresses: keeper,
            _expiry: expiry,
            definitions: OnceLock::new(),
        };
        let registry = Self { inner: Arc::new(inner) };
        let follow = tokio::spawn(definitions::run(Arc::downgrade(&registry.inner), definitions));
        registry.inner.definitions.get_or_init(|| AbortOnDropHandle::new(follow));
        Ok(registry)
    }

    /// The cache, to be kept by others.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// What is served, now and later.
    pub(crate) fn live(&self) -> &Live {
        &self.inner.catalogue
    }

    /// What is counted of requests.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// What is served now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.inner.catalogue.now()
    }

    /// Tells of every change of what is served, after this call.
    pub fn catalogue_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.catalogue.changes()
    }

    /// Answers a resource request.
    pub async fn handle(&self, cx: &Context, body: Bytes) -> Response<Body> {
        match self.inner.answer(cx, &body).await {
            Ok(response) => response,
            Err(status) => output::status(&status),
        }
    }
}

impl Inner {
    async fn answer(&self, cx: &Context, body: &Bytes) -> Result<Response<Body>, Status> {
        let target = Target::find(&self.catalogue.now(), &self.cache, &cx.info)?;
        let defined = target.resource.definition.as_ref().and_then(|d| d.deprecation.clone());
        if let Some(warning) = validation::warnings::deprecation(&target.resource).map(str::to_owned).or(defined) {
            cx.warnings.extend([warning]);
            let resource = &target.resource;
            self.metrics.callers.deprecated(&resource.group, &resource.version, &resource.plural, &target.subresource);
        }
        let verb = cx.info.verb.as_str();
        let format = Format::negotiate_objects(&cx.headers, cx.param("pretty"), verb, target.resource.custom)?;
        let format = &format;
        if !target.subresource.is_empty() {
            let served = target.resource.subresource(&target.subresource).ok_or_else(|| target.unserved())?;
            if !served.verbs.iter().any(|v| v == verb) {
                return Err(target::not_allowed());
            }
            return self.subresource(&target, cx, body, format).await;
        }
        // A HEAD is a get for authorization, and nothing here.
        if !target.resource.serves(verb) || cx.method == http::Method::HEAD {
            return Err(target::not_allowed());
        }
        let _coming = self.announces(&target, verb).then(|| self.store.announce());
        let whole_cluster = target.resource.namespaced && target.namespace.is_empty();
        match verb {
            "get" => read::get(self, &target, cx, format).await,
            "list" => read::list(self, &target, cx, format).await,
            "watch" => watch::watch(self, &target, cx, format).await,
            "create" | "deletecollection" if whole_cluster => Err(target::not_allowed()),
            "create" if target.is("", "bindings") => binding::bind(self, &target, cx, body, format).await,
            "create" if target.name.is_empty() => create::create(self, &target, cx, body, format).await,
            "update" | "patch" | "delete" if target.name.is_empty() => Err(target::not_allowed()),
            "update" => update::update(self, &target, cx, body, format).await,
            "patch" => patch::patch(self, &target, cx, body, format).await,
            "delete" => delete::delete(self, &target, cx, body, format).await,
            "deletecollection" => delete::delete_collection(self, &target, cx, body, format).await,
            _ => Err(target::not_allowed()),
        }
    }

    /// Whether a request will soon be a write whose sync others can share: not what webhooks have a say in, which takes as long as they please.
    fn announces(&self, target: &Target, verb: &str) -> bool {
        let Resource { group, plural, custom, .. } = &*target.stored;
        let kind = Kind { group, plural, custom: *custom, has_status: false };
        matches!(verb, "create" | "update" | "patch" | "delete") && !kind.is_lazy() && self.webhooks.iter().all(|hooks| hooks.is_empty())
    }

    async fn subresource(&self, target: &Target, cx: &Context, body: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
        match (target.subresource.as_str(), cx.info.verb.as_str()) {
            ("scale", "get") => return scale::get(self, target, format).await,
            ("scale", _) => return scale::set(self, target, cx, body, format).await,
            ("binding", "create") => return binding::bind(self, target, cx, body, format).await,
            ("eviction", "create") => return eviction::evict(self, target, cx, body, format).await,
            _ => {}
        }
        match cx.info.verb.as_str() {
            "get" => read::get(self, target, cx, format).await,
            "update" | "patch" | "delete" if target.name.is_empty() => Err(target::not_allowed()),
            "update" => update::update(self, target, cx, body, format).await,
            "patch" => patch::patch(self, target, cx, body, format).await,
            _ => Err(target::not_allowed()),
        }
    }
}
