//! Filters: may this pod run on this node at all. Each gives upstream's words for a no.

mod affinity;
mod taints;

use coracle_client::pod::Pod;
use k8s_openapi::api::core::v1::Node;

use crate::{
    cluster::NodeState,
    needs::{HostPort, Needs},
};

pub use affinity::preference;
pub use taints::{intolerable, unloved};

/// Why a node cannot take a pod, in the words of its `FailedScheduling` event.
pub type Reason = String;

/// All reasons against the node; none: the pod may run there.
pub fn reasons(pod: &Pod, needs: &Needs, state: &NodeState, node: &Node) -> Vec<Reason> {
    // Upstream asks its plugins in this order and stops at the first that refuses; only the resource plugin gives several reasons.
    let one = unschedulable(pod, node).or_else(|| name(pod, node)).or_else(|| taints::filter(pod, node));
    let one = one.or_else(|| affinity::filter(pod, node)).or_else(|| ports(needs, state));
    one.map_or_else(|| resources(needs, state), |reason| vec![reason])
}

fn unschedulable(pod: &Pod, node: &Node) -> Option<Reason> {
    let closed = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let taint = k8s_openapi::api::core::v1::Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    (closed && !taints::tolerates(pod, &taint)).then(|| "node(s) were unschedulable".into())
}

fn name(pod: &Pod, node: &Node) -> Option<Reason> {
    let wanted = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())?;
    (Some(wanted) != node.metadata.name.as_deref()).then(|| "node(s) didn't match the requested node name".into())
}

fn ports(needs: &Needs, state: &NodeState) -> Option<Reason> {
    let clash = |a: &HostPort, b: &HostPort| a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1.is_empty() || b.1.is_empty());
    let taken = needs.ports.iter().any(|want| state.ports.iter().any(|have| clash(want, have)));
    taken.then(|| "node(s) didn't have free ports for the requested pod ports".into())
}

fn resources(needs: &Needs, state: &NodeState) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if state.allocatable.get("pods").is_some_and(|most| state.pods + 1 > *most) {
        reasons.push("Too many pods".to_owned());
    }
    for (resource, amount) in &needs.requests {
        let have = state.allocatable.get(resource).copied().unwrap_or(0);
        let used = state.requested.get(resource).copied().unwrap_or(0);
        if *amount > have - used {
            reasons.push(format!("Insufficient {resource}"));
        }
    }
    reasons
}
