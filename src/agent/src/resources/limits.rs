//! Requests and limits as cgroup settings of containers and pods.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use coracle_runtime::Resources;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::{Amounts, amounts, asked_by, limits_of, limits_of_pod, qos, requests};

/// Microseconds over which CPU is limited: the field's value.
const CPU_PERIOD_US: u64 = 100_000;
/// The least that the kernel takes.
const CPU_QUOTA_LEAST_US: i64 = 1_000;
/// Weight of one core.
const SHARES_PER_CORE: i64 = 1024;
/// The range of weights that the kernel takes.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Of cgroup v2: memory that is never reclaimed.
pub const MEMORY_MIN: &str = "memory.min";
/// Memory that is reclaimed last.
pub const MEMORY_LOW: &str = "memory.low";
/// Memory from which on a group is slowed down.
const MEMORY_HIGH: &str = "memory.high";

/// A page of memory, to which the kernel rounds.
const PAGE_BYTES: i64 = 4096;

/// The cgroup of a pod, relative to the hierarchy.
pub fn pod_cgroup(root: &str, spec: Option<&PodSpec>, uid: &str) -> String {
    format!("{}{}/pod{uid}", pods_cgroup(root), qos::class(spec).directory())
}

/// Of one container. Where it has no limit of its own, its pod's is its limit, too.
pub fn of_container(spec: &PodSpec, container: &Container, node_memory_bytes: i64, node_pids: Option<i64>) -> Resources {
    let own = limits_of(container);
    let mut out = settings(&requests(container), &inheriting(own.clone(), &inherited(spec)), &own);
    let critical = spec.priority.is_some_and(|p| p >= 2_000_000_000);
    out.oom_score_adj = Some(qos::oom_score(spec, container, node_memory_bytes, critical));
    out.pids_limit = node_pids;
    out
}

/// Limits of the pod that count for containers, too, which have none of their own.
pub fn inherited(spec: &PodSpec) -> Amounts {
    let mut own = amounts(spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    own.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
    own
}

fn inheriting(mut own: Amounts, of_pod: &Amounts) -> Amounts {
    for (name, limit) in of_pod {
        own.entry(name.clone()).or_insert(*limit);
    }
    own
}

/// Protection and throttling of a container's memory (KEP-2570), for cgroup v2: what it asked for is reclaimed last (never, where the pod is
/// guaranteed), and from `factor` of the way to its limit on, or to what the node has for pods, it is slowed down before it is killed.
pub fn memory_quality(spec: &PodSpec, container: &Container, node_memory: i64, factor: f64) -> BTreeMap<String, String> {
    let memory = |amounts: Amounts| amounts.get("memory").map_or(0, Quantity::units).max(0);
    let (request, limit) = (memory(requests(container)), memory(limits_of(container)));
    // Without a request the limit is what was asked for.
    let request = if request == 0 { limit } else { request };
    let mut out = BTreeMap::new();
    if request > 0 {
        out.insert(protection(spec).to_owned(), request.to_string());
    }
    if request != limit {
        let most = if limit > 0 { limit } else { node_memory };
        let high = request as f64 + (most - request) as f64 * factor;
        let high = (high / PAGE_BYTES as f64).floor() as i64 * PAGE_BYTES;
        if high > request {
            out.insert(MEMORY_HIGH.to_owned(), high.to_string());
        }
    }
    out
}

/// The same, where it may have been otherwise before.
pub fn memory_quality_anew(spec: &PodSpec, container: &Container, node_memory: i64, factor: f64) -> BTreeMap<String, String> {
    let mut out: BTreeMap<_, _> =
        [(MEMORY_MIN, "0"), (MEMORY_LOW, "0"), (MEMORY_HIGH, "max")].map(|(f, v)| (f.to_owned(), v.to_owned())).into();
    out.extend(memory_quality(spec, container, node_memory, factor));
    out
}

/// Protection of the memory of a pod as a whole: that of its containers holds only as far as this.
pub fn memory_protection(spec: &PodSpec) -> BTreeMap<String, String> {
    let asked = asked_by(spec).get("memory").map_or(0, Quantity::units).max(0);
    [(protection(spec).to_owned(), asked.to_string())].into()
}

fn protection(spec: &PodSpec) -> &'static str {
    if qos::class(Some(spec)) == qos::Qos::Guaranteed { MEMORY_MIN } else { MEMORY_LOW }
}

