//! Mirrored EndpointSlices: one slice for each group of addresses with the same family and ports.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coracle_client::{EventType, events::reference};
use k8s_openapi::{
    api::{
        core::v1::Endpoints,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use super::subsets::groups;
use crate::{
    backends::Port,
    endpointslice::plan::{Family, MANAGED_BY_LABEL, SERVICE_LABEL, endpoint_ports, slice_ports},
    merge,
    owner::controller_ref,
    plan::{Create, Delete, Patch, Plan, Target, Told, document},
};

/// Ourselves as the keeper of slices; upstream's name, as clients and later upstream controllers know it.
pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one group that are mirrored. Upstream's bound, and that of a slice.
const MAX_ADDRESSES: usize = 1000;
/// Label by which Endpoints ask to be left alone.
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that are only there to elect a leader.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints object alone.
const OWN_ANNOTATIONS: [&str; 2] = ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Whether these Endpoints want slices.
pub fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP_LABEL)).is_some_and(|skip| skip == "true");
    !skipped && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER_ANNOTATION))
}

/// There is nothing to mirror.
pub fn none(slices: &[Arc<EndpointSlice>]) -> Plan {
    Plan { deletes: slices.iter().map(|slice| Delete::one(Target::of(&**slice))).collect(), ..Plan::default() }
}

/// The changes that make the slices say what the Endpoints say; `Plan::default()` when they do.
pub fn plan(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    if endpoints.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (groups, invalid) = groups(endpoints);
    let mut by_ports: HashMap<(String, Vec<Port>), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices {
        by_ports.entry((slice.address_type.clone(), slice_ports(slice))).or_default().push(slice);
    }
    by_ports.values_mut().for_each(|slices| slices.sort_by_key(|slice| slice.metadata.name.clone()));
    let (mut new, mut skipped) = (Vec::new(), 0);
    let mut spare = Vec::new();
    for ((family, ports), mut wanted) in groups {
        skipped += wanted.len().saturating_sub(MAX_ADDRESSES);
        wanted.truncate(MAX_ADDRESSES);
        let mut there = by_ports.remove(&(family.as_str().to_owned(), ports.clone())).unwrap_or_default().into_iter();
        match there.next() {
            Some(slice) => plan.patches.extend(change(endpoints, slice, &ports, &wanted)),
            None => new.push((family, ports, wanted)),
        }
        spare.extend(there);
    }
    spare.extend(by_ports.into_values().flatten());
    spare.sort_by_key(|slice| slice.metadata.name.clone());
    for (family, ports, wanted) in new {
        // What would be deleted and created is changed instead; the family of a slice cannot be.
        let reused = spare.iter().position(|slice| slice.address_type == family.as_str()).map(|at| spare.remove(at));
        match reused {
            Some(slice) => plan.patches.extend(change(endpoints, slice, &ports, &wanted)),
            None => plan.creates.push(Create::of(&new_slice(endpoints, family, &ports, wanted))),
        }
    }
    plan.deletes.extend(spare.into_iter().map(|slice| Delete::one(Target::of(slice))));
    if !plan.is_idle() {
        let tell = |reason, message| Told { regarding: reference(endpoints), kind: EventType::Warning, reason, message };
        if invalid > 0 {
            plan.events.push(tell("InvalidIPAddress", format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices")));
        }
        if skipped > 0 {
            let text = format!("{skipped} addresses were not mirrored: there can be {MAX_ADDRESSES} with the same ports");
            plan.events.push(tell("TooManyAddressesToMirror", text));
        }
    }
    plan
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.into(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    labels
}

fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    annotations
}

fn new_slice(endpoints: &Endpoints, family: Family, ports: &[Port], wanted: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.metadata.name.as_deref().unwrap_or_default())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels(endpoints)),
            annotations: Some(annotations(endpoints)).filter(|a| !a.is_empty()),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.as_str().into(),
        endpoints: Some(wanted),
        ports: Some(endpoint_ports(ports)),
    }
}

/// The patch that makes the slice say what is wanted; `None` when it does.
fn change(endpoints: &Endpoints, slice: &EndpointSlice, ports: &[Port], wanted: &[Endpoint]) -> Option<Patch> {
    let mut body = json!({});
    if slice.endpoints.as_deref().unwrap_or_default() != wanted {
        body["endpoints"] = document(&wanted);
    }
    if slice_ports(slice) != ports {
        body["ports"] = document(&endpoint_ports(ports));
    }
    let metadata = &slice.metadata;
    let pairs = [
        ("labels", metadata.labels.clone().unwrap_or_default(), labels(endpoints)),
        ("annotations", metadata.annotations.clone().unwrap_or_default(), annotations(endpoints)),
    ];
    for (field, before, after) in pairs {
        if let Some(changed) = merge::diff(&document(&before), &document(&after)) {
            body["metadata"][field] = changed;
        }
    }
    let owner = controller_ref(endpoints);
    if !metadata.owner_references.iter().flatten().any(|o| o.uid == owner.uid) {
        body["metadata"]["ownerReferences"] = json!([owner]);
    }
    (body != json!({})).then(|| Patch::merge(Target::of(slice), body))
}

#[cfg(test)]
mod tests;
