//! Defaults of pods and what they are made of that depend on other fields.

use serde_json::{Map, Value};

use super::{Fields, Procedure, has_members, object, object_or_new, set, text};
use crate::quantity::Quantity;

/// By message. Fields behind feature gates that are off by default are dropped, as upstream does.
pub(super) const PROCEDURES: &[(&str, Procedure)] = &[
    ("core.v1.Pod", pod),
    ("core.v1.PodSpec", pod_spec),
    ("core.v1.Container", container),
    ("core.v1.EphemeralContainer", container),
    ("core.v1.ImageVolumeSource", |source| {
        let policy = if is_latest(text(source, "reference")) { "Always" } else { "IfNotPresent" };
        set(source, "pullPolicy", policy);
    }),
    ("core.v1.Volume", volume),
    ("core.v1.PodStatus", pod_status),
    ("core.v1.Lifecycle", |lifecycle| drop(lifecycle.remove("stopSignal"))),
    ("core.v1.VolumeProjection", |source| drop(source.remove("clusterTrustBundle"))),
];

/// Only pods themselves, not the templates of other kinds.
fn pod(pod: &mut Fields) {
    let Some(spec) = object(pod, "spec") else { return };
    set(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(resources) = object(container, "resources") {
                request_what_is_limited(resources);
            }
            if host_network {
                publish_ports(container);
            }
        }
    }
    pod_level_requests(spec);
}

/// What is limited and not requested is requested up to the limit.
fn request_what_is_limited(resources: &mut Fields) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else { return };
    if let Some(requests) = object_or_new(resources, "requests") {
        for (name, value) in limits {
            requests.entry(name).or_insert(value);
        }
    }
}

/// In the node's network a container's port is the node's port.
fn publish_ports(container: &mut Fields) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        let number = port.get("containerPort").cloned().unwrap_or_default();
        if number.as_i64() != Some(0) {
            set(port, "hostPort", number);
        }
    }
}

/// Requests of the pod as a whole: what its containers ask for together, else the pod's limit.
fn pod_level_requests(spec: &mut Fields) {
    let limits = spec.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).filter(|l| !l.is_empty()).cloned();
    let Some(limits) = limits else { return };
    let mut asked = sum_of_requests(spec);
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    let Some(requests) = object(spec, "resources").and_then(|r| object_or_new(r, "requests")) else { return };
    asked.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
    for (name, value) in asked.into_iter().chain(limits) {
        if supported(&name) {
            requests.entry(name).or_insert(value);
        }
    }
    if requests.is_empty()
        && let Some(resources) = object(spec, "resources")
    {
        resources.remove("requests");
    }
}

/// Containers and sidecars together, or the largest init container where that is more.
fn sum_of_requests(spec: &Fields) -> Fields {
    let of = |container: &Value| -> Vec<(String, Quantity)> {
        let requests = container.get("resources").and_then(|r| r.get("requests")).and_then(Value::as_object);
        requests.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.parse().ok()?))).collect()
    };
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut sum = std::collections::BTreeMap::<String, Quantity>::new();
    let mut peak = sum.clone();
    let mut sidecars = sum.clone();
    let zero = Quantity::from_units(0);
    for init in list("initContainers") {
        let sidecar = init.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        for (name, value) in of(&init) {
            let running = sidecars.get(&name).copied().unwrap_or(zero).plus(value);
            if sidecar {
                sidecars.insert(name.clone(), running);
            }
            let highest = peak.get(&name).copied().map_or(running, |p| p.max(running));
            peak.insert(name, highest);
        }
    }
    for (name, value) in list("containers").iter().flat_map(of).chain(sidecars) {
        let total = sum.get(&name).copied().unwrap_or(zero).plus(value);
        sum.insert(name, total);
    }
    for (name, value) in peak {
        let total = sum.get(&name).copied().map_or(value, |s| s.max(value));
        sum.insert(name, total);
    }
    sum.into_iter().map(|(name, value)| (name, value.to_string().into())).collect()
}

/// The older name of the service account says the same as the newer one.
fn pod_spec(spec: &mut Fields) {
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = Value::from(name);
        spec.insert("serviceAccountName".into(), name.clone());
        spec.insert("serviceAccount".into(), name);
    }
}

fn container(container: &mut Fields) {
    let policy = if is_latest(text(container, "image")) { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", policy);
}

/// Characters of an image's name; a longer one is none.
const MAX_IMAGE_NAME: usize = 255;

/// An image that may change under its name: tagged `latest`, or neither tagged nor pinned by digest.
fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let valid = !name.is_empty()
        && name.len() <= MAX_IMAGE_NAME
        && !name.split('/').next_back().unwrap_or_default().is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:[]".contains(&b))
        && !name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().bytes().any(|b| b.is_ascii_uppercase())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    match name.rsplit('/').next().unwrap_or_default().split_once(':') {
        _ if !valid => false,
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty(),
    }
}

/// A volume that says nothing is an empty directory.
fn volume(volume: &mut Fields) {
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".into(), Value::Object(Map::new()));
    }
}

/// The pod's first address stands in both fields.
fn pod_status(status: &mut Fields) {
    let first = status.get("podIPs").and_then(|ips| ips.get(0)).and_then(|ip| ip.get("ip")).cloned();
    match (text(status, "podIP"), first) {
        ("", Some(ip)) => drop(status.insert("podIP".into(), ip)),
        (ip, None) if !ip.is_empty() => {
            let ips = serde_json::json!([{"ip": ip}]);
            status.insert("podIPs".into(), ips);
        }
        _ => {}
    }
    if !has_members(status, "podIPs") {
        status.remove("podIPs");
    }
}