/// Of the pod as a whole: a limit holds only where every container has one.
pub fn of_whole_pod(spec: &PodSpec) -> Resources {
    let mut limits = limits_of_pod(spec);
    let own = amounts(spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    for name in ["cpu", "memory"].into_iter().filter(|name| !own.contains_key(*name)) {
        let bare = |c: &Container| limits_of(c).get(name).is_none_or(|q| q.signum() == 0);
        if spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(bare) {
            limits.remove(name);
        }
    }
    settings(&asked_by(spec), &limits, &limits)
}

/// The cgroup of all pods.
pub fn pods_cgroup(root: &str) -> String {
    format!("{}/kubepods", root.trim_end_matches('/'))
}

/// What all pods together may take of a node that keeps something for others; `None` where nothing is kept. Memory that must be left
/// before pods are ended is theirs until then.
pub fn of_all_pods(capacity: &Amounts, reserved: &BTreeMap<String, String>, node_pids: Option<u64>) -> Option<Resources> {
    let kept = |name: &str| reserved.get(name).and_then(|amount| amount.parse::<Quantity>().ok()).filter(|q| q.signum() > 0);
    let left = |name: &str| Some(capacity.get(name)?.minus(kept(name)?).max(Quantity::from_units(0)));
    let pids = kept("pid").zip(node_pids).and_then(|(kept, all)| Some(i64::try_from(all).ok()?.saturating_sub(kept.units()).max(1)));
    let out = Resources {
        cpu_shares: left("cpu").map(|q| shares(q.millis())),
        memory_limit: left("memory").map(|q| q.units()),
        pids_limit: pids,
        ..Resources::default()
    };
    (out != Resources::default()).then_some(out)
}

/// Of a pod that is being made: beside its own limits those of the node, and no huge pages of sizes that it has not asked for.
pub fn of_new_pod(spec: &PodSpec, node: &Amounts, pids: Option<i64>) -> Resources {
    let mut out = of_whole_pod(spec);
    out.pids_limit = pids;
    for (size, pages) in hugepages(node) {
        if pages > 0 {
            out.hugepages.entry(size).or_insert(0);
        }
    }
    out
}

/// The settings that may change while a container runs. What has no limit says so: an older one must go.
pub fn changeable(of: &Resources) -> Resources {
    let quota = of.cpu_quota.filter(|q| *q > 0);
    Resources {
        cpu_shares: of.cpu_shares,
        cpu_quota: Some(quota.unwrap_or(-1)),
        cpu_period: Some(CPU_PERIOD_US),
        memory_limit: Some(of.memory_limit.filter(|m| *m > 0).unwrap_or(-1)),
        ..Resources::default()
    }
}

/// As open as either is.
pub fn wider(one: &Resources, other: &Resources) -> Resources {
    let open = |a: Option<i64>, b: Option<i64>| a.zip(b).filter(|(a, b)| *a > 0 && *b > 0).map_or(-1, |(a, b)| a.max(b));
    Resources {
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: Some(open(one.cpu_quota, other.cpu_quota)),
        cpu_period: Some(CPU_PERIOD_US),
        memory_limit: Some(open(one.memory_limit, other.memory_limit)),
        ..Resources::default()
    }
}

/// What a running container or its pod has, in the words of the API: as granted where its cgroup has just that, else as the cgroup says. What a
/// container has of its pod (`of_pod`) is not told of the container.
pub fn actual(granted: &ResourceRequirements, have: &Resources, of_pod: &Amounts) -> ResourceRequirements {
    let mut out = granted.clone();
    let own = amounts(granted.limits.as_ref());
    let asked = amounts(granted.requests.as_ref());
    let is_own = |name: &str| own.contains_key(name) || !of_pod.contains_key(name);
    let want = settings(&asked, &inheriting(own.clone(), of_pod), &Amounts::new());
    let mut set = |list: fn(&mut ResourceRequirements) -> &mut Option<BTreeMap<String, Text>>, name: &str, value: Option<Quantity>| {
        let list = list(&mut out);
        match value {
            Some(value) => _ = list.get_or_insert_default().insert(name.to_owned(), Text(value.to_string())),
            None => _ = list.as_mut().and_then(|l| l.remove(name)),
        }
        if list.as_ref().is_some_and(BTreeMap::is_empty) {
            *list = None;
        }
    };
    if have.cpu_shares != want.cpu_shares && (asked.contains_key("cpu") || is_own("cpu")) {
        let millis = have.cpu_shares.filter(|s| s > SHARES.start()).and_then(|s| i64::try_from((s * 1000).div_ceil(1024)).ok());
        set(|r| &mut r.requests, "cpu", millis.map(Quantity::from_millis));
    }
    let (have, want) = (changeable(have), changeable(&want));
    if have.cpu_quota != want.cpu_quota && is_own("cpu") {
        let millis = have.cpu_quota.filter(|q| *q > 0).map(|q| q * 1000 / CPU_PERIOD_US as i64);
        set(|r| &mut r.limits, "cpu", millis.map(Quantity::from_millis));
    }
    if have.memory_limit != want.memory_limit && is_own("memory") {
        set(|r| &mut r.limits, "memory", have.memory_limit.filter(|m| *m > 0).map(Quantity::from_bytes));
    }
    out
}

fn settings(requests: &Amounts, limits: &Amounts, pages: &Amounts) -> Resources {
    let of = |list: &Amounts, name: &str| list.get(name).copied().filter(|q| q.signum() > 0);
    // Without a request the limit is what was asked for.
    let cpu = of(requests, "cpu").or_else(|| of(limits, "cpu")).map_or(0, |q| q.millis());
    let quota = of(limits, "cpu").map(|q| quota(q.millis()));
    Resources {
        cpu_shares: Some(shares(cpu)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        memory_limit: of(limits, "memory").map(|q| q.units()),
        hugepages: hugepages(pages),
        ..Resources::default()
    }
}

/// The weight of so much of a core.
pub fn shares(millis: i64) -> u64 {
    u64::try_from(millis.saturating_mul(SHARES_PER_CORE) / 1000).unwrap_or(0).clamp(*SHARES.start(), *SHARES.end())
}

fn quota(millis: i64) -> i64 {
    (millis.saturating_mul(CPU_PERIOD_US as i64) / 1000).max(CPU_QUOTA_LEAST_US)
}

/// `hugepages-2Mi` becomes `2MB`.
fn hugepages(limits: &Amounts) -> BTreeMap<String, u64> {
    let pages = limits.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?.units();
        let unit = if size >= 1 << 30 {
            format!("{}GB", size >> 30)
        } else if size >= 1 << 20 {
            format!("{}MB", size >> 20)
        } else {
            format!("{}KB", size >> 10)
        };
        Some((unit, u64::try_from(amount.units()).unwrap_or(0)))
    });
    pages.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(resources: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": [{ "name": "a", "resources": resources }] })).expect("a pod spec")
    }

    #[test]
    fn containers() {
        let of = |value| {
            let spec = spec(value);
            let r = of_container(&spec, &spec.containers[0], 4 << 30, None);
            (r.cpu_shares, r.cpu_quota, r.memory_limit, r.oom_score_adj)
        };
        assert_eq!(of(json!({})), (Some(2), None, None, Some(1000)));
        assert_eq!(of(json!({ "requests": { "cpu": "500m" } })), (Some(512), None, None, Some(999)));
        assert_eq!(of(json!({ "limits": { "cpu": "1500m", "memory": "64Mi" } })), (Some(1536), Some(150_000), Some(64 << 20), Some(-997)));
        assert_eq!(of(json!({ "limits": { "cpu": "1m" } })), (Some(2), Some(1000), None, Some(999)));
    }

    #[test]
    fn memory_is_protected_and_throttled() {
        let of = |value| {
            let spec = spec(value);
            let out = memory_quality(&spec, &spec.containers[0], 10_000 * PAGE_BYTES, 0.9);
            out.iter().map(|(file, bytes)| format!("{file}={}", bytes.parse::<i64>().expect("bytes") / PAGE_BYTES)).collect::<Vec<_>>()
        };
        let pages = |n: i64| (n * PAGE_BYTES).to_string();
        assert!(of(json!({})).is_empty(), "who asks for nothing is promised nothing");
        assert_eq!(of(json!({ "requests": { "memory": pages(1000) } })), ["memory.high=9100", "memory.low=1000"]);
        let both = json!({ "requests": { "memory": pages(10) }, "limits": { "memory": pages(21) } });
        assert_eq!(of(both), ["memory.high=19", "memory.low=10"]);
        let all = json!({ "cpu": "1", "memory": pages(21) });
        let guaranteed = json!({ "requests": all, "limits": all });
        assert_eq!(of(guaranteed.clone()), ["memory.min=21"]);
        let spec = spec(guaranteed);
        let anew = memory_quality_anew(&spec, &spec.containers[0], 10_000 * PAGE_BYTES, 0.9);
        let anew: Vec<_> = anew.iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(anew, ["memory.high=max", "memory.low=0", &format!("memory.min={}", 21 * PAGE_BYTES)]);
        assert_eq!(memory_protection(&spec), [(MEMORY_MIN.to_owned(), pages(21))].into());
    }

    #[test]
    fn what_is_kept_for_others_no_pod_takes() {
        let list = |list: &[(&str, &str)]| list.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect::<BTreeMap<_, _>>();
        let capacity: Amounts = [("cpu", "2"), ("memory", "1Gi")].map(|(n, a)| (n.to_owned(), a.parse().expect("a quantity"))).into();
        assert_eq!(of_all_pods(&capacity, &list(&[("ephemeral-storage", "1Gi"), ("memory", "0")]), Some(100)), None);
        let got = of_all_pods(&capacity, &list(&[("cpu", "500m"), ("memory", "256Mi"), ("pid", "40")]), Some(100)).expect("limits");
        assert_eq!((got.cpu_shares, got.memory_limit, got.pids_limit), (Some(1536), Some(768 << 20), Some(60)));
    }

    #[test]
    fn a_pod_has_the_limits_of_its_node() {
        let node: Amounts = [("hugepages-2Mi", "64Mi"), ("hugepages-1Gi", "0"), ("hugepages-64Ki", "1Mi"), ("memory", "1Gi")]
            .map(|(name, amount)| (name.to_owned(), amount.parse().expect("a quantity")))
            .into();
        let of = |value, pids| {
            let got = of_new_pod(&spec(value), &node, pids);
            (got.pids_limit, got.hugepages)
        };
        let pages = |list: &[(&str, u64)]| list.iter().map(|(size, bytes)| ((*size).to_owned(), *bytes)).collect::<BTreeMap<_, _>>();
        assert_eq!(of(json!({}), None), (None, pages(&[("2MB", 0), ("64KB", 0)])));
        assert_eq!(of(json!({ "limits": { "hugepages-2Mi": "4Mi" } }), Some(100)), (Some(100), pages(&[("2MB", 4 << 20), ("64KB", 0)])));
    }

    #[test]
    fn what_a_cgroup_has_is_told_as_the_api_has_it() {
        let of = |value: serde_json::Value| -> ResourceRequirements { serde_json::from_value(value).expect("resources") };
        let have = |value: serde_json::Value| {
            let spec = spec(value);
            of_container(&spec, &spec.containers[0], 4 << 30, None)
        };
        let small = json!({ "requests": { "cpu": "20m", "memory": "1Gi" }, "limits": { "cpu": "0.2", "memory": "2Gi" } });
        let large = json!({ "requests": { "cpu": "40m", "memory": "1Gi" }, "limits": { "cpu": "300m", "memory": "3Gi" } });
        let actual = |granted: &_, have: &_| super::actual(granted, have, &Amounts::new());
        assert_eq!(actual(&of(small.clone()), &have(small.clone())), of(small.clone()), "the words stay");
        let told = json!({ "requests": { "cpu": "40m", "memory": "1Gi" }, "limits": { "cpu": "300m", "memory": "3Gi" } });
        assert_eq!(actual(&of(small), &have(large.clone())), of(told));
        assert_eq!(actual(&of(large), &have(json!({}))), of(json!({ "requests": { "memory": "1Gi" } })));
    }

    #[test]
    fn a_container_without_limits_has_its_pods() {
        let spec = |cpu: &str| -> PodSpec {
            let own = json!({ "name": "b", "resources": { "requests": { "cpu": "100m" }, "limits": { "cpu": "200m" } } });
            let of_pod = json!({ "limits": { "cpu": cpu, "memory": "64Mi" } });
            serde_json::from_value(json!({ "containers": [{ "name": "a" }, own], "resources": of_pod })).expect("a pod spec")
        };
        let of = |spec: &PodSpec, at: usize| of_container(spec, &spec.containers[at], 4 << 30, None);
        let settings = |r: &Resources| (r.cpu_shares, r.cpu_quota, r.memory_limit);
        let (small, large) = (spec("1"), spec("2"));
        assert_eq!(settings(&of(&small, 0)), (Some(1024), Some(100_000), Some(64 << 20)));
        assert_eq!(settings(&of(&small, 1)), (Some(102), Some(20_000), Some(64 << 20)));
        // Nothing of it is told of the container, not while the pod's limits change either.
        let none = ResourceRequirements::default();
        assert_eq!(actual(&none, &of(&small, 0), &inherited(&small)), none);
        assert_eq!(actual(&none, &of(&small, 0), &inherited(&large)), none);
    }

    #[test]
    fn what_is_wider_is_open_where_either_is() {
        let limits =
            |cpu, memory| Resources { cpu_shares: Some(2), cpu_quota: Some(cpu), memory_limit: Some(memory), ..Resources::default() };
        let settings = |r: Resources| (r.cpu_quota, r.memory_limit);
        assert_eq!(settings(wider(&limits(20_000, 5), &limits(10_000, 9))), (Some(20_000), Some(9)));
        assert_eq!(settings(wider(&limits(-1, 5), &limits(10_000, -1))), (Some(-1), Some(-1)));
    }

    #[test]
    fn a_pod_is_limited_only_where_all_its_containers_are() {
        let two = |second: serde_json::Value| -> PodSpec {
            let first = json!({ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "64Mi" } } });
            serde_json::from_value(json!({ "containers": [first, { "name": "b", "resources": second }] })).expect("a pod spec")
        };
        let open = of_whole_pod(&two(json!({ "limits": { "cpu": "1" } })));
        assert_eq!((open.cpu_quota, open.memory_limit), (Some(200_000), None));
        let closed = of_whole_pod(&two(json!({ "limits": { "cpu": "1", "memory": "32Mi" } })));
        assert_eq!((closed.cpu_quota, closed.memory_limit), (Some(200_000), Some(96 << 20)));
        assert_eq!(pod_cgroup("/c", Some(&spec(json!({}))), "u"), "/c/kubepods/besteffort/podu");
    }
}
