//! Endpoints, the older sibling of EndpointSlice: wakes, gathers and plans, per Service.

pub mod plan;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};

use crate::{
    backends::{self, has_address, selects, watch_pods},
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Serves Services with a selector.
#[derive(Debug)]
pub struct EndpointsOfServices {
    services: Lister<Service>,
    endpoints: Lister<Endpoints>,
    pods: Lister<Pod>,
}

impl EndpointsOfServices {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (services, endpoints, pods) = (informers.of::<Service>(), informers.of::<Endpoints>(), informers.of::<Pod>());
        wakeups.watch(&services, |old, new| old.or(new).map(Key::of).into_iter().collect());
        wakeups.watch(&endpoints, |old, new| old.or(new).map(Key::of).into_iter().collect());
        watch_pods(wakeups, &services, &pods);
        Self { services: services.lister(), endpoints: endpoints.lister(), pods: pods.lister() }
    }
}

#[async_trait]
impl Controller for EndpointsOfServices {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let (service, endpoints) = (self.services.get(key), self.endpoints.get(key));
        let mut pods = Vec::new();
        if let Some(selector) = service.as_deref().and_then(backends::selector) {
            pods = self.pods.namespace(&key.namespace);
            pods.retain(|pod| selects(selector, pod) && has_address(pod));
        }
        Ok(plan::plan(&plan::Observed { service: service.as_deref(), pods: &pods, endpoints: endpoints.as_deref() }))
    }

    fn keys(&self) -> Vec<Key> {
        self.services.list().iter().map(|s| Key::of(&**s)).collect()
    }
}
