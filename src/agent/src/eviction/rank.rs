//! Which pod goes first when the node is short of something, and what it is told. Pure.
//!
//! First those that take more than they asked for, then the less important, then those that take the most beyond what they asked for.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Write as _};

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::pressure::{Resource, Shortage};
use crate::{pod::spec, resources, statics};

/// From this priority on a pod is critical to its cluster.
const CRITICAL: i32 = 2_000_000_000;

/// A pod that runs, and what it takes of a resource.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// It.
    pub pod: &'a Pod,
    /// By container, and what its volumes take under an empty name.
    pub usage: BTreeMap<String, u64>,
}

/// Whether a pod is never ended for want of something.
pub fn is_critical(pod: &Pod) -> bool {
    statics::is_static(pod) || statics::is_mirror(pod) || pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= CRITICAL)
}

fn asked(spec: &PodSpec, resource: Resource) -> u64 {
    let name = match resource {
        Resource::Memory => "memory",
        Resource::Disk => "ephemeral-storage",
        Resource::Inodes | Resource::Pids => return 0,
    };
    let amount = resources::asked_by(spec).get(name).map_or(0, Quantity::units);
    u64::try_from(amount).unwrap_or(0)
}

/// The pod to end, by its place in the list.
pub fn first(candidates: &[Candidate<'_>], resource: Resource) -> Option<usize> {
    let key = |candidate: &Candidate<'_>| {
        let spec = candidate.pod.spec.as_ref();
        let (used, asked) = (candidate.usage.values().sum::<u64>(), spec.map_or(0, |s| asked(s, resource)));
        let beyond = i128::from(used) - i128::from(asked);
        // What nobody can ask for nobody has too much of.
        let greedy = beyond > 0 && matches!(resource, Resource::Memory | Resource::Disk);
        (Reverse(greedy), spec.and_then(|s| s.priority).unwrap_or(0), Reverse(beyond))
    };
    let able = candidates.iter().enumerate().filter(|(_, c)| !is_critical(c.pod));
    able.min_by_key(|(_, c)| key(c)).map(|(at, _)| at)
}

/// Why it ends, in upstream's words: clients match them.
pub fn message(candidate: &Candidate<'_>, shortage: &Shortage) -> String {
    let bytes = |amount: u64| Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX)).to_string();
    let resource = shortage.signal.resource();
    let told = |amount: u64| match resource {
        Resource::Memory | Resource::Disk => bytes(amount),
        Resource::Inodes | Resource::Pids => amount.to_string(),
    };
    let (threshold, available) = (told(shortage.threshold), told(shortage.available));
    let mut out = format!("The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. ");
    if !matches!(resource, Resource::Memory | Resource::Disk) {
        return out;
    }
    for part in spec::parts(candidate.pod) {
        let asked = resources::requests(&part.spec).get(&resource.to_string()).map_or(0, Quantity::units);
        let used = candidate.usage.get(&part.spec.name).copied().unwrap_or(0);
        if i64::try_from(used).unwrap_or(i64::MAX) > asked {
            let asked = if asked == 0 { "0".to_owned() } else { bytes(asked.unsigned_abs()) };
            let _ = write!(
                out,
                "Container {} was using {}, request is {asked}, has larger consumption of {resource}. ",
                part.spec.name,
                bytes(used)
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::eviction::pressure::Signal;

    fn pod(name: &str, priority: i32, memory: &str) -> Pod {
        let container = json!({ "name": "a", "resources": { "requests": { "memory": memory } } });
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "priority": priority, "containers": [container] } }))
            .expect("a pod")
    }

    fn order(pods: &[(&str, i32, &str, u64)], resource: Resource) -> Vec<String> {
        let pods: Vec<(Pod, u64)> = pods.iter().map(|(n, p, m, u)| (pod(n, *p, m), *u << 20)).collect();
        let mut left: Vec<Candidate<'_>> =
            pods.iter().map(|(pod, used)| Candidate { pod, usage: BTreeMap::from([("a".to_owned(), *used)]) }).collect();
        let mut out = Vec::new();
        while let Some(at) = first(&left, resource) {
            out.push(left.remove(at).pod.metadata.name.clone().unwrap_or_default());
        }
        out
    }

    #[test]
    fn greedy_before_modest_then_by_priority_then_by_excess() {
        let pods = [
            ("modest", 0, "200Mi", 100),
            ("greedy", 0, "100Mi", 150),
            ("greedier", 0, "0", 140),
            ("important", 1000, "0", 900),
            ("critical", 2_000_001_000, "0", 9000),
            ("larger-modest", 0, "900Mi", 890),
        ];
        assert_eq!(order(&pods, Resource::Memory), ["greedier", "greedy", "important", "larger-modest", "modest"]);
        // Of pids nobody asks for any.
        assert_eq!(order(&pods, Resource::Pids)[4], "important");
    }

    #[test]
    fn the_message_names_the_containers_that_take_too_much() {
        let pod = pod("p", 0, "1Mi");
        let candidate = Candidate { pod: &pod, usage: BTreeMap::from([("a".to_owned(), 3 << 20)]) };
        let shortage = Shortage { signal: Signal::Memory, threshold: 100 << 20, available: 90 << 20, soft: false };
        assert_eq!(
            message(&candidate, &shortage),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. \
             Container a was using 3Mi, request is 1Mi, has larger consumption of memory. "
        );
    }
}
