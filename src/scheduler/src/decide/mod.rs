//! Where one pod goes: filter, score, choose. A plain function of what is known of the cluster.

use coracle_client::pod::Pod;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use crate::{
    cluster::{Cluster, NodeState},
    filter::{self, Reason},
    needs::needs,
    score,
};

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Bind it to this node.
    Bind(String),
    /// No node can take it now: the message of its `PodScheduled` condition and its event.
    Unschedulable(String),
}

/// Chooses the node with the best score; among equals the one with the fewest pods, then the first by name. `refusal` is what speaks
/// against the pod on every node.
pub fn decide(cluster: &Cluster, pod: &Pod, refusal: Option<Reason>) -> Decision {
    if let (Some(reason), total @ 1..) = (refusal, cluster.nodes().count()) {
        return Decision::Unschedulable(format!("0/{total} nodes are available: {reason}."));
    }
    let needs = needs(pod);
    let mut total = 0;
    let mut against: BTreeMap<String, usize> = BTreeMap::new();
    let mut fit: Vec<(&str, &NodeState, &Node)> = Vec::new();
    for (name, state, node) in cluster.nodes() {
        total += 1;
        let reasons = filter::reasons(pod, &needs, state, node);
        if reasons.is_empty() {
            fit.push((name, state, node));
        }
        for reason in reasons {
            *against.entry(reason).or_default() += 1;
        }
    }
    let scores = score::scores(pod, &needs, &fit);
    let best = fit.iter().zip(scores).min_by_key(|((name, state, _), score)| (-score, state.pods, *name));
    match best {
        Some(((name, _, _), _)) => Decision::Bind((*name).to_owned()),
        None => Decision::Unschedulable(explain(total, &against)),
    }
}

fn explain(total: usize, against: &BTreeMap<String, usize>) -> String {
    if total == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut reasons: Vec<String> = against.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{total} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests;
