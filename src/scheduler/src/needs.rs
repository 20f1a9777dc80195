//! What a pod needs of a node: the sums that the resource filter compares, and the host ports.

use coracle_client::pod::{Container, Pod, PodSpec, PodStatus};
use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Amounts by resource name: `cpu` in thousandths, all others in units.
pub type Amounts = BTreeMap<Box<str>, i64>;

/// A port on the node: protocol, address (empty: all), port.
pub type HostPort = (Box<str>, Box<str>, i32);

/// What a pod needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Requests, effective over all its containers, with its overhead.
    pub requests: Amounts,
    /// Ports on the node.
    pub ports: Vec<HostPort>,
}

/// Reads them off the spec.
pub fn needs(pod: &Pod) -> Needs {
    let Some(spec) = &pod.spec else { return Needs::default() };
    Needs { requests: requests(spec, pod.status.as_ref()), ports: ports(spec) }
}

/// The larger of what runs together at the end and what any init container needs beside the sidecars before it (KEP-753). While a resize is
/// under way or waits, the node may have to hold the old and the new: the larger counts (KEP-1287, KEP-5419).
fn requests(spec: &PodSpec, status: Option<&PodStatus>) -> Amounts {
    let resizes = Resizes::of(status);
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            let own = resizes.container(container);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &container_requests(container));
            raise(&mut peak, &together);
        }
    }
    let mut total = sidecars;
    spec.containers.iter().for_each(|c| add(&mut total, &resizes.container(c)));
    raise(&mut total, &peak);
    // Requests of the pod as a whole take the place of the sum (KEP-2837).
    let overhead = spec.overhead.as_ref().map(amounts).unwrap_or_default();
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        total.extend(resizes.pod(amounts(whole), &overhead));
    }
    add(&mut total, &overhead);
    total.retain(|_, amount| *amount != 0);
    total
}

/// What the node says that a pod was granted and has, beside what its spec asks for.
struct Resizes<'a> {
    status: Option<&'a PodStatus>,
    /// The node can never grant the wish: only what is there counts.
    infeasible: bool,
}

impl<'a> Resizes<'a> {
    fn of(status: Option<&'a PodStatus>) -> Self {
        let mut conditions = status.iter().flat_map(|s| s.conditions.iter().flatten());
        let infeasible =
            conditions.any(|c| c.type_ == "PodResizePending" && c.status == "True" && c.reason.as_deref() == Some("Infeasible"));
        Self { status, infeasible }
    }

    fn container(&self, container: &Container) -> Amounts {
        let wish = container_requests(container);
        let Some(status) = self.status else { return wish };
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let Some(told) = all.into_iter().find(|s| s.name == container.name) else { return wish };
        self.largest(wish, [told.allocated_resources.as_ref(), told.resources.as_ref().and_then(|r| r.requests.as_ref())])
    }

    /// Of the pod as a whole, whose status counts its overhead in; and only of what it asks for as a whole.
    fn pod(&self, wish: Amounts, overhead: &Amounts) -> Amounts {
        let Some(status) = self.status else { return wish };
        let names: Vec<Box<str>> = wish.keys().cloned().collect();
        let more = overhead.iter().filter(|(name, _)| wish.contains_key(*name)).map(|(name, amount)| (name.clone(), *amount)).collect();
        let mut gross = wish;
        add(&mut gross, &more);
        let told = [status.allocated_resources.as_ref(), status.resources.as_ref().and_then(|r| r.requests.as_ref())];
        let mut all = self.largest(gross, told);
        all.retain(|name, _| names.contains(name));
        subtract(&mut all, &more);
        all
    }

    fn largest(&self, wish: Amounts, told: [Option<&BTreeMap<String, Text>>; 2]) -> Amounts {
        let mut told = told.into_iter().flatten().map(amounts).filter(|list| !list.is_empty()).peekable();
        let ignores_wish = self.infeasible && told.peek().is_some();
        let mut out = if ignores_wish { Amounts::new() } else { wish };
        told.for_each(|list| raise(&mut out, &list));
        out
    }
}

fn container_requests(container: &Container) -> Amounts {
    container.resources.as_ref().and_then(|r| r.requests.as_ref()).map(amounts).unwrap_or_default()
}

/// Quantities as whole numbers; what cannot be read counts as nothing (the API server lets none in).
pub fn amounts(list: &BTreeMap<String, Text>) -> Amounts {
    let number = |name: &str, text: &Text| {
        let quantity: Quantity = text.0.parse().unwrap_or(Quantity::from_units(0));
        if name == "cpu" { quantity.millis() } else { quantity.units() }
    };
    list.iter().map(|(name, text)| (name.as_str().into(), number(name, text))).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

/// Takes `less` from `sum`.
pub fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_sub(*amount);
    }
}

