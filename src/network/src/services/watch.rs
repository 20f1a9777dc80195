//! Follows Services and EndpointSlices, one Service at a time. A wake-up carries its key and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_client::{Informer, Informers, Key};
use coracle_ebpf_common::Frontend;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    desired::{self, Desired},
    ledger::Owner,
};
use crate::kernel::tables::TableError;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";
/// A map that is full may have room again when other Services went.
const RETRY: Duration = Duration::from_secs(5);

/// Where frontends go: the dataplane's maps.
pub trait Sink: Send + Sync + 'static {
    /// These, and no others, are the owner's frontends from now on.
    fn set(&self, owner: &Owner, wanted: BTreeMap<Frontend, Desired>) -> Result<(), TableError>;
    /// All Services have been told: what nobody claims may go.
    fn complete(&self) -> Result<(), TableError>;
}

/// Keys of Services that must be looked at, each once.
#[derive(Debug, Default)]
struct Wakeups {
    keys: Mutex<BTreeSet<Key>>,
    ring: Notify,
}

impl Wakeups {
    fn push(&self, key: Key) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.ring.notify_one();
    }

    fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until `shutdown`. Until both lists are known nothing is written, so what the maps hold from before stays in force.
pub async fn run(informers: Informers, node_name: String, sink: Arc<dyn Sink>, shutdown: CancellationToken) {
    let services = informers.of::<Service>();
    let slices = informers.of::<EndpointSlice>();
    slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    let wakeups = Arc::new(Wakeups::default());
    let wake = Arc::clone(&wakeups);
    services.observe(move |old, new| {
        if let Some(service) = new.or(old) {
            wake.push(Key::of(service.as_ref()));
        }
    });
    let wake = Arc::clone(&wakeups);
    slices.observe(move |old, new| {
        for slice in [old, new].into_iter().flatten() {
            if let Some(key) = service_of(slice) {
                wake.push(key);
            }
        }
    });
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = async { services.synced().await; slices.synced().await } => {}
    }
    let mut failed = settle(&wakeups.take(), &services, &slices, &node_name, sink.as_ref());
    if let Err(error) = sink.complete() {
        tracing::error!(error = &error as &dyn std::error::Error, "services of an earlier run stay in the dataplane");
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wakeups.ring.notified() => {}
            () = tokio::time::sleep(RETRY), if !failed.is_empty() => {}
        }
        let mut keys = wakeups.take();
        keys.append(&mut failed);
        failed = settle(&keys, &services, &slices, &node_name, sink.as_ref());
    }
}

/// Brings the frontends of these Services up to date; returns those that failed.
fn settle(
    keys: &BTreeSet<Key>,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    node_name: &str,
    sink: &dyn Sink,
) -> BTreeSet<Key> {
    let mut failed = BTreeSet::new();
    for key in keys {
        let of = slices.lister().indexed(BY_SERVICE, &key.to_string());
        let wanted = services.lister().get(key).map(|service| desired::frontends(&service, of.iter().map(AsRef::as_ref), node_name));
        if let Err(error) = sink.set(&Owner::Service(key.clone()), wanted.unwrap_or_default()) {
            tracing::error!(service = %key, error = &error as &dyn std::error::Error, "the dataplane does not have the Service as it should be");
            failed.insert(key.clone());
        }
    }
    failed
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, name.as_str()))
}
