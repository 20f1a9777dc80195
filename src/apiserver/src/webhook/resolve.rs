//! From a Service to one of its endpoints. The server looks itself: it must not depend on the dataplane of the node that it happens to be on.

use crate::{endpoints, objects::Objects, registry::chance};

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
    let mut found: Vec<_> = endpoints::ready(&slices, name, port["name"].as_str().unwrap_or_default()).collect();
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
