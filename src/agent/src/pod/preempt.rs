//! Which pods a critical pod takes the place of: as few as possible, those of the lowest class of service first. Pure.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use super::life::Termination;
use crate::{
    eviction::rank,
    resources::{
        self, Amounts,
        qos::{self, Qos},
    },
};

/// What the API is told of a pod that makes room, in upstream's words.
pub const PREEMPTED: Termination = Termination {
    reason: "Preempting",
    message: "Preempted in order to admit critical pod",
    disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
    grace: None,
    may_succeed: false,
};

/// There is not enough to take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: \
     no set of running pods found to reclaim resources: {0}"
)]
pub struct NoRoom(String);

/// The pods to end so that `lacking` becomes free for `pod`.
pub fn victims(pod: &Pod, others: &[Arc<Pod>], lacking: &Amounts) -> Result<Vec<Arc<Pod>>, NoRoom> {
    let mut classes: [Vec<Arc<Pod>>; 3] = Default::default();
    for other in others.iter().filter(|other| gives_way(other, pod)) {
        let class = match qos::class(other.spec.as_ref()) {
            Qos::BestEffort => 0,
            Qos::Burstable => 1,
            Qos::Guaranteed => 2,
        };
        classes[class].push(other.clone());
    }
    let open = without(lacking, classes.iter().flatten());
    if !open.is_empty() {
        let list: Vec<_> = open.iter().map(|(name, amount)| format!("(res: {name}, q: {amount}), ")).collect();
        return Err(NoRoom(format!("[{}]", list.concat())));
    }
    let [best_effort, burstable, guaranteed] = classes;
    // Of each class only what would still be wanting when all of the lower ones went.
    let guaranteed = fewest(guaranteed, without(lacking, best_effort.iter().chain(&burstable)));
    let burstable = fewest(burstable, without(lacking, best_effort.iter().chain(&guaranteed)));
    let best_effort = fewest(best_effort, without(lacking, burstable.iter().chain(&guaranteed)));
    Ok([best_effort, burstable, guaranteed].concat())
}

fn gives_way(other: &Pod, to: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority);
    (rank::is_critical(to) && !rank::is_critical(other)) || priority(to).zip(priority(other)).is_some_and(|(to, other)| to > other)
}

fn asked(pod: &Pod, name: &str) -> Quantity {
    if name == "pods" {
        return Quantity::from_units(1);
    }
    let all = pod.spec.as_ref().map(|spec| resources::of_pod(spec, resources::requests)).unwrap_or_default();
    all.get(name).copied().unwrap_or(Quantity::from_units(0))
}

/// What is still lacking when these pods are gone.
fn without<'a>(lacking: &Amounts, pods: impl Iterator<Item = &'a Arc<Pod>> + Clone) -> Amounts {
    let left = lacking.iter().map(|(name, amount)| {
        let freed = pods.clone().fold(Quantity::from_units(0), |sum, pod| sum.plus(asked(pod, name)));
        (name.clone(), amount.minus(freed))
    });
    left.filter(|(_, amount)| amount.signum() > 0).collect()
}

/// Takes the pod that comes nearest to what is lacking, until nothing is; of two alike the smaller one.
fn fewest(mut pods: Vec<Arc<Pod>>, mut lacking: Amounts) -> Vec<Arc<Pod>> {
    let mut out = Vec::new();
    while !lacking.is_empty() && !pods.is_empty() {
        let nearer = |a: &Arc<Pod>, b: &Arc<Pod>| distance(a, &lacking).total_cmp(&distance(b, &lacking)).then_with(|| smaller(a, b));
        let Some(at) = (0..pods.len()).min_by(|a, b| nearer(&pods[*a], &pods[*b])) else { break };
        let pod = pods.swap_remove(at);
        lacking = without(&lacking, std::iter::once(&pod));
        out.push(pod);
    }
    out
}

/// Every resource weighs the same: the part of it that would still be lacking, squared.
fn distance(pod: &Pod, lacking: &Amounts) -> f64 {
    let part = |(name, amount): (&String, &Quantity)| {
        let left = amount.minus(asked(pod, name));
        if left.signum() > 0 { (left.millis() as f64 / amount.millis() as f64).powi(2) } else { 0.0 }
    };
    lacking.iter().map(part).sum()
}

