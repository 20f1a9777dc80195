//! From the cluster's objects to the table of records: plain functions, one object at a time.

use coracle_client::pod::Pod;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use crate::records::{self, Change, Endpoint, Port, Records};

/// What DNS knows of a Service; `slices` are its own.
pub fn service<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> records::Service {
    let mut found = records::Service::default();
    let Some(spec) = &service.spec else { return found };
    if spec.type_.as_deref() == Some("ExternalName") {
        found.external = spec.external_name.as_deref().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        return found;
    }
    let all = spec.cluster_ips.as_deref().unwrap_or_default().iter().chain(&spec.cluster_ip);
    if all.clone().any(|ip| ip == "None") {
        found.endpoints = endpoints(slices, spec.publish_not_ready_addresses == Some(true));
        return found;
    }
    found.ips = all.filter_map(|ip| ip.parse().ok()).collect::<BTreeSet<IpAddr>>().into_iter().collect();
    let ports = spec.ports.iter().flatten();
    found.ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect();
    found
}

/// Addresses that are to be found, each once under each of its names.
fn endpoints<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, all: bool) -> Vec<Endpoint> {
    let mut found: BTreeMap<(IpAddr, Option<String>), BTreeSet<Port>> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.address_type != "FQDN") {
        let ports = slice.ports.iter().flatten();
        let ports: Vec<Port> = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port?)).collect();
        for endpoint in slice.endpoints.iter().flatten() {
            // Nobody having said whether it is ready means that it is.
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if !ready && !all {
                continue;
            }
            let hostname = endpoint.hostname.clone().filter(|name| !name.is_empty());
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                found.entry((ip, hostname.clone())).or_default().extend(ports.iter().cloned());
            }
        }
    }
    found.into_iter().map(|((ip, hostname), ports)| Endpoint { ip, hostname, ports: ports.into_iter().collect() }).collect()
}

/// `None`: ports without a name are in no record.
fn port(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Port> {
    let name = name.filter(|name| !name.is_empty())?.to_owned();
    Some(Port { name, protocol: protocol.unwrap_or("TCP").to_ascii_lowercase(), number: u16::try_from(number).ok()? })
}

/// The addresses that are this pod's own: those of the node's network are not, and those of one that ended may be another's by now.
pub fn addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return BTreeSet::new() };
    if spec.host_network == Some(true) || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return BTreeSet::new();
    }
    let many = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    many.chain(&status.pod_ip).filter_map(|ip| ip.parse().ok()).collect()
}

/// Whose the address is, among the pods that have it: while one ends and another begins, the younger one's.
pub fn namespace<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    pods.max_by_key(|pod| &pod.metadata.creation_timestamp)?.metadata.namespace.clone()
}

/// What the resident was told, or is to be told.
#[derive(Debug, Default)]
pub struct Table {
    records: Records,
}

impl Table {
    /// The table as it is.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Takes what a Service is now; `None` when that is nothing new.
    pub fn service(&mut self, namespace: &str, name: &str, service: Option<records::Service>) -> Option<Change> {
        let news = self.records.service(namespace, name) != service.as_ref();
        self.step(news, || Change::Service { namespace: namespace.into(), name: name.into(), service })
    }

    /// Takes whether a namespace exists.
    pub fn namespace(&mut self, name: &str, exists: bool) -> Option<Change> {
        let news = self.records.namespaces.contains_key(name) != exists;
        self.step(news, || Change::Namespace { name: name.into(), exists })
    }

    /// Takes whose an address is.
    pub fn pod(&mut self, ip: IpAddr, namespace: Option<String>) -> Option<Change> {
        let news = self.records.pods.get(&ip) != namespace.as_ref();
        self.step(news, || Change::Pod { ip, namespace })
    }

    fn step(&mut self, news: bool, change: impl FnOnce() -> Change) -> Option<Change> {
        let change = news.then(change)?;
        self.records.apply(change.clone());
        Some(change)
    }
}

#[cfg(test)]
mod tests;
