//! EndpointSlices of a Service: every address of its pods once, in few slices, with as few changed slices as can be.

use coracle_client::pod::Pod;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use crate::{
    backends::{self, Port, addresses, hostname, publishes_not_ready},
    merge,
    owner::controller_ref,
    plan::{Create, Delete, Patch, Plan, Target, document},
    pods::is_ready,
};

/// Label with the name of the Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label with the keeper of the slice.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Ourselves in that label; upstream's name, as clients and later upstream controllers know it.
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// Label of nodes with their zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Endpoints of one slice: what a change of one pod makes every node receive again.
const SLICE_ENDPOINTS: usize = 100;

/// What the runner saw.
pub struct Observed<'a> {
    /// The Service; it has a selector.
    pub service: &'a Service,
    /// The pods that it selects and that have an address.
    pub pods: &'a [Arc<Pod>],
    /// The slices that we keep for it.
    pub slices: &'a [Arc<EndpointSlice>],
    /// The zone of a node by its name.
    pub zone: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("service", self.service)
            .field("pods", &self.pods.len())
            .field("slices", &self.slices)
            .finish_non_exhaustive()
    }
}

/// Whether the slice is ours to keep.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// The node's zone.
pub fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE_LABEL).map(String::as_str)
}

/// The changes that make the slices say where the pods are; `Plan::default()` when they do.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    if seen.service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let families = families(seen);
    for family in &families {
        let existing: Vec<&EndpointSlice> = alive(seen.slices).filter(|s| s.address_type == family.as_str()).collect();
        let wanted = wanted(seen, *family);
        settle(seen.service, *family, existing, wanted, &mut plan);
    }
    let gone = alive(seen.slices).filter(|s| !families.iter().any(|f| f.as_str() == s.address_type));
    plan.deletes.extend(gone.map(|slice| Delete::one(Target::of(slice))));
    plan
}

fn alive(slices: &[Arc<EndpointSlice>]) -> impl Iterator<Item = &EndpointSlice> {
    slices.iter().map(AsRef::as_ref).filter(|s| s.metadata.deletion_timestamp.is_none())
}

/// The kind of address that a slice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As `addressType` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// Of an address.
    pub fn of_ip(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn of(address: &str) -> Option<Self> {
        address.parse().ok().map(Self::of_ip)
    }
}

/// The Service says them; one that does not takes those of its pods.
fn families(seen: &Observed<'_>) -> Vec<Family> {
    let spec = seen.service.spec.as_ref();
    let mut families: Vec<Family> = spec
        .iter()
        .flat_map(|s| s.ip_families.iter().flatten())
        .filter_map(|f| [Family::V4, Family::V6].into_iter().find(|known| known.as_str() == f))
        .collect();
    if families.is_empty() {
        let of_pods = seen.pods.iter().flat_map(|pod| addresses(pod)).filter_map(Family::of);
        let of_service = spec.and_then(|s| Family::of(s.cluster_ip.as_deref()?));
        families.extend(of_service.into_iter().chain(of_pods));
        families.sort_by_key(|f| *f as u8);
        families.dedup();
    }
    if families.is_empty() {
        families.push(Family::V4);
    }
    families
}

/// Endpoints by the ports that they share.
type Groups = BTreeMap<Vec<Port>, Vec<Endpoint>>;

fn wanted(seen: &Observed<'_>, family: Family) -> Groups {
    let mut groups = Groups::new();
    for pod in seen.pods {
        let own: Vec<String> = addresses(pod).into_iter().filter(|a| Family::of(a) == Some(family)).map(str::to_owned).collect();
        if own.is_empty() {
            continue;
        }
        let ports = backends::ports(seen.service, pod);
        // A pod that has none of the Service's ports serves nothing; a headless Service may have no ports at all.
        if ports.is_empty() && seen.service.spec.as_ref().is_some_and(|s| s.ports.iter().flatten().next().is_some()) {
            continue;
        }
        groups.entry(ports).or_default().push(endpoint(seen, pod, own));
    }
    groups
}

fn endpoint(seen: &Observed<'_>, pod: &Pod, addresses: Vec<String>) -> Endpoint {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    let (serving, terminating) = (is_ready(pod), pod.metadata.deletion_timestamp.is_some());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(seen.service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(seen.service, pod),
        zone: node.as_deref().and_then(seen.zone),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// One slice to be, in place of `seen` or new.
struct Draft<'a> {
    seen: Option<&'a EndpointSlice>,
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
}

