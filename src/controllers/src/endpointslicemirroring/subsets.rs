//! The subsets of Endpoints in one form: each address once per state, beside all others that serve on the same ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, Endpoints},
    discovery::v1::{Endpoint, EndpointConditions},
};

use crate::{backends::Port, endpointslice::plan::Family};

/// Endpoints by their family and ports, each group in order of address.
pub type Groups = BTreeMap<(Family, Vec<Port>), Vec<Endpoint>>;

/// Whether an address is ready on each port; `None` is for subsets that name none.
type Ports = BTreeMap<Option<Port>, bool>;

/// The groups, and how many addresses are none.
pub fn groups(endpoints: &Endpoints) -> (Groups, usize) {
    // Per address, who is behind it and on which port: whether it is ready there. Not being ready in one subset outweighs being ready in another.
    let mut ready: BTreeMap<(IpAddr, String), (EndpointAddress, Ports)> = BTreeMap::new();
    let mut invalid = 0;
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: BTreeSet<Option<Port>> = subset.ports.iter().flatten().map(|port| Some(self::port(port))).collect();
        if ports.is_empty() {
            ports.insert(None);
        }
        let lists = [(&subset.addresses, true), (&subset.not_ready_addresses, false)];
        for (address, is_ready) in lists.iter().flat_map(|(list, ready)| list.iter().flatten().map(move |address| (address, *ready))) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            let who = address.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
            let entry = ready.entry((ip, who)).or_insert_with(|| (address.clone(), Ports::new()));
            for port in &ports {
                entry.1.entry(port.clone()).and_modify(|was| *was &= is_ready).or_insert(is_ready);
            }
        }
    }
    let mut groups = Groups::new();
    for ((ip, _), (address, ports)) in ready {
        for state in [true, false] {
            let on: Vec<Option<Port>> = ports.iter().filter(|(_, ready)| **ready == state).map(|(port, _)| port.clone()).collect();
            if !on.is_empty() {
                let ports = on.into_iter().flatten().collect();
                groups.entry((Family::of_ip(ip), ports)).or_default().push(endpoint(ip, &address, state));
            }
        }
    }
    (groups, invalid)
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(ip: IpAddr, address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
