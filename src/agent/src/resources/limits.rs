//! Requests and limits as cgroup settings of containers and pods.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use coracle_runtime::Resources;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::{Amounts, limits_of, of_pod, qos, requests};

/// Microseconds over which CPU is limited: the field's value.
const CPU_PERIOD_US: u64 = 100_000;
/// The least that the kernel takes.
const CPU_QUOTA_LEAST_US: i64 = 1_000;
/// Weight of one core.
const SHARES_PER_CORE: i64 = 1024;
/// The range of weights that the kernel takes.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The cgroup of a pod, relative to the hierarchy.
pub fn pod_cgroup(root: &str, spec: Option<&PodSpec>, uid: &str) -> String {
    format!("{}/kubepods{}/pod{uid}", root.trim_end_matches('/'), qos::class(spec).directory())
}

/// Of one container.
pub fn of_container(spec: &PodSpec, container: &Container, node_memory_bytes: i64, node_pids: Option<i64>) -> Resources {
    let mut out = settings(&requests(container), &limits_of(container), &limits_of(container));
    let critical = spec.priority.is_some_and(|p| p >= 2_000_000_000);
    out.oom_score_adj = Some(qos::oom_score(qos::class(Some(spec)), container, node_memory_bytes, critical));
    out.pids_limit = node_pids;
    out
}

/// Of the pod as a whole: a limit holds only where every container has one.
pub fn of_whole_pod(spec: &PodSpec) -> Resources {
    let mut limits = of_pod(spec, limits_of);
    for name in ["cpu", "memory"] {
        let bare = |c: &Container| limits_of(c).get(name).is_none_or(|q| q.signum() == 0);
        if spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(bare) {
            limits.remove(name);
        }
    }
    let own = spec.resources.as_ref();
    for (name, amount) in super::amounts(own.and_then(|r| r.limits.as_ref())) {
        limits.insert(name, amount);
    }
    let mut asked = of_pod(spec, requests);
    for (name, amount) in super::amounts(own.and_then(|r| r.requests.as_ref())) {
        asked.insert(name, amount);
    }
    settings(&asked, &limits, &limits)
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

/// What a running container has, in the words of the API: as granted where its cgroup has just that, else as the cgroup says.
pub fn actual(granted: &ResourceRequirements, have: &Resources) -> ResourceRequirements {
    let mut out = granted.clone();
    let amounts = |list: &Option<BTreeMap<String, Text>>| super::amounts(list.as_ref());
    let want = settings(&amounts(&granted.requests), &amounts(&granted.limits), &Amounts::new());
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
    if have.cpu_shares != want.cpu_shares {
        let millis = have.cpu_shares.filter(|s| s > SHARES.start()).and_then(|s| i64::try_from((s * 1000).div_ceil(1024)).ok());
        set(|r| &mut r.requests, "cpu", millis.map(Quantity::from_millis));
    }
    let (have, want) = (changeable(have), changeable(&want));
    if have.cpu_quota != want.cpu_quota {
        let millis = have.cpu_quota.filter(|q| *q > 0).map(|q| q * 1000 / CPU_PERIOD_US as i64);
        set(|r| &mut r.limits, "cpu", millis.map(Quantity::from_millis));
    }
    if have.memory_limit != want.memory_limit {
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

fn shares(millis: i64) -> u64 {
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
    fn what_a_cgroup_has_is_told_as_the_api_has_it() {
        let of = |value: serde_json::Value| -> ResourceRequirements { serde_json::from_value(value).expect("resources") };
        let have = |value: serde_json::Value| {
            let spec = spec(value);
            of_container(&spec, &spec.containers[0], 4 << 30, None)
        };
        let small = json!({ "requests": { "cpu": "20m", "memory": "1Gi" }, "limits": { "cpu": "0.2", "memory": "2Gi" } });
        let large = json!({ "requests": { "cpu": "40m", "memory": "1Gi" }, "limits": { "cpu": "300m", "memory": "3Gi" } });
        assert_eq!(actual(&of(small.clone()), &have(small.clone())), of(small.clone()), "the words stay");
        let told = json!({ "requests": { "cpu": "40m", "memory": "1Gi" }, "limits": { "cpu": "300m", "memory": "3Gi" } });
        assert_eq!(actual(&of(small), &have(large.clone())), of(told));
        assert_eq!(actual(&of(large), &have(json!({}))), of(json!({ "requests": { "memory": "1Gi" } })));
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
