//! Which pods end when the machine shuts down, in which order, and how long each may take. Pure.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec;

/// From this priority on a pod is critical to its cluster.
const CRITICAL: i32 = 2_000_000_000;

/// How long pods from a priority on may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// From this one on, up to that of the next.
    pub priority: i32,
    /// The longest time.
    pub period: Duration,
}

/// Critical pods have `critical` of `total` after the others have had the rest. None without a total.
pub fn by_kind(total: Duration, critical: Duration) -> Vec<Grace> {
    if total.is_zero() {
        return Vec::new();
    }
    vec![Grace { priority: 0, period: total.saturating_sub(critical) }, Grace { priority: CRITICAL, period: critical }]
}

/// How long it all may take.
pub fn whole(graces: &[Grace]) -> Duration {
    graces.iter().map(|grace| grace.period).sum()
}

/// Pods that end together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// How long the next group waits for them.
    pub period: Duration,
    /// Each with its own time.
    pub pods: Vec<(Arc<Pod>, Duration)>,
}

/// The groups in their order; `graces` rise in priority. A pod below the lowest belongs to it, and a group without pods takes no time.
pub fn groups(graces: &[Grace], pods: &[Arc<Pod>]) -> Vec<Group> {
    let mut out: Vec<Group> = graces.iter().map(|grace| Group { period: grace.period, pods: Vec::new() }).collect();
    for pod in pods {
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let at = graces.iter().rposition(|grace| grace.priority <= priority).unwrap_or(0);
        if let Some(group) = out.get_mut(at) {
            group.pods.push((pod.clone(), spec::grace(pod).min(group.period)));
        }
    }
    out.retain(|group| !group.pods.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: Option<i32>, grace: i64) -> Arc<Pod> {
        let spec = json!({ "containers": [], "priority": priority, "terminationGracePeriodSeconds": grace });
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a pod"))
    }

    fn graces(list: &[(i32, u64)]) -> Vec<Grace> {
        list.iter().map(|(priority, seconds)| Grace { priority: *priority, period: Duration::from_secs(*seconds) }).collect()
    }

    fn check(list: &[(i32, u64)], pods: &[Arc<Pod>], want: &[(u64, &[(&str, u64)])]) {
        let groups = groups(&graces(list), pods);
        let got: Vec<_> = groups
            .iter()
            .map(|g| (g.period.as_secs(), g.pods.iter().map(|(p, d)| (spec::name(p), d.as_secs())).collect::<Vec<_>>()))
            .collect();
        let want: Vec<_> = want.iter().map(|(seconds, pods)| (*seconds, pods.to_vec())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_less_important_go_first() {
        let pods = [pod("critical", Some(2_000_001_000), 30), pod("plain", None, 5), pod("long", Some(10), 60), pod("low", Some(-5), 1)];
        check(&[(0, 20), (2_000_000_000, 10)], &pods, &[(20, &[("plain", 5), ("long", 20), ("low", 1)]), (10, &[("critical", 10)])]);
        check(&[(0, 20), (10, 7), (100_000, 3)], &pods, &[(20, &[("plain", 5), ("low", 1)]), (7, &[("long", 7)]), (3, &[("critical", 3)])]);
        // Nobody waits for a group without pods.
        check(&[(0, 20), (2_000_000_000, 10)], &pods[..1], &[(10, &[("critical", 10)])]);
        check(&[], &pods, &[]);
    }

    #[test]
    fn critical_pods_have_their_part_of_the_whole() {
        let (total, critical) = (Duration::from_secs(30), Duration::from_secs(10));
        assert_eq!(by_kind(total, critical), graces(&[(0, 20), (2_000_000_000, 10)]));
        assert_eq!(whole(&by_kind(total, critical)), total);
        assert!(by_kind(Duration::ZERO, Duration::ZERO).is_empty());
    }

    proptest! {
        #[test]
        fn every_pod_ends_once_and_in_time(
            mut list in proptest::collection::vec((any::<i32>(), 0..100_u64), 1..5),
            priorities in proptest::collection::vec(any::<Option<i32>>(), 0..20),
        ) {
            list.sort();
            let graces = graces(&list);
            let pods: Vec<_> = priorities.iter().enumerate().map(|(n, p)| pod(&n.to_string(), *p, 30)).collect();
            let groups = groups(&graces, &pods);
            let mut names: Vec<_> = groups.iter().flat_map(|g| g.pods.iter().map(|(p, _)| spec::name(p).to_owned())).collect();
            names.sort();
            let mut all: Vec<_> = pods.iter().map(|p| spec::name(p).to_owned()).collect();
            all.sort();
            prop_assert_eq!(names, all);
            prop_assert!(groups.iter().map(|g| g.period).sum::<Duration>() <= whole(&graces));
            prop_assert!(groups.iter().all(|g| g.pods.iter().all(|(_, d)| *d <= g.period)));
        }
    }
}
