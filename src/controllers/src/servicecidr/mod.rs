//! ServiceCIDR: wakes, gathers and plans.

pub mod plan;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};

use crate::{
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Serves ServiceCIDRs.
#[derive(Debug)]
pub struct ServiceCidrs {
    cidrs: Lister<ServiceCIDR>,
    addresses: Lister<IPAddress>,
}

impl ServiceCidrs {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let (cidrs, addresses) = (informers.of::<ServiceCIDR>(), informers.of::<IPAddress>());
        let lister = cidrs.lister();
        wakeups.watch(&cidrs, move |old, new| {
            // One that comes may free another to go; one that goes concerns nobody but those that already wait.
            let waiting = lister.list().into_iter().filter(|cidr| cidr.metadata.deletion_timestamp.is_some()).map(|cidr| Key::of(&*cidr));
            let mut keys: Vec<Key> = old.or(new).map(Key::of).into_iter().chain(waiting).collect();
            keys.sort();
            keys.dedup();
            keys
        });
        let lister = cidrs.lister();
        wakeups.watch(&addresses, move |old, new| {
            if old.is_some() && new.is_some() {
                return Vec::new();
            }
            lister.list().iter().filter(|cidr| cidr.metadata.deletion_timestamp.is_some()).map(|cidr| Key::of(&**cidr)).collect()
        });
        Self { cidrs: cidrs.lister(), addresses: addresses.lister() }
    }
}

#[async_trait]
impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "servicecidr"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(cidr) = self.cidrs.get(key) else { return Ok(Plan::default()) };
        // What holds a range matters only to one that wants to go.
        let leaving = cidr.metadata.deletion_timestamp.is_some();
        let (all, addresses) = if leaving { (self.cidrs.list(), self.addresses.list()) } else { Default::default() };
        Ok(plan::plan(&plan::Observed { cidr: &cidr, all: &all, addresses: &addresses, now }))
    }

    fn keys(&self) -> Vec<Key> {
        self.cidrs.list().iter().map(|cidr| Key::of(&**cidr)).collect()
    }
}
