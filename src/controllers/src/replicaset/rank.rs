//! Which pods go first when there are too many: those whose loss costs least.

use coracle_client::pod::Pod;
use std::collections::HashMap;

use jiff::Timestamp;

use crate::pods::{is_ready, phase, ready_since, restarts};

/// Annotation by which people say what the loss of a pod costs.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods that go first, by upstream's ranking: without a node, pending, not ready, cheap by annotation, crowded on its node, ready
/// for a short time, restarted often, young. Times compare by powers of two, so that among pods of like age chance decides.
pub fn surplus<'a>(pods: &[&'a Pod], count: usize, now: Timestamp) -> Vec<&'a Pod> {
    if count == 0 {
        return Vec::new();
    }
    let mut crowd: HashMap<&str, i64> = HashMap::new();
    for node in pods.iter().filter_map(|p| node(p)) {
        *crowd.entry(node).or_default() += 1;
    }
    let mut ranked: Vec<_> = pods
        .iter()
        .map(|pod| {
            let crowded = node(pod).and_then(|n| crowd.get(n)).copied().unwrap_or(0);
            (rank(pod, crowded, now), *pod)
        })
        .collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

/// Lower goes first.
fn rank(pod: &Pod, crowded: i64, now: Timestamp) -> (bool, u8, bool, i32, i64, u32, i64, u32, String) {
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    (
        node(pod).is_some(),
        phase,
        is_ready(pod),
        deletion_cost(pod),
        -crowded,
        if is_ready(pod) { age(ready_since(pod), now) } else { 0 },
        -i64::from(restarts(pod)),
        age(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
        pod.metadata.uid.clone().unwrap_or_default(),
    )
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The power of two of the age in seconds; unknown is the youngest.
fn age(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let seconds = since.map_or(0, |at| now.duration_since(at).as_secs()).max(0);
    u64::try_from(seconds).unwrap_or(0).checked_ilog2().map_or(0, |power| power + 1)
}
