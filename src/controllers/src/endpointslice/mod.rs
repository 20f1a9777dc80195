//! EndpointSlice: wakes, gathers and plans, per Service.

pub mod plan;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    backends::{self, has_address, selects, watch_pods},
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Index of slices by their Service, `namespace/name`.
pub const BY_SERVICE: &str = "slices by service";

/// Serves Services with a selector.
#[derive(Debug)]
pub struct EndpointSlices {
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
}

impl EndpointSlices {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
        let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
        slices.index(BY_SERVICE, |slice| service_key(slice).iter().map(Key::to_string).collect());
        wakeups.watch(&services, |old, new| old.or(new).map(Key::of).into_iter().collect());
        wakeups.watch(&slices, |old, new| {
            let mut keys: Vec<Key> = [old, new].into_iter().flatten().filter_map(service_key).collect();
            keys.dedup();
            keys
        });
        watch_pods(wakeups, &services, &pods);
        let lister = services.lister();
        wakeups.watch(&nodes, move |old, new| {
            let zone = |node: Option<&Node>| node.and_then(plan::zone).map(str::to_owned);
            // A node that comes with its zone comes before its pods.
            if old.is_none() || zone(old) == zone(new) { Vec::new() } else { lister.list().iter().map(|s| Key::of(&**s)).collect() }
        });
        Self { services: services.lister(), slices: slices.lister(), pods: pods.lister(), nodes: nodes.lister() }
    }
}

#[async_trait]
impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(service) = self.services.get(key) else { return Ok(Plan::default()) };
        let Some(selector) = backends::selector(&service) else { return Ok(Plan::default()) };
        let mut pods = self.pods.namespace(&key.namespace);
        pods.retain(|pod| selects(selector, pod) && has_address(pod));
        let mut slices = self.slices.indexed(BY_SERVICE, &key.to_string());
        slices.retain(|slice| plan::is_ours(slice));
        let mut zones: HashMap<&str, String> = HashMap::new();
        for node in pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()) {
            if !zones.contains_key(node)
                && let Some(zone) = self.nodes.get(&Key::cluster(node)).as_deref().and_then(plan::zone)
            {
                zones.insert(node, zone.to_owned());
            }
        }
        Ok(plan::plan(&plan::Observed { service: &service, pods: &pods, slices: &slices, zone: &|node| zones.get(node).cloned() }))
    }

    fn keys(&self) -> Vec<Key> {
        self.services.list().iter().map(|s| Key::of(&**s)).collect()
    }
}

/// The Service of a slice, by its label.
pub fn service_key(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(plan::SERVICE_LABEL)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, Arc::<str>::from(name.as_str())))
}