/// Brings the slices of one family to what is wanted.
fn settle(service: &Service, family: Family, existing: Vec<&EndpointSlice>, wanted: Groups, plan: &mut Plan) {
    let (mut drafts, mut spare) = (Vec::new(), Vec::new());
    let mut by_ports: BTreeMap<Vec<Port>, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(slice_ports(slice)).or_default().push(slice);
    }
    for (ports, endpoints) in wanted {
        let slices = by_ports.remove(&ports).unwrap_or_default();
        let (kept, emptied) = pack(ports, endpoints, slices);
        drafts.extend(kept);
        spare.extend(emptied);
    }
    spare.extend(by_ports.into_values().flatten());
    if drafts.is_empty() {
        // A Service without endpoints says so with an empty slice.
        drafts.push(Draft { seen: None, ports: Vec::new(), endpoints: Vec::new() });
    }
    // What would be deleted and created is changed instead. Empty ones first, as they may be right already.
    spare.sort_by_key(|slice| (slice.endpoints.iter().len(), slice.metadata.name.clone()));
    let mut spare = spare.into_iter();
    for draft in &mut drafts {
        draft.seen = draft.seen.or_else(|| spare.next());
        match draft.seen {
            Some(slice) => plan.patches.extend(change(service, slice, draft)),
            None => plan.creates.push(Create::of(&new_slice(service, family, draft))),
        }
    }
    plan.deletes.extend(spare.map(|slice| Delete::one(Target::of(slice))));
}

/// Distributes the endpoints of one port group over its slices: what is in a slice stays there; what is new fills slices that change anyway,
/// then the fullest that have room, then new ones. Returns the slices to be, and those that nothing is left in.
fn pack<'a>(ports: Vec<Port>, endpoints: Vec<Endpoint>, slices: Vec<&'a EndpointSlice>) -> (Vec<Draft<'a>>, Vec<&'a EndpointSlice>) {
    let mut left: HashMap<String, (usize, Endpoint)> =
        endpoints.into_iter().enumerate().map(|(order, e)| (identity(&e), (order, e))).collect();
    let mut drafts: Vec<(bool, Draft<'a>)> = Vec::new();
    for slice in slices {
        let kept: Vec<Endpoint> = slice.endpoints.iter().flatten().filter_map(|e| left.remove(&identity(e))).map(|(_, e)| e).collect();
        let changed = slice.endpoints.as_deref().unwrap_or_default() != kept.as_slice();
        drafts.push((changed, Draft { seen: Some(slice), ports: ports.clone(), endpoints: kept }));
    }
    let mut new: Vec<(usize, Endpoint)> = left.into_values().collect();
    new.sort_by_key(|(order, _)| *order);
    let mut new = new.into_iter().map(|(_, e)| e);
    drafts.sort_by_key(|(changed, d)| (!changed, std::cmp::Reverse(d.endpoints.len())));
    for (_, draft) in &mut drafts {
        let room = SLICE_ENDPOINTS.saturating_sub(draft.endpoints.len());
        draft.endpoints.extend(new.by_ref().take(room));
    }
    loop {
        let endpoints: Vec<Endpoint> = new.by_ref().take(SLICE_ENDPOINTS).collect();
        if endpoints.is_empty() {
            break;
        }
        drafts.push((true, Draft { seen: None, ports: ports.clone(), endpoints }));
    }
    let (kept, emptied): (Vec<_>, Vec<_>) = drafts.into_iter().map(|(_, d)| d).partition(|d| !d.endpoints.is_empty());
    (kept, emptied.into_iter().filter_map(|d| d.seen).collect())
}

/// The pod, or the addresses of an endpoint that names none.
fn identity(endpoint: &Endpoint) -> String {
    endpoint.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_else(|| endpoint.addresses.join(","))
}

/// The ports of a slice.
pub fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| Port {
            name: p.name.clone().unwrap_or_default(),
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: p.port.unwrap_or(0),
            app_protocol: p.app_protocol.clone(),
        })
        .collect();
    ports.dedup();
    ports
}

/// The same as a slice says them.
pub fn endpoint_ports(ports: &[Port]) -> Vec<EndpointPort> {
    ports
        .iter()
        .map(|p| EndpointPort {
            name: Some(p.name.clone()),
            protocol: Some(p.protocol.clone()),
            port: Some(p.port),
            app_protocol: p.app_protocol.clone(),
        })
        .collect()
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = backends::labels(service);
    labels.insert(SERVICE_LABEL.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    labels
}

fn new_slice(service: &Service, family: Family, draft: &Draft<'_>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_ref(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().into(),
        endpoints: Some(draft.endpoints.clone()),
        ports: Some(endpoint_ports(&draft.ports)),
    }
}

/// The patch from the slice to the draft; `None` when it says the same.
fn change(service: &Service, slice: &EndpointSlice, draft: &Draft<'_>) -> Option<Patch> {
    let mut body = json!({});
    if slice.endpoints.as_deref().unwrap_or_default() != draft.endpoints {
        body["endpoints"] = document(&draft.endpoints);
    }
    if slice_ports(slice) != draft.ports {
        body["ports"] = document(&endpoint_ports(&draft.ports));
    }
    let before = slice.metadata.labels.clone().unwrap_or_default();
    if let Some(changed) = merge::diff(&document(&before), &document(&labels(service))) {
        body["metadata"] = json!({"labels": changed});
    }
    let owner = controller_ref(service);
    if !slice.metadata.owner_references.iter().flatten().any(|o| o.uid == owner.uid) {
        body["metadata"]["ownerReferences"] = json!([owner]);
    }
    (body != json!({})).then(|| Patch::merge(Target::of(slice), body))
}

#[cfg(test)]
mod tests;
