//! Aggregation: versions of groups that other servers answer for (kube-aggregator). APIServices say which, and are made for all that is served here.
//!
//! A cluster without extension API servers pays for one look at an empty table.

mod check;
mod connect;
mod discovery;
pub(crate) mod forward;
mod identity;
mod locate;
mod order;
pub(crate) mod register;
mod remote;
mod run;
mod service;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use coracle_api::catalogue::Catalogue;
use coracle_pki::{
    authority::Authority,
    renewal::{RenewalError, Renewing},
};
use rustls::crypto::CryptoProvider;
use serde_json::Value;

use crate::objects::Objects;
use connect::Dialer;
pub(crate) use remote::Remote;
pub(crate) use run::run;
use service::{ApiService, GROUP, PLURAL};

/// Who asks extension API servers for others; `extension-apiserver-authentication` tells them to believe this name.
pub(crate) const FRONT_PROXY: &str = "system:auth-proxy";

/// Who answers for what.
#[derive(Debug)]
pub(crate) struct Aggregation {
    dialer: Dialer,
    table: ArcSwap<Table>,
    /// Another one after a document of an extension API server has changed.
    documents: AtomicU64,
}

/// The APIServices as they are now.
#[derive(Debug, Default)]
struct Table {
    services: Vec<Arc<ApiService>>,
    remotes: Vec<Arc<Remote>>,
    /// All priorities are those that the catalogue is sorted by, and nobody else serves anything.
    plain: bool,
}

impl Table {
    /// Of these; servers that are known stay who they are.
    fn of(services: Vec<Arc<ApiService>>, objects: &dyn Objects, before: &Self, dialer: &Dialer) -> Self {
        let remote = |service: &Arc<ApiService>| {
            // The core group is always served here.
            let reference = service.remote.clone().filter(|_| !service.group.is_empty())?;
            let known = before.remotes.iter().find(|remote| remote.is(service)).cloned();
            Some(known.unwrap_or_else(|| Arc::new(Remote::new(service, reference, dialer, objects))))
        };
        let remotes: Vec<Arc<Remote>> = services.iter().filter_map(remote).collect();
        let usual = |service: &Arc<ApiService>| {
            let priorities = (service.group_priority, service.version_priority);
            order::builtin(&service.group, &service.version).unwrap_or(order::DEFINED) == priorities
        };
        let plain = remotes.is_empty() && services.iter().all(usual);
        Self { services, remotes, plain }
    }
}

impl Aggregation {
    /// With the APIServices that are stored.
    pub fn open(authority: &Arc<Authority>, provider: &Arc<CryptoProvider>, objects: &dyn Objects) -> Result<Self, RenewalError> {
        let identity = Arc::new(Renewing::front_proxy(Arc::clone(authority), FRONT_PROXY)?);
        let dialer = Dialer { identity, provider: Arc::clone(provider) };
        let services = objects.list(GROUP, PLURAL, "").iter().map(|service| Arc::new(ApiService::read(service))).collect();
        let table = ArcSwap::from_pointee(Table::of(services, objects, &Table::default(), &dialer));
        Ok(Self { dialer, table, documents: AtomicU64::new(0) })
    }

    fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    fn put(&self, table: Arc<Table>) {
        let before = self.table.swap(table);
        let now = self.table.load();
        let same = before.remotes.len() == now.remotes.len() && before.remotes.iter().zip(&now.remotes).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.documents_changed();
        }
    }

    fn documents_changed(&self) {
        self.documents.fetch_add(1, Ordering::AcqRel);
    }

    /// The server that answers for a version of a group, if it is not this one.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let table = self.table.load();
        table.remotes.iter().find(|remote| remote.group == group && remote.version == version).cloned()
    }

    /// All APIServices by name, and whether each is there.
    pub fn availability(&self) -> Vec<(String, bool)> {
        self.table
            .load()
            .services
            .iter()
            .map(|service| (format!("{}.{}", service.version, service.group), service.is_available()))
            .collect()
    }

    /// `/apis`: APIGroupList; `None` where the catalogue's own is right.
    pub fn groups(&self, catalogue: &Catalogue) -> Option<Value> {
        let table = self.table.load();
        (!table.plain).then(|| discovery::groups(catalogue, &table.services))
    }

    /// `/apis/GROUP`: APIGroup; `None` where the catalogue's own is right.
    pub fn group(&self, catalogue: &Catalogue, group: &str) -> Option<Value> {
        let table = self.table.load();
        if table.plain { None } else { discovery::group(catalogue, &table.services, group) }
    }

    /// `/apis` at once; `None` where the catalogue's own is right.
    pub fn aggregated(&self, catalogue: &Catalogue) -> Option<Value> {
        let table = self.table();
        let elsewhere = |group: &str, version: &str| {
            let state = self.remote(group, version)?.state();
            Some(discovery::version(group, version, &state.resources, state.fresh))
        };
        (!table.plain).then(|| discovery::aggregated(catalogue, &table.services, &elsewhere))
    }

    /// Grows when a document of an extension API server is another one.
    pub fn documents_revision(&self) -> u64 {
        self.documents.load(Ordering::Acquire)
    }

    /// What extension API servers have of OpenAPI v2, each as JSON.
    pub fn openapi_v2(&self) -> Vec<Bytes> {
        let table = self.table.load();
        table.remotes.iter().filter_map(|remote| remote.state().v2.as_ref().map(|v2| v2.content.clone())).collect()
    }

    /// Where extension API servers have their OpenAPI v3 documents: `apis/GROUP/VERSION` and the URL, `None` for one that has none.
    pub fn openapi_v3(&self) -> Vec<(String, Option<String>)> {
        let table = self.table.load();
        let entry = |remote: &Arc<Remote>| {
            let url = remote.state().v3.as_ref().map(|v3| v3.content.clone());
            (format!("apis/{}/{}", remote.group, remote.version), url)
        };
        table.remotes.iter().map(entry).collect()
    }

    /// Paths that others answer for.
    pub fn paths(&self) -> Vec<String> {
        let table = self.table.load();
        table.remotes.iter().flat_map(|remote| [format!("/apis/{}", remote.group), remote.root()]).collect()
    }
}
