//! EndpointSlice mirroring: Endpoints that people write for Services without a selector become EndpointSlices. Wakes, gathers and plans.

pub mod plan;
mod subsets;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    endpointslice::{
        BY_SERVICE,
        plan::{MANAGED_BY_LABEL, SERVICE_LABEL},
        service_key,
    },
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Serves Endpoints.
pub struct Mirrors {
    endpoints: Lister<Endpoints>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
}

impl Mirrors {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (endpoints, services, slices) = (informers.of::<Endpoints>(), informers.of::<Service>(), informers.of::<EndpointSlice>());
        slices.index(BY_SERVICE, |slice| service_key(slice).iter().map(Key::to_string).collect());
        let lister = services.lister();
        wakeups.watch(&endpoints, move |old, new| {
            let keys: Vec<Key> = old.or(new).map(Key::of).into_iter().collect();
            // Those of a Service with a selector are our own work, and change often.
            let ours = |key: &Key| lister.get(key).is_some_and(|service| selects(&service));
            keys.into_iter().filter(|key| !ours(key)).collect()
        });
        wakeups.watch(&services, |old, new| {
            let mirrored = |service: Option<&Service>| service.map(|service| !selects(service));
            if mirrored(old) == mirrored(new) { Vec::new() } else { old.or(new).map(Key::of).into_iter().collect() }
        });
        wakeups.watch(&slices, |old, new| {
            let ours = [old, new].into_iter().flatten().filter(|slice| is_ours(slice));
            let mut keys: Vec<Key> = ours.filter_map(service_key).collect();
            keys.dedup();
            keys
        });
        Self { endpoints: endpoints.lister(), services: services.lister(), slices: slices.lister() }
    }
}

fn selects(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.selector.is_some())
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.is_some_and(|l| l.get(MANAGED_BY_LABEL).is_some_and(|by| by == plan::MANAGED_BY) && l.contains_key(SERVICE_LABEL))
}

#[async_trait]
impl Controller for Mirrors {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let mut slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        slices.retain(|slice| is_ours(slice) && slice.metadata.deletion_timestamp.is_none());
        let service = self.services.get(key).filter(|service| !selects(service));
        let endpoints = self.endpoints.get(key).filter(|endpoints| service.is_some() && plan::is_mirrored(endpoints));
        Ok(endpoints.map_or_else(|| plan::none(&slices), |endpoints| plan::plan(&endpoints, &slices)))
    }

    fn keys(&self) -> Vec<Key> {
        let slices = self.slices.list().into_iter().filter(|slice| is_ours(slice)).filter_map(|slice| service_key(&slice));
        let mut keys: Vec<Key> = self.endpoints.list().iter().map(|e| Key::of(&**e)).chain(slices).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}
