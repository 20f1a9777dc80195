//! The downward API: fields of the pod and amounts of its containers as text.

use std::{collections::BTreeMap, net::IpAddr};

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::resources::{Amounts, limits_of, requests};

/// What the node knows of the pod beside its object.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The node's.
    pub host_ips: Vec<IpAddr>,
    /// What pods may take of the node: an unlimited container is told that.
    pub allocatable: Amounts,
}

/// Why a reference gives no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    /// unsupported field {0:?}
    #[error("unsupported field {0:?}")]
    Field(String),
    /// unsupported resource {0:?}
    #[error("unsupported resource {0:?}")]
    Resource(String),
    /// there is no container {0:?}
    #[error("there is no container {0:?}")]
    Container(String),
}

/// The text of `fieldRef.fieldPath`.
pub fn field(pod: &Pod, path: &str, known: &Known) -> Result<String, DownwardError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let all = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(DownwardError::Field(path.to_owned())),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => map_text(meta.labels.as_ref()),
        "metadata.annotations" => map_text(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" => first(&known.pod_ips),
        "status.podIPs" => all(&known.pod_ips),
        "status.hostIP" => first(&known.host_ips),
        "status.hostIPs" => all(&known.host_ips),
        _ => return Err(DownwardError::Field(path.to_owned())),
    })
}

/// `key="value"` lines, sorted.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// The text of `resourceFieldRef`; `own` is the container that asks.
pub fn resource(pod: &Pod, own: Option<&Container>, selector: &ResourceFieldSelector, known: &Known) -> Result<String, DownwardError> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let spec = pod.spec.as_ref();
    let mut containers = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let container = match named {
        Some(name) => containers.find(|c| c.name == name).ok_or_else(|| DownwardError::Container(name.to_owned()))?,
        None => own.ok_or_else(|| DownwardError::Container(String::new()))?,
    };
    let unsupported = || DownwardError::Resource(selector.resource.clone());
    let (side, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let zero = Quantity::from_units(0);
    let of_node = || known.allocatable.get(name).copied().unwrap_or(zero);
    let amount = match side {
        "limits" => limits_of(container).get(name).copied().filter(|q| q.signum() > 0).unwrap_or_else(of_node),
        "requests" => requests(container).get(name).or(limits_of(container).get(name)).copied().unwrap_or(zero),
        _ => return Err(unsupported()),
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        return Err(unsupported());
    }
    let divisor = selector.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok()).filter(|d| d.signum() > 0);
    let divisor = divisor.unwrap_or(Quantity::from_units(1));
    // Rounded up; cpu is counted in thousandths, the rest in units.
    let (amount, divisor) = if name == "cpu" { (amount.millis(), divisor.millis()) } else { (amount.units(), divisor.units()) };
    Ok((amount.max(0) as u64).div_ceil(divisor.max(1) as u64).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "app": "demo", "tier": "a-b" }, "annotations": { "x": "say \"hi\"" } },
            "spec": { "nodeName": "node", "containers": [{ "name": "c", "resources": {
                "limits": { "memory": "24Mi", "cpu": "1500m" }, "requests": { "cpu": "10m" } } }] }
        }))
        .expect("a pod");
        let known = Known { pod_ips: vec!["10.0.0.1".parse().expect("ip"), "fd00::1".parse().expect("ip")], ..Known::default() };
        let of = |path: &str| field(&pod, path, &known);
        assert_eq!(of("metadata.labels").as_deref(), Ok("app=\"demo\"\ntier=\"a-b\""));
        assert_eq!(of("metadata.annotations['x']").as_deref(), Ok("say \"hi\""));
        assert_eq!(of("metadata.labels['none']").as_deref(), Ok(""));
        assert_eq!(of("status.podIPs").as_deref(), Ok("10.0.0.1,fd00::1"));
        assert_eq!(of("spec.containers"), Err(DownwardError::Field("spec.containers".into())));
        let own = &pod.spec.as_ref().expect("a spec").containers[0];
        let amount = |name: &str, divisor: &str| {
            let selector = serde_json::from_value(json!({ "resource": name, "divisor": divisor })).expect("a selector");
            resource(&pod, Some(own), &selector, &known)
        };
        assert_eq!(amount("limits.cpu", "0").as_deref(), Ok("2"));
        assert_eq!(amount("requests.cpu", "1m").as_deref(), Ok("10"));
        assert_eq!(amount("limits.memory", "1Ki").as_deref(), Ok("24576"));
        assert_eq!(amount("limits.memory", "0").as_deref(), Ok("25165824"));
        assert_eq!(amount("limits.gpu", "0"), Err(DownwardError::Resource("limits.gpu".into())));
    }
}
