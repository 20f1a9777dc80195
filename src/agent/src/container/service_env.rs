//! The variables that tell a container of the Services of its namespace (`{NAME}_SERVICE_HOST`, Docker's link variables).

use k8s_openapi::api::core::v1::Service;

/// Variables of all `services` that have an address, sorted by name. The API's own Service comes in from namespace `default`.
pub fn variables(services: &[Service]) -> Vec<(String, String)> {
    let mut services: Vec<&Service> = services.iter().collect();
    services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    services.into_iter().flat_map(of_service).collect()
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let Some(first) = spec.ports.as_ref().and_then(|p| p.first()) else { return Vec::new() };
    if address.is_empty() || address == "None" {
        return Vec::new();
    }
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = |protocol: &str, port: i32| format!("{}://{host}:{port}", protocol.to_lowercase());
    let mut out = vec![(format!("{name}_SERVICE_HOST"), address.to_owned()), (format!("{name}_SERVICE_PORT"), first.port.to_string())];
    for port in spec.ports.iter().flatten() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    out.push((format!("{name}_PORT"), url(first.protocol.as_deref().unwrap_or("TCP"), first.port)));
    for port in spec.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        out.push((prefix.clone(), url(protocol, port.port)));
        out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_of_two_ports() {
        let service = |value| serde_json::from_value::<Service>(value).expect("a service");
        let services = [
            service(json!({ "metadata": { "name": "svc-env" }, "spec": { "clusterIP": "10.0.0.1", "ports": [
                { "name": "web", "port": 80 }, { "name": "alt", "port": 81, "protocol": "UDP" }] } })),
            service(json!({ "metadata": { "name": "headless" }, "spec": { "clusterIP": "None", "ports": [{ "port": 1 }] } })),
        ];
        let got: Vec<String> = variables(&services).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        let want = "SVC_ENV_SERVICE_HOST=10.0.0.1 SVC_ENV_SERVICE_PORT=80 SVC_ENV_SERVICE_PORT_WEB=80 SVC_ENV_SERVICE_PORT_ALT=81 \
            SVC_ENV_PORT=tcp://10.0.0.1:80 SVC_ENV_PORT_80_TCP=tcp://10.0.0.1:80 SVC_ENV_PORT_80_TCP_PROTO=tcp SVC_ENV_PORT_80_TCP_PORT=80 \
            SVC_ENV_PORT_80_TCP_ADDR=10.0.0.1 SVC_ENV_PORT_81_UDP=udp://10.0.0.1:81 SVC_ENV_PORT_81_UDP_PROTO=udp \
            SVC_ENV_PORT_81_UDP_PORT=81 SVC_ENV_PORT_81_UDP_ADDR=10.0.0.1";
        assert_eq!(got.join(" "), want.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
