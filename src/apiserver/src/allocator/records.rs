//! IPAddress objects: one for every cluster address of a Service, so that others see who has it; and the ServiceCIDRs that people add.
//!
//! The record is written before its Service and lies before it in the log; what a crash or a person leaves behind is mended at the start and
//! with every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use coracle_api::status::Status;
use coracle_store::{Durability, Expect, Store, WriteError};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Holding, Services};
use crate::{
    cache::{
        Cache, PREFIX,
        object::{self, Action, Object},
    },
    strategy::meta,
    uuid,
};

const GROUP: &str = "networking.k8s.io";
/// A record is written before its Service: one that is younger may be of a write that is under way.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Ourselves as the keeper of addresses; upstream's name.
const KEEPER: &str = "ipallocator.k8s.io";

/// Keeps the records; clones share what they keep.
#[derive(Clone)]
pub struct Records {
    cache: Cache,
    store: Arc<dyn Store>,
    services: Services,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// Whose an address is: `namespace/name` of a Service.
fn parent(record: &Value) -> Option<String> {
    let parent = &record["spec"]["parentRef"];
    let services = parent["resource"] == "services" && parent["group"].as_str().unwrap_or_default().is_empty();
    services.then(|| format!("{}/{}", parent["namespace"].as_str().unwrap_or_default(), parent["name"].as_str().unwrap_or_default()))
}

fn is_ours(record: &Value) -> bool {
    record["metadata"]["labels"][MANAGED_BY] == KEEPER
}

impl Records {
    /// Over the cache, and the store that it is fed by.
    pub fn new(cache: Cache, store: Arc<dyn Store>, services: Services) -> Self {
        Self { cache, store, services }
    }

    /// Records that a Service has these addresses. Refused when another record says otherwise.
    pub async fn write(&self, service: &Value, addresses: &[IpAddr]) -> Result<(), Status> {
        let (namespace, name) = (meta::text(service, "namespace"), meta::text(service, "name"));
        for (at, address) in addresses.iter().enumerate() {
            match self.write_one(namespace, name, *address).await {
                Ok(true) => {}
                Ok(false) => {
                    self.remove(namespace, name, &addresses[..at]).await;
                    return Err(Status::internal(format!(
                        "Internal error occurred: IPAddress {address} is there, and is not of this Service"
                    )));
                }
                Err(error) => {
                    self.remove(namespace, name, &addresses[..at]).await;
                    return Err(Status::internal(format!("Internal error occurred: IPAddress {address} was not written: {error}")));
                }
            }
        }
        Ok(())
    }

