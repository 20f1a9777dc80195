//! From a Service to the addresses that answer for it. Pure, from the objects as they stand.

use super::service::Reference;
use crate::{
    endpoints::{self, service_of},
    objects::Objects,
};

/// Addresses that are kept of one Service: an extension API server has two or three.
const MAX_PLACES: usize = 64;

/// `10.42.0.7:6443`; the host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address or name.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Place {
    /// As it stands in a URL.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Why nobody answers for a Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No Service.
    #[error("service/{name} in {namespace:?} is not present")]
    Service {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
    },
    /// Another port.
    #[error("service/{name} in {namespace:?} is not listening on port {port}")]
    Port {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
        /// Asked for.
        port: u16,
    },
    /// No EndpointSlice.
    #[error("cannot find endpointslices for service/{name} in {namespace:?}")]
    Slices {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
    },
    /// None that is ready.
    #[error("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}")]
    Addresses {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
        /// Name of the port.
        port: String,
    },
}

impl Missing {
    /// Upstream's reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Service { .. } => "ServiceNotFound",
            Self::Port { .. } => "ServicePortError",
            Self::Slices { .. } => "EndpointsNotFound",
            Self::Addresses { .. } => "MissingEndpoints",
        }
    }
}

/// Everybody who is ready to answer for the Service, at least one.
pub fn find(objects: &dyn Objects, reference: &Reference) -> Result<Vec<Place>, Missing> {
    let (namespace, name) = (reference.namespace.clone(), reference.name.clone());
    let Some(service) = objects.get("", "services", &namespace, &name) else { return Err(Missing::Service { namespace, name }) };
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        let host = spec["externalName"].as_str().unwrap_or_default().to_owned();
        return Ok(vec![Place { host, port: reference.port }]);
    }
    let mut ports = spec["ports"].as_array().into_iter().flatten();
    let Some(port) = ports.find(|entry| entry["port"].as_u64() == Some(reference.port.into())) else {
        return Err(Missing::Port { namespace, name, port: reference.port });
    };
    let port_name = port["name"].as_str().unwrap_or_default();
    let mut slices = objects.list("discovery.k8s.io", "endpointslices", &namespace);
    slices.retain(|slice| service_of(slice) == Some(&*name));
    if slices.is_empty() {
        return Err(Missing::Slices { namespace, name });
    }
    let places: Vec<Place> = endpoints::ready(&slices, &name, port_name)
        .map(|endpoint| Place { host: endpoint.host.to_owned(), port: endpoint.port })
        .take(MAX_PLACES)
        .collect();
    if places.is_empty() { Err(Missing::Addresses { namespace, name, port: port_name.to_owned() }) } else { Ok(places) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::objects::PodRecord;

    #[derive(Debug)]
    struct Given {
        service: Option<Value>,
        slices: Vec<Value>,
    }

    #[async_trait::async_trait]
    impl Objects for Given {
        fn get(&self, _: &str, _: &str, _: &str, _: &str) -> Option<Value> {
            self.service.clone()
        }

        async fn appears(&self, _: &str, _: &str, _: &str, _: &str, _: Duration) -> Option<Value> {
            None
        }

        fn list(&self, _: &str, _: &str, _: &str) -> Vec<Value> {
            self.slices.clone()
        }

        fn version(&self, _: &str, _: &str) -> u64 {
            0
        }

        fn pods_on(&self, _: &str, _: &str) -> Vec<PodRecord> {
            Vec::new()
        }
    }

    #[test]
    fn why_and_where() {
        let reference = Reference { namespace: "n".into(), name: "s".into(), port: 443, ca_bundle: Vec::new(), insecure: false };
        let service = |port: u16| Some(json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}}));
        let slice = |of: &str, port: &str, ready: Value| {
            json!({"metadata": {"labels": {"kubernetes.io/service-name": of}}, "ports": [{"name": port, "port": 6443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
        };
        let check = |service: Option<Value>, slices: Vec<Value>| find(&Given { service, slices }, &reference).map_err(|m| m.reason());
        assert_eq!(check(None, vec![]), Err("ServiceNotFound"));
        assert_eq!(check(service(80), vec![]), Err("ServicePortError"));
        assert_eq!(check(service(443), vec![slice("t", "https", json!(true))]), Err("EndpointsNotFound"));
        assert_eq!(check(service(443), vec![slice("s", "https", json!(false))]), Err("MissingEndpoints"));
        assert_eq!(check(service(443), vec![slice("s", "http", json!(true))]), Err("MissingEndpoints"));
        let place = |host: &str, port| Place { host: host.into(), port };
        let slices = vec![slice("s", "https", json!(false)), slice("s", "https", Value::Null)];
        assert_eq!(check(service(443), slices), Ok(vec![place("10.0.0.1", 6443)]));
        let external = json!({"spec": {"type": "ExternalName", "externalName": "api.test"}});
        assert_eq!(check(Some(external), vec![]), Ok(vec![place("api.test", 443)]));
        assert_eq!(place("fd00::1", 1).authority(), "[fd00::1]:1");
    }
}