fn raise(sum: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let entry = sum.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

fn ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let host = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let number =
            port.host_port.or(if spec.host_network == Some(true) { Some(port.container_port) } else { None }).filter(|p| *p > 0)?;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let address = port.host_ip.as_deref().filter(|ip| !matches!(*ip, "0.0.0.0" | "::")).unwrap_or("");
        Some((protocol.into(), address.into(), number))
    };
    ports.filter_map(host).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: serde_json::Value, want: &[(&str, i64)]) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        let want: Amounts = want.iter().map(|(n, a)| ((*n).into(), *a)).collect();
        assert_eq!(needs(&pod).requests, want, "{spec}");
    }

    #[test]
    fn requests_are_the_peak_of_the_pods_life() {
        let c = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let sidecar = |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let mib = 1 << 20;
        check(json!({"containers": [c("100m"), c("200m")]}), &[("cpu", 300), ("memory", 2 * mib)]);
        check(json!({"containers": [c("100m")], "initContainers": [c("1")]}), &[("cpu", 1000), ("memory", mib)]);
        check(json!({"containers": [c("100m")], "initContainers": [sidecar("50m"), c("1")]}), &[("cpu", 1050), ("memory", mib)]);
        check(json!({"containers": [c("100m")], "initContainers": [c("1"), sidecar("950m")]}), &[("cpu", 1050), ("memory", mib)]);
        check(json!({"containers": [c("100m")], "overhead": {"cpu": "10m"}}), &[("cpu", 110), ("memory", mib)]);
        check(json!({"containers": [c("100m")], "resources": {"requests": {"cpu": "2"}}}), &[("cpu", 2000), ("memory", mib)]);
        check(json!({"containers": [{"name": "c"}]}), &[]);
    }

    fn check_resized(spec: serde_json::Value, status: serde_json::Value, want: &[(&str, i64)]) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": status})).expect("a pod");
        let want: Amounts = want.iter().map(|(n, a)| ((*n).into(), *a)).collect();
        assert_eq!(needs(&pod).requests, want, "{spec} {status}");
    }

    #[test]
    fn while_a_resize_lasts_the_larger_counts() {
        let spec = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let status = |granted: &str, has: &str| {
            json!({"containerStatuses": [{"name": "c", "restartCount": 0,
            "allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": has}}}]})
        };
        check_resized(spec("2"), status("1", "1"), &[("cpu", 2000)]);
        check_resized(spec("1"), status("2", "1"), &[("cpu", 2000)]);
        check_resized(spec("1"), status("1", "3"), &[("cpu", 3000)]);
        let mut never = status("1", "1500m");
        never["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        check_resized(spec("100"), never.clone(), &[("cpu", 1500)]);
        never["conditions"][0]["reason"] = json!("Deferred");
        check_resized(spec("100"), never, &[("cpu", 100_000)]);
        let mut sidecar = spec("1");
        sidecar["initContainers"] = json!([{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}]);
        let grown = json!({"initContainerStatuses": [{"name": "s", "restartCount": 0, "allocatedResources": {"cpu": "2"}}]});
        check_resized(sidecar, grown, &[("cpu", 3000)]);
    }

    #[test]
    fn while_a_pod_is_resized_as_a_whole_the_larger_counts() {
        let spec = |cpu: &str| json!({"containers": [{"name": "c"}], "overhead": {"cpu": "100m"}, "resources": {"requests": {"cpu": cpu}}});
        let status = |granted: &str, has: &str| json!({"allocatedResources": {"cpu": granted, "memory": "1Gi"}, "resources": {"requests": {"cpu": has}}});
        check_resized(spec("1"), json!({}), &[("cpu", 1100)]);
        check_resized(spec("1"), status("1100m", "1100m"), &[("cpu", 1100)]);
        check_resized(spec("1"), status("2100m", "1100m"), &[("cpu", 2100)]);
        check_resized(spec("1"), status("1100m", "3100m"), &[("cpu", 3100)]);
        let mut never = status("2100m", "1100m");
        never["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        check_resized(spec("50"), never, &[("cpu", 2100)]);
    }

    #[test]
    fn host_ports_are_named_whole() {
        let spec = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"}, {"containerPort": 1}]}]});
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        assert_eq!(needs(&pod).ports, [("TCP".into(), "".into(), 8080), ("UDP".into(), "127.0.0.1".into(), 53)]);
    }
}