    /// False when another has the address.
    async fn write_one(&self, namespace: &str, name: &str, address: IpAddr) -> Result<bool, WriteError> {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let record = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {
                "name": address.to_string(), "uid": uuid::random(), "creationTimestamp": meta::time(Timestamp::now()),
                "labels": {FAMILY: family, MANAGED_BY: KEEPER},
            },
            "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
        });
        let Some(value) = object::encode(&record, None) else { return Ok(false) };
        match self.store.put(&key(address), value, Expect::Absent, Durability::Lazy).await {
            Ok(revision) => {
                self.cache.wait(revision).await;
                Ok(true)
            }
            Err(WriteError::Conflict { .. }) => {
                self.cache.catch_up().await;
                Ok(self.record(address).is_some_and(|held| parent(&held.value()) == Some(format!("{namespace}/{name}"))))
            }
            Err(error) => Err(error),
        }
    }

    fn record(&self, address: IpAddr) -> Option<Arc<Object>> {
        self.cache.get(GROUP, "ipaddresses", "", &address.to_string())
    }

    /// Takes back the records of addresses that a Service has no more.
    pub async fn remove(&self, namespace: &str, name: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let held = self.record(*address).map(|held| (held.value(), held.revision()));
            let Some((record, revision)) = held else { continue };
            if !is_ours(&record) || parent(&record) != Some(format!("{namespace}/{name}")) {
                continue;
            }
            match self.store.delete(&key(*address), Expect::Revision(revision)).await {
                Ok(revision) => self.cache.wait(revision).await,
                Err(error) => tracing::warn!(%address, %error, "the record of an address was not removed"),
            }
        }
    }

    /// Follows Services, records and ServiceCIDRs for ever.
    pub async fn run(self) {
        loop {
            // Subscribed before the look: what changes in between is seen again.
            let mut services = self.cache.subscribe("", "services");
            let mut records = self.cache.subscribe(GROUP, "ipaddresses");
            let mut cidrs = self.cache.subscribe(GROUP, "servicecidrs");
            self.offer();
            self.repair(SETTLED).await;
            // A reader that falls behind starts anew.
            loop {
                tokio::select! {
                    changes = services.next() => {
                        let Ok(changes) = changes else { break };
                        for change in changes {
                            let Some(old) = &change.previous else { continue };
                            let now = self.cache.get("", "services", old.namespace(), old.name()).map(|now| Holding::of(&now.value()));
                            let left = Holding::of(&old.value()).without(&now.unwrap_or_default());
                            self.remove(old.namespace(), old.name(), &left.addresses).await;
                        }
                    }
                    changes = records.next() => {
                        let Ok(changes) = changes else { break };
                        for change in changes {
                            self.recorded(&change.object, change.action == Action::Deleted).await;
                        }
                    }
                    changes = cidrs.next() => {
                        if changes.is_err() { break }
                        self.offer();
                    }
                }
            }
        }
    }

    /// A record has come, changed or gone. What is ours was taken before it was written, and is released with its Service.
    async fn recorded(&self, record: &Object, gone: bool) {
        let Ok(address) = record.name().parse::<IpAddr>() else { return };
        let by_hand = !is_ours(&record.value());
        match (gone, by_hand) {
            (false, true) => self.services.mark(address),
            (false, false) => {}
            (true, _) => match self.holder(address) {
                Some((namespace, service)) => drop(self.write_one(&namespace, &service, address).await),
                None if by_hand => self.services.release(&Holding { addresses: vec![address], ports: Vec::new() }),
                None => {}
            },
        }
    }

    /// The Service that has an address.
    fn holder(&self, address: IpAddr) -> Option<(String, String)> {
        let services = self.cache.list("", "services", "").objects;
        let holder = services.iter().find(|service| Holding::of(&service.value()).addresses.contains(&address))?;
        Some((holder.namespace().to_owned(), holder.name().to_owned()))
    }

    /// Offers the networks of the ServiceCIDRs.
    fn offer(&self) {
        let mut networks: BTreeMap<IpNet, bool> = BTreeMap::new();
        for cidr in self.cache.list(GROUP, "servicecidrs", "").objects {
            let cidr = cidr.value();
            for network in cidr["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok()) {
                *networks.entry(network).or_default() |= is_ready(&cidr);
            }
        }
        let records = self.cache.list(GROUP, "ipaddresses", "").objects;
        let held = self.cache.list("", "services", "").objects.into_iter().flat_map(|service| Holding::of(&service.value()).addresses);
        let by_hand = records.iter().filter(|record| !is_ours(&record.value())).filter_map(|record| record.name().parse().ok());
        let taken: Vec<IpAddr> = by_hand.chain(held).collect();
        self.services.offer(&networks.into_iter().collect::<Vec<_>>(), taken);
    }

    /// Every address of a Service has its record, and no record of ours that is this old is without its Service.
    pub async fn repair(&self, age: SignedDuration) {
        let born_before = Timestamp::now().saturating_sub(age).unwrap_or(Timestamp::MIN);
        let mut wanted: BTreeSet<(IpAddr, String)> = BTreeSet::new();
        for service in self.cache.list("", "services", "").objects {
            for address in Holding::of(&service.value()).addresses {
                wanted.insert((address, service.key().to_owned()));
                if self.record(address).is_none()
                    && let Err(error) = self.write_one(service.namespace(), service.name(), address).await
                {
                    tracing::warn!(%address, %error, "the record of an address was not written");
                }
            }
        }
        for record in self.cache.list(GROUP, "ipaddresses", "").objects {
            let (value, Ok(address)) = (record.value(), record.name().parse::<IpAddr>()) else { continue };
            let Some(of) = parent(&value).filter(|_| is_ours(&value)) else { continue };
            if meta::text(&value, "creationTimestamp").parse::<Timestamp>().is_ok_and(|born| born > born_before) {
                continue;
            }
            let (namespace, name) = of.split_once('/').unwrap_or_default();
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let there = self.cache.get("", "services", &namespace, &name).map(|service| Holding::of(&service.value()));
            if !wanted.contains(&(address, of)) && !there.unwrap_or_default().addresses.contains(&address) {
                self.remove(&namespace, &name, &[address]).await;
            }
        }
    }
}

fn key(address: IpAddr) -> String {
    format!("{PREFIX}ipaddresses.{GROUP}/{address}")
}

/// Whether new addresses may be taken of it: one that nobody has judged yet is good.
fn is_ready(cidr: &Value) -> bool {
    let mut conditions = cidr["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready").is_none_or(|condition| condition["status"] == "True");
    ready && !meta::is_deleting(cidr)
}
