//! Quality of service classes of pods, and how readily the kernel kills their containers for memory.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{Amounts, limits_of, requests};

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has equal requests and limits of cpu and memory.
    Guaranteed,
    /// Some have some.
    Burstable,
    /// None has any.
    BestEffort,
}

impl Qos {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }

    /// The directory below `kubepods`, with a slash before it; guaranteed pods are directly in it.
    pub fn directory(self) -> &'static str {
        match self {
            Qos::Guaranteed => "",
            Qos::Burstable => "/burstable",
            Qos::BestEffort => "/besteffort",
        }
    }
}

/// The class of a pod. Only cpu and memory count.
pub fn class(spec: Option<&PodSpec>) -> Qos {
    let Some(spec) = spec else { return Qos::BestEffort };
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = spec.resources.as_ref();
    if let Some(resources) = pod_level.filter(|r| r.requests.is_some() || r.limits.is_some()) {
        let (requests, limits) = (super::amounts(resources.requests.as_ref()), super::amounts(resources.limits.as_ref()));
        return judge(&requests, &limits).map_or(Qos::BestEffort, |g| if g { Qos::Guaranteed } else { Qos::Burstable });
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        match judge(&requests(container), &limits_of(container)) {
            None => guaranteed = false,
            Some(all) => {
                any = true;
                guaranteed &= all;
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// `None`: nothing is asked for. `Some(true)`: cpu and memory are limited, and requested as limited.
fn judge(requests: &Amounts, limits: &Amounts) -> Option<bool> {
    let of = |list: &Amounts, name: &str| list.get(name).copied().filter(|q| q.signum() > 0);
    let mut any = false;
    let mut all = true;
    for name in ["cpu", "memory"] {
        let (request, limit) = (of(requests, name), of(limits, name));
        any |= request.is_some() || limit.is_some();
        all &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
    }
    any.then_some(all)
}

/// `oom_score_adj` of a container: guaranteed ones last, best-effort ones first, the others by the share of memory they asked for. What
/// the pod asks for beyond its containers counts for each in equal parts; a sidecar is no less safe than the containers that it serves.
pub fn oom_score(spec: &PodSpec, container: &Container, node_memory_bytes: i64, critical: bool) -> i32 {
    if critical {
        return -997;
    }
    match class(Some(spec)) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let memory = |c: &Container| requests(c).get("memory").map_or(0, Quantity::units);
            let spare = spare_memory(spec);
            let mut request = memory(container);
            let sidecar = |c: &&Container| c.name == container.name && c.restart_policy.as_deref() == Some("Always");
            if spec.init_containers.iter().flatten().any(|c| sidecar(&c)) {
                request = request.max(spec.containers.iter().map(memory).min().unwrap_or(0));
            }
            let share = i128::from(request.saturating_add(spare)) * 1000 / i128::from(node_memory_bytes.max(1));
            // Never as safe as guaranteed, never as exposed as best effort.
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// Of the memory that the pod itself asks for, what its containers do not, in equal parts.
fn spare_memory(spec: &PodSpec) -> i64 {
    let own = super::amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let Some(own) = own.get("memory").map(Quantity::units) else { return 0 };
    let count = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let bare = PodSpec { overhead: None, ..spec.clone() };
    let asked = super::of_pod(&bare, requests).get("memory").map_or(0, Quantity::units);
    own.saturating_sub(asked).max(0) / i64::try_from(count.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(containers: serde_json::Value, want: Qos) {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": containers })).expect("a pod spec");
        assert_eq!(class(Some(&spec)), want, "{spec:?}");
    }

    #[test]
    fn classes() {
        check(json!([{ "name": "a" }]), Qos::BestEffort);
        check(json!([{ "name": "a", "resources": { "limits": { "memory": "24Mi" } } }]), Qos::Burstable);
        check(json!([{ "name": "a", "resources": { "limits": { "memory": "24Mi", "cpu": "100m" } } }]), Qos::Guaranteed);
        let equal = json!({ "limits": { "memory": "1Gi", "cpu": "1" }, "requests": { "memory": "1024Mi", "cpu": "1000m" } });
        check(json!([{ "name": "a", "resources": equal }]), Qos::Guaranteed);
        check(json!([{ "name": "a", "resources": equal }, { "name": "b" }]), Qos::Burstable);
        let less = json!({ "limits": { "memory": "1Gi", "cpu": "1" }, "requests": { "cpu": "500m" } });
        check(json!([{ "name": "a", "resources": less }]), Qos::Burstable);
        check(json!([{ "name": "a", "resources": { "requests": { "cpu": "0" } } }]), Qos::BestEffort);
        check(json!([{ "name": "a", "resources": { "requests": { "ephemeral-storage": "1Gi" } } }]), Qos::BestEffort);
    }

    #[test]
    fn oom_scores() {
        let check = |spec: serde_json::Value, name: &str, want: i32| {
            let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let container = all.clone().find(|c| c.name == name).expect("it is there");
            assert_eq!(oom_score(&spec, container, 4 << 30, false), want, "{spec:?}");
        };
        let asks = |name: &str, memory: &str| json!({ "name": name, "resources": { "requests": { "memory": memory } } });
        let all = json!({ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } });
        check(json!({ "containers": [all] }), "a", -997);
        check(json!({ "containers": [{ "name": "a" }] }), "a", 1000);
        check(json!({ "containers": [asks("a", "1Gi")] }), "a", 750);
        check(json!({ "containers": [asks("a", "4Gi")] }), "a", 3);
        check(json!({ "containers": [asks("a", "1")] }), "a", 999);
        let sidecar = json!({ "name": "s", "restartPolicy": "Always" });
        let with_sidecar = json!({ "containers": [asks("a", "1Gi"), asks("b", "2Gi")], "initContainers": [sidecar] });
        check(with_sidecar, "s", 750);
        let own = json!({ "requests": { "memory": "3Gi" } });
        let with_own = json!({ "containers": [asks("a", "1Gi"), { "name": "b" }], "resources": own });
        check(with_own.clone(), "a", 500);
        check(with_own, "b", 750);
    }
}
