//! Which pods stand behind a Service, and under which ports: the common ground of EndpointSlices and Endpoints.

use std::collections::BTreeMap;

use coracle_client::{
    Informer, Key, Lister,
    pod::{Container, Pod},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{pods::is_terminal, runner::Wakeups};

/// Label of headless Services' endpoints.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Wakes every Service whose selector matches a pod that changed, before or after.
pub fn watch_pods(wakeups: &Wakeups, services: &Informer<Service>, pods: &Informer<Pod>) {
    let lister = services.lister();
    wakeups.watch(pods, move |old, new| {
        let mut keys: Vec<Key> = [old, new].into_iter().flatten().flat_map(|pod| selecting(&lister, pod)).collect();
        keys.sort();
        keys.dedup();
        keys
    });
}

fn selecting(services: &Lister<Service>, pod: &Pod) -> Vec<Key> {
    let services = services.namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    services.iter().filter(|service| selector(service).is_some_and(|s| selects(s, pod))).map(|service| Key::of(&**service)).collect()
}

/// The Service's selector. `None`: its endpoints are somebody else's business.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|s| !s.is_empty())
}

/// Whether the selector matches the pod.
pub fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(name, value)| labels.is_some_and(|l| l.get(name) == Some(value)))
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None"))
}

/// `spec.publishNotReadyAddresses`.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// Whether the pod has an address that may serve: it has one, and has not finished.
pub fn has_address(pod: &Pod) -> bool {
    !is_terminal(pod) && !addresses(pod).is_empty()
}

/// All addresses of the pod.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if many.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { many }
}

/// The pod's hostname, when the Service gives it a name in DNS.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|h| named && !h.is_empty())
}

/// A port of the Service as this pod has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Name of the Service's port; may be empty.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// In the pod.
    pub port: i32,
    /// `appProtocol` of the Service's port.
    pub app_protocol: Option<String>,
}

/// The ports under which this pod serves; those that it does not have are left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut found: Vec<Port> = ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let number = target(port, &protocol, pod)?;
            Some(Port { name: port.name.clone().unwrap_or_default(), protocol, port: number, app_protocol: port.app_protocol.clone() })
        })
        .collect();
    found.dedup();
    found
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let named = |c: &Container| {
                let ports = c.ports.iter().flatten();
                ports
                    .filter(|p| p.protocol.as_deref().unwrap_or("TCP") == protocol)
                    .find(|p| p.name.as_ref() == Some(name))
                    .map(|p| p.container_port)
            };
            spec.containers.iter().chain(sidecars).find_map(named)
        }
    }
}

/// The Service's labels for its endpoints, with the mark of a headless one.
pub fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels
}
