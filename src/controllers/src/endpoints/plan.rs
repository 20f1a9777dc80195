//! The Endpoints of a Service: addresses by the ports that they share, ready and not ready, at most a thousand.

use coracle_client::pod::Pod;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use crate::{
    backends::{self, HEADLESS_LABEL, Port, addresses, hostname, publishes_not_ready},
    merge,
    plan::{Create, Delete, Patch, Plan, Target, document},
    pods::is_ready,
};

/// Addresses of one object; upstream's bound. Beyond it, EndpointSlices are the way.
const MOST_ADDRESSES: usize = 1_000;
/// Annotation of an object that lacks addresses for this reason.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Label of objects that a controller keeps.
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// Ourselves in that label.
const MANAGED_BY: &str = "endpoint-controller";
/// Annotation of objects that are no endpoints but locks of old leader elections.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Service, if there is one.
    pub service: Option<&'a Service>,
    /// The pods that it selects and that have an address.
    pub pods: &'a [Arc<Pod>],
    /// The object of the Service's name.
    pub endpoints: Option<&'a Endpoints>,
}

/// The change that makes the object say where the pods are; `Plan::default()` when it does.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = seen.service else {
        // Its Service is gone. Locks have no Service, and those kept by hand have another keeper.
        let orphan = seen.endpoints.filter(|e| is_ours(e) && e.metadata.deletion_timestamp.is_none());
        plan.deletes.extend(orphan.map(|e| Delete::one(Target::of(e))));
        return plan;
    };
    if backends::selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (subsets, truncated) = subsets(service, seen.pods);
    let mut labels = backends::labels(service);
    if !labels.contains_key(HEADLESS_LABEL) {
        labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    }
    match seen.endpoints {
        None => {
            let metadata = ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: truncated.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
                ..ObjectMeta::default()
            };
            plan.creates.push(Create::of(&Endpoints { metadata, subsets: Some(subsets).filter(|s| !s.is_empty()) }));
        }
        Some(endpoints) => {
            let mut body = json!({});
            if endpoints.subsets.as_deref().unwrap_or_default() != subsets {
                body["subsets"] = document(&subsets);
            }
            let before = endpoints.metadata.labels.clone().unwrap_or_default();
            if let Some(changed) = merge::diff(&document(&before), &document(&labels)) {
                body["metadata"]["labels"] = changed;
            }
            let marked = endpoints.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY));
            if marked.is_some() != truncated {
                body["metadata"]["annotations"] = json!({OVER_CAPACITY: truncated.then_some("truncated")});
            }
            if body != json!({}) {
                plan.patches.push(Patch::merge(Target::of(endpoints), body));
            }
        }
    }
    plan
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let marked = |labels: &BTreeMap<String, String>| labels.contains_key(MANAGED_BY_LABEL) || labels.contains_key(HEADLESS_LABEL);
    let lock = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    endpoints.metadata.labels.as_ref().is_some_and(marked) && !lock
}

/// An address by what orders it: ip, then uid of its pod.
type Place = (String, String);

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let publish = publishes_not_ready(service);
    let mut places: BTreeMap<Place, (bool, EndpointAddress, Vec<Port>)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| publish || pod.metadata.deletion_timestamp.is_none()) {
        let of_family = |ip: &&str| family.as_deref().is_none_or(|f| (f == "IPv6") == ip.contains(':'));
        let Some(ip) = addresses(pod).into_iter().find(of_family) else { continue };
        let ports = backends::ports(service, pod);
        if ports.is_empty() && service.spec.as_ref().is_some_and(|s| s.ports.iter().flatten().next().is_some()) {
            continue;
        }
        let place = (ip.to_owned(), pod.metadata.uid.clone().unwrap_or_default());
        places.insert(place, (publish || is_ready(pod), address(service, pod, ip), ports));
    }
    let truncated = places.len() > MOST_ADDRESSES;
    if truncated {
        // Those that serve stay.
        let mut ranked: Vec<(bool, Place)> = places.iter().map(|(place, (ready, ..))| (!ready, place.clone())).collect();
        ranked.sort();
        for (_, place) in &ranked[MOST_ADDRESSES..] {
            places.remove(place);
        }
    }
    (grouped(&places), truncated)
}

fn address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}

/// Ports that are open at the same addresses share a subset.
fn grouped(places: &BTreeMap<Place, (bool, EndpointAddress, Vec<Port>)>) -> Vec<EndpointSubset> {
    let mut open: BTreeMap<Option<&Port>, BTreeSet<&Place>> = BTreeMap::new();
    for (place, (_, _, ports)) in places {
        if ports.is_empty() {
            open.entry(None).or_default().insert(place);
        }
        for port in ports {
            open.entry(Some(port)).or_default().insert(place);
        }
    }
    let mut groups: BTreeMap<BTreeSet<&Place>, Vec<&Port>> = BTreeMap::new();
    for (port, at) in open {
        groups.entry(at).or_default().extend(port);
    }
    let subset = |(at, ports): (BTreeSet<&Place>, Vec<&Port>)| {
        let of = |ready: bool| {
            let list: Vec<_> = at.iter().filter_map(|p| places.get(*p)).filter(|(r, ..)| *r == ready).map(|(_, a, _)| a.clone()).collect();
            Some(list).filter(|l| !l.is_empty())
        };
        let ports: Vec<_> = ports.into_iter().map(endpoint_port).collect();
        EndpointSubset { addresses: of(true), not_ready_addresses: of(false), ports: Some(ports).filter(|p| !p.is_empty()) }
    };
    groups.into_iter().map(subset).collect()
}

fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|n| !n.is_empty()),
        protocol: Some(port.protocol.clone()),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests;
