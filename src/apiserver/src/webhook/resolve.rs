//! From a Service to one of its endpoints. The server looks itself: it must not depend on the dataplane of the node that it happens to be on.

use serde_json::Value;

use crate::{objects::Objects, registry::chance};

/// Why a Service leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// No such Service.
    #[error("service {0:?} not found")]
    NoService(String),
    /// Of a type that has no endpoints here.
    #[error("unsupported service type {0:?}")]
    Type(String),
    /// The Service has no such port.
    #[error("no service port {port} found for service {name:?}")]
    NoPort {
        /// Of the Service.
        name: String,
        /// As it was asked for.
        port: u16,
    },
    /// None of its pods is ready.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoint(String),
}

/// The address and port of any ready endpoint of a Service's port.
pub(crate) fn endpoint(objects: &dyn Objects, namespace: &str, name: &str, port: u16) -> Result<(String, u16), ResolveError> {
    let service = objects.get("", "services", namespace, name).ok_or_else(|| ResolveError::NoService(name.to_owned()))?;
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        return Err(ResolveError::Type(kind.to_owned()));
    }
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = ports
        .iter()
        .find(|entry| entry["port"].as_u64() == Some(u64::from(port)))
        .ok_or_else(|| ResolveError::NoPort { name: name.to_owned(), port })?;
    let slices = objects.list("discovery.k8s.io", "endpointslices", namespace);
    let mut found = endpoints(&slices, name, port["name"].as_str().unwrap_or_default());
    // The Service's own family comes first, where it has two.
    if let Some(family) = service["spec"]["ipFamilies"][0].as_str()
        && found.iter().any(|endpoint| endpoint.family == family)
    {
        found.retain(|endpoint| endpoint.family == family);
    }
    if found.is_empty() {
        return Err(ResolveError::NoEndpoint(name.to_owned()));
    }
    let at = usize::try_from(chance::number()).unwrap_or(0) % found.len();
    let chosen = found.swap_remove(at);
    Ok((chosen.host.to_owned(), chosen.port))
}

#[derive(Debug, PartialEq, Eq)]
struct Endpoint<'s> {
    family: &'s str,
    host: &'s str,
    port: u16,
}

/// The ready endpoints of a Service's port.
fn endpoints<'s>(slices: &'s [Value], service: &str, port: &str) -> Vec<Endpoint<'s>> {
    let mut out = Vec::new();
    for slice in slices {
        if slice.pointer("/metadata/labels/kubernetes.io~1service-name").is_none_or(|label| label != service) {
            continue;
        }
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find(|entry| entry["name"].as_str().unwrap_or_default() == port).and_then(|entry| entry["port"].as_u64());
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        let family = slice["addressType"].as_str().unwrap_or_default();
        let ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
        let hosts =
            slice["endpoints"].as_array().into_iter().flatten().filter(ready).filter_map(|endpoint| endpoint["addresses"][0].as_str());
        out.extend(hosts.map(|host| Endpoint { family, host, port }));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_port_count() {
        let slice = |name: &str, ports: Value, endpoints: Value| {
            json!({"metadata": {"labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
        };
        let endpoint = |address: &str, ready: Value| json!({"addresses": [address], "conditions": {"ready": ready}});
        let slices = [
            slice("s", json!([{"name": "x", "port": 1}]), json!([endpoint("10.0.0.9", json!(true))])),
            slice(
                "s",
                json!([{"name": "web", "port": 8443}]),
                json!([endpoint("10.0.0.1", json!(false)), endpoint("10.0.0.2", Value::Null)]),
            ),
            slice("other", json!([{"name": "web", "port": 2}]), json!([endpoint("10.0.0.3", json!(true))])),
        ];
        assert_eq!(endpoints(&slices, "s", "web"), [Endpoint { family: "IPv4", host: "10.0.0.2", port: 8443 }]);
        assert_eq!(endpoints(&slices, "s", ""), []);
    }
}
