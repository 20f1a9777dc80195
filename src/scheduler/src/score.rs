//! Scores: where a pod runs best among the nodes that can take it. Each plugin gives 0 to 100, and the weights are upstream's.

use coracle_client::pod::Pod;
use k8s_openapi::api::core::v1::Node;

use crate::{
    cluster::{self, NodeState},
    filter,
    needs::Needs,
};

const BEST: i64 = 100;
const WEIGHT_LEAST_ALLOCATED: i64 = 1;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_TAINTS: i64 = 3;
/// What a pod without requests counts as, so that many of them spread: 100m CPU and 200 MB, as upstream has it.
const ASSUMED: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 << 20)];

/// The total of each node, in their order.
pub fn scores(pod: &Pod, needs: &Needs, nodes: &[(&str, &NodeState, &Node)]) -> Vec<i64> {
    let owner = cluster::owner(pod);
    let siblings = |state: &NodeState| owner.as_ref().and_then(|o| state.owners.get(o)).copied().map_or(0, i64::from);
    let spread = fewer_is_better(nodes.iter().map(|(_, state, _)| siblings(state)));
    let taints = fewer_is_better(nodes.iter().map(|(_, _, node)| filter::unloved(pod, node) as i64));
    let affinity = more_is_better(nodes.iter().map(|(_, _, node)| filter::preference(pod, node)));
    let room = nodes.iter().map(|(_, state, _)| least_allocated(needs, state));
    let weigh = |(((room, spread), taints), affinity): (((i64, i64), i64), i64)| {
        room * WEIGHT_LEAST_ALLOCATED + spread * WEIGHT_SPREAD + taints * WEIGHT_TAINTS + affinity * WEIGHT_AFFINITY
    };
    room.zip(spread).zip(taints).zip(affinity).map(weigh).collect()
}

/// Mean over CPU and memory of what would be left, in hundredths.
fn least_allocated(needs: &Needs, state: &NodeState) -> i64 {
    let left = |(resource, assumed): (&str, i64)| {
        let have = state.allocatable.get(resource).copied().filter(|have| *have > 0)?;
        let want = needs.requests.get(resource).copied().unwrap_or(assumed);
        let used = state.requested.get(resource).copied().unwrap_or(0).saturating_add(want);
        Some(((have - used).max(0) as i128 * i128::from(BEST) / i128::from(have)) as i64)
    };
    let (sum, count) = ASSUMED.into_iter().filter_map(left).fold((0, 0), |(sum, count), score| (sum + score, count + 1));
    if count == 0 { 0 } else { sum / count }
}

fn fewer_is_better(counts: impl Iterator<Item = i64>) -> Vec<i64> {
    let counts: Vec<i64> = counts.collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|count| if most == 0 { BEST } else { BEST * (most - count) / most }).collect()
}

fn more_is_better(counts: impl Iterator<Item = i64>) -> Vec<i64> {
    let counts: Vec<i64> = counts.collect();
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|count| if most == 0 { 0 } else { BEST * count / most }).collect()
}
