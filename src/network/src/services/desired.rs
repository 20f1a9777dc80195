//! What the maps should say of one Service, from its object and its EndpointSlices. Pure.
//!
//! Which endpoints answer follows KEP-1669: the ready ones, or, when none is, those that still serve while they end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use coracle_ebpf_common::{ANY, Backend, Frontend, TCP, UDP};
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{HostPort, kernel::tables::address};

/// Services with this label are somebody else's to serve.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when nothing is said.
const AFFINITY_SECONDS: u32 = 10_800;
/// Backends of one frontend beyond this are left out, the highest addresses first: the look-up is by index, its list finite.
pub const MAX_BACKENDS_OF_ONE: usize = 16_384;

/// What a frontend should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Who answers.
    pub backends: BTreeSet<Backend>,
    /// How long a client stays with its backend; zero without session affinity.
    pub affinity_seconds: u32,
}

/// The frontends of a Service.
pub fn frontends<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node_name: &str,
) -> BTreeMap<Frontend, Desired> {
    let mut wanted = BTreeMap::new();
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else { return wanted };
    if service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY_LABEL)) {
        return wanted;
    }
    let affinity_seconds = affinity_seconds(spec);
    let inside = addresses(spec.cluster_ips.as_deref().unwrap_or_default().iter().chain(&spec.cluster_ip));
    let outside = addresses(spec.external_ips.iter().flatten().chain(balanced(service)));
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Ok(number)) = (protocol(port.protocol.as_deref()), u16::try_from(port.port)) else { continue };
        let only_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let mut put = |address, number: u16, local: bool| {
            let backends = backends(port, slices.clone(), local.then_some(node_name));
            let frontend = Frontend { address, port: number.to_be(), protocol, pad: 0 };
            wanted.insert(frontend, Desired { backends, affinity_seconds });
        };
        for ip in &inside {
            put(address(*ip), number, only_local(&spec.internal_traffic_policy));
        }
        for ip in &outside {
            put(address(*ip), number, only_local(&spec.external_traffic_policy));
        }
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        if let Some(number) = node_port {
            put(ANY, number, only_local(&spec.external_traffic_policy));
        }
    }
    wanted
}

/// The frontends of a pod's host ports. SCTP has none here.
pub fn host_ports(ports: &[HostPort], pod: IpAddr) -> BTreeMap<Frontend, Desired> {
    let one = |port: &HostPort| {
        let host = if port.host_ip.is_unspecified() { ANY } else { address(port.host_ip) };
        let frontend = Frontend { address: host, port: port.host_port.to_be(), protocol: protocol(Some(&port.protocol))?, pad: 0 };
        let backend = Backend { address: address(pod), port: port.container_port.to_be(), flags: 0 };
        Some((frontend, Desired { backends: BTreeSet::from([backend]), affinity_seconds: 0 }))
    };
    ports.iter().filter_map(one).collect()
}

/// TCP and UDP by their numbers; without a word it is TCP.
pub fn protocol(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("TCP") => Some(TCP),
        Some("UDP") => Some(UDP),
        Some(_) => None,
    }
}

fn affinity_seconds(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    config.and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0).unwrap_or(AFFINITY_SECONDS)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<IpAddr> {
    // `None` of a headless Service is no address either. IPv6 waits for its programs.
    texts.filter_map(|text| text.parse().ok()).filter(IpAddr::is_ipv4).collect()
}

fn balanced(service: &Service) -> impl Iterator<Item = &String> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter(|one| one.ip_mode.as_deref() != Some("Proxy")).filter_map(|one| one.ip.as_ref())
}

fn backends<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice> + Clone, only_on: Option<&str>) -> BTreeSet<Backend> {
    let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    let ending =
        |endpoint: &Endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.serving.unwrap_or(false) && c.terminating.unwrap_or(false));
    let found = select(port, slices.clone(), only_on, ready);
    if found.is_empty() { select(port, slices, only_on, ending) } else { found }
}

fn select<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    only_on: Option<&str>,
    fit: impl Fn(&Endpoint) -> bool,
) -> BTreeSet<Backend> {
    let mut found = BTreeSet::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let named = slice.ports.iter().flatten().filter(|of| {
            of.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(of.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        for number in named.filter_map(|of| u16::try_from(of.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                if !fit(endpoint) || only_on.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                    continue;
                }
                // Only the first address means anything.
                if let Some(Ok(ip)) = endpoint.addresses.first().map(|text| text.parse::<IpAddr>()) {
                    found.insert(Backend { address: address(ip), port: number.to_be(), flags: 0 });
                }
            }
        }
    }
    while found.len() > MAX_BACKENDS_OF_ONE {
        found.pop_last();
    }
    found
}

#[cfg(test)]
mod tests;