fn smaller(a: &Pod, b: &Pod) -> Ordering {
    let order = |name| asked(a, name).cmp(&asked(b, name));
    order("memory").then_with(|| order("cpu"))
}

/// What `pod` lacks of the node, by resource.
pub fn lacking(pod: &Pod, others: &[Arc<Pod>], allocatable: &Amounts) -> Amounts {
    let mut wanted = pod.spec.as_ref().map(|spec| resources::of_pod(spec, resources::requests)).unwrap_or_default();
    wanted.insert("pods".to_owned(), Quantity::from_units(1));
    let taken = |name: &str| others.iter().fold(Quantity::from_units(0), |sum, other| sum.plus(asked(other, name)));
    let lacks = wanted.into_iter().filter(|(name, amount)| amount.signum() > 0 && allocatable.contains_key(name)).map(|(name, amount)| {
        let missing = taken(&name).plus(amount).minus(allocatable[&name]);
        (name, missing)
    });
    lacks.filter(|(_, missing)| missing.signum() > 0).collect::<BTreeMap<_, _>>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32, cpu: &str, guaranteed: bool) -> Arc<Pod> {
        let amounts = if cpu == "0" { json!({}) } else { json!({ "cpu": cpu, "memory": "1Mi" }) };
        let limits = if guaranteed { amounts.clone() } else { json!({}) };
        let container = json!({ "name": "c", "resources": { "requests": amounts, "limits": limits } });
        let spec = json!({ "priority": priority, "containers": [container] });
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a pod"))
    }

    fn check(cpu: &str, others: &[Arc<Pod>], want: Result<&[&str], &str>) {
        let critical = pod("critical", 2_000_000_000, cpu, false);
        let allocatable = Amounts::from([
            ("cpu".to_owned(), Quantity::from_units(4)),
            ("memory".to_owned(), Quantity::from_units(1 << 30)),
            ("pods".to_owned(), Quantity::from_units(5)),
        ]);
        let lacking = lacking(&critical, others, &allocatable);
        match (victims(&critical, others, &lacking), want) {
            (Ok(victims), Ok(want)) => {
                assert_eq!(victims.iter().filter_map(|p| p.metadata.name.as_deref()).collect::<Vec<_>>(), want);
            }
            (Err(error), Err(want)) => assert!(error.to_string().ends_with(want), "{error}"),
            (got, _) => panic!("{got:?}, expected {want:?}"),
        }
    }

    #[test]
    fn as_few_as_possible_and_the_lowest_class_first() {
        let (small, large) = (pod("small", 0, "1", false), pod("large", 0, "3", false));
        check("1", &[], Ok(&[]));
        check("1", &[small.clone(), large.clone()], Ok(&["small"]));
        check("2", &[small.clone(), large.clone()], Ok(&["large"]));
        check("4", &[small.clone(), large.clone()], Ok(&["large", "small"]));
        let guaranteed = pod("guaranteed", 0, "1", true);
        check("1", &[guaranteed.clone(), large.clone()], Ok(&["large"]));
        check("2", &[guaranteed.clone(), small.clone(), pod("more", 0, "2", false)], Ok(&["more"]));
        check("4", &[guaranteed, large.clone()], Ok(&["large", "guaranteed"]));
        // Another critical pod does not give way, and what is not there cannot be taken.
        check("1", &[pod("other", 2_000_000_000, "3", false), small.clone()], Ok(&["small"]));
        check("3", &[pod("other", 2_000_000_000, "3", false), small], Err("[(res: cpu, q: 2), ]"));
        check("5", &[large], Err("[(res: cpu, q: 1), ]"));
    }

    #[test]
    fn room_for_one_more_is_made_of_one_that_asks_for_nothing() {
        let others: Vec<_> = ["a", "b", "c", "d"].map(|name| pod(name, 0, "0", false)).into();
        let with_large = [others, vec![pod("large", 0, "1", false)]].concat();
        check("0", &with_large, Ok(&["a"]));
    }
}
