//! From EndpointSlices to who is ready behind a Service's port. Pure.

use serde_json::Value;

/// One that answers.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint<'s> {
    /// `IPv4`, `IPv6`, `FQDN`.
    pub family: &'s str,
    /// Address or name.
    pub host: &'s str,
    /// Port.
    pub port: u16,
}

/// The Service that an EndpointSlice belongs to.
pub fn service_of(slice: &Value) -> Option<&str> {
    slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str()
}

/// The ready endpoints of a Service's port, which is named as the Service names it.
pub fn ready<'s>(slices: &'s [Value], service: &'s str, port_name: &'s str) -> impl Iterator<Item = Endpoint<'s>> {
    slices.iter().filter(move |slice| service_of(slice) == Some(service)).flat_map(move |slice| of_slice(slice, port_name))
}

fn of_slice<'s>(slice: &'s Value, port_name: &str) -> impl Iterator<Item = Endpoint<'s>> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.find(|entry| entry["name"].as_str().unwrap_or_default() == port_name).and_then(|entry| entry["port"].as_u64());
    let port = port.and_then(|port| u16::try_from(port).ok());
    let family = slice["addressType"].as_str().unwrap_or_default();
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    // Who says nothing is ready.
    let hosts = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).filter_map(|e| e["addresses"][0].as_str());
    hosts.filter_map(move |host| port.map(|port| Endpoint { family, host, port }))
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
        let found: Vec<_> = ready(&slices, "s", "web").collect();
        assert_eq!(found, [Endpoint { family: "IPv4", host: "10.0.0.2", port: 8443 }]);
        assert_eq!(ready(&slices, "s", "").count(), 0);
    }
}
