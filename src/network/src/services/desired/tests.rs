//! Cases of frontends: a Service and its slices as JSON, the frontends and backends as text.

use serde_json::{Value, json};

use super::*;

fn check(name: &str, service: Value, slices: Value, expected: &[(&str, &[&str])]) {
    let service: Service = serde_json::from_value(service).expect(name);
    let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect(name);
    let found: BTreeMap<String, Vec<String>> = frontends(&service, slices.iter(), "here")
        .into_iter()
        .map(|(frontend, desired)| {
            let protocol = if frontend.protocol == UDP { "udp" } else { "tcp" };
            let mut backends: Vec<_> = desired.backends.iter().map(|of| format!("{}:{}", ip(of.address), u16::from_be(of.port))).collect();
            backends.sort();
            if desired.affinity_seconds > 0 {
                backends.push(format!("for {} s", desired.affinity_seconds));
            }
            (format!("{protocol} {}:{}", ip(frontend.address), u16::from_be(frontend.port)), backends)
        })
        .collect();
    let expected: BTreeMap<String, Vec<String>> =
        expected.iter().map(|(frontend, backends)| (frontend.to_string(), backends.iter().map(ToString::to_string).collect())).collect();
    assert_eq!(found, expected, "{name}");
}

fn ip(address: coracle_ebpf_common::Address) -> String {
    if address == ANY { "any".into() } else { std::net::Ipv4Addr::from(address[3].to_ne_bytes()).to_string() }
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec})
}

fn slice(endpoints: Value, ports: Value) -> Value {
    json!({"metadata": {"name": "s-1"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports})
}

fn one(address: &str, ready: bool, serving: bool, terminating: bool, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
}

#[test]
fn which_frontends_a_service_has() {
    let endpoints = json!([{"addresses": ["10.42.0.5"]}]);
    let slices = json!([slice(endpoints, json!([{"name": "", "port": 8080, "protocol": "TCP"}]))]);
    let back: &[&str] = &["10.42.0.5:8080"];
    check(
        "cluster address",
        service(json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]})),
        slices.clone(),
        &[("tcp 10.43.0.5:80", back)],
    );
    check("headless", service(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]})), slices.clone(), &[]);
    check("external name", service(json!({"type": "ExternalName", "externalName": "x.y", "ports": [{"port": 80}]})), slices.clone(), &[]);
    check("no spec", json!({"metadata": {"name": "s"}}), slices.clone(), &[]);
    check(
        "node port and external address",
        service(json!({"clusterIP": "10.43.0.5", "externalIPs": ["192.0.2.9"], "ports": [{"port": 80, "nodePort": 30080}]})),
        slices.clone(),
        &[("tcp 10.43.0.5:80", back), ("tcp 192.0.2.9:80", back), ("tcp any:30080", back)],
    );
    let mut balanced = service(json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]}));
    balanced["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "192.0.2.8", "ipMode": "Proxy"}, {"hostname": "x"}]}});
    check("load balancer", balanced, slices.clone(), &[("tcp 10.43.0.5:80", back), ("tcp 192.0.2.7:80", back)]);
    check("port out of range", service(json!({"clusterIP": "10.43.0.5", "ports": [{"port": 70000}, {"port": -1}]})), slices.clone(), &[]);
    check("SCTP", service(json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80, "protocol": "SCTP"}]})), slices.clone(), &[]);
    check("IPv6", service(json!({"clusterIP": "fd00::5", "ports": [{"port": 80}]})), slices.clone(), &[]);
    let mut other = service(json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]}));
    other["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    check("somebody else's", other, slices, &[]);
}

#[test]
fn which_endpoints_answer() {
    let spec = json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]});
    let ports = json!([{"port": 80}]);
    let front = "tcp 10.43.0.5:80";
    for (name, endpoints, expected) in [
        ("ready ones alone", json!([one("1.1.1.1", true, true, false, ""), one("1.1.1.2", false, true, true, "")]), &["1.1.1.1:80"][..]),
        (
            "those that end, when none is ready",
            json!([one("1.1.1.1", false, false, false, ""), one("1.1.1.2", false, true, true, "")]),
            &["1.1.1.2:80"],
        ),
        ("none", json!([one("1.1.1.1", false, false, true, ""), one("1.1.1.2", false, true, false, "")]), &[]),
        ("unknown is ready", json!([{"addresses": ["1.1.1.1"]}]), &["1.1.1.1:80"]),
        ("not an address", json!([{"addresses": ["x"]}, {"addresses": []}]), &[]),
        ("twice is once", json!([{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.1", "9.9.9.9"]}]), &["1.1.1.1:80"]),
    ] {
        check(name, service(spec.clone()), json!([slice(endpoints, ports.clone())]), &[(front, expected)]);
    }
    check("no slices", service(spec.clone()), json!([]), &[(front, &[])]);
    let mut v6 = slice(json!([{"addresses": ["fd00::1"]}]), ports.clone());
    v6["addressType"] = json!("IPv6");
    check("other family", service(spec), json!([v6]), &[(front, &[])]);
}

#[test]
fn ports_meet_by_name_and_protocol() {
    let spec = json!({"clusterIP": "10.43.0.5", "ports": [
        {"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 53, "protocol": "TCP"}]});
    let ends = json!([{"addresses": ["1.1.1.1"]}]);
    let first = slice(
        ends.clone(),
        json!([{"name": "a", "port": 8080}, {"name": "b", "port": 5353, "protocol": "UDP"}, {"name": "c", "port": 5353, "protocol": "UDP"}]),
    );
    let second = slice(json!([{"addresses": ["1.1.1.2"]}]), json!([{"name": "a", "port": 9090}, {"name": "z", "port": 1}, {"name": "b"}]));
    check(
        "slices with ports of their own",
        service(spec),
        json!([first, second]),
        &[("tcp 10.43.0.5:80", &["1.1.1.1:8080", "1.1.1.2:9090"]), ("udp 10.43.0.5:53", &["1.1.1.1:5353"]), ("tcp 10.43.0.5:53", &[])],
    );
}

#[test]
fn policies_keep_traffic_on_the_node() {
    let ends = json!([one("1.1.1.1", true, true, false, "here"), one("1.1.1.2", true, true, false, "there")]);
    let slices = json!([slice(ends, json!([{"port": 80}]))]);
    let (here, both): (&[&str], &[&str]) = (&["1.1.1.1:80"], &["1.1.1.1:80", "1.1.1.2:80"]);
    for (internal, external, cluster, node) in [
        ("Cluster", "Cluster", both, both),
        ("Local", "Cluster", here, both),
        ("Cluster", "Local", both, here),
        ("Local", "Local", here, here),
    ] {
        let spec = json!({"clusterIP": "10.43.0.5", "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
            "ports": [{"port": 80, "nodePort": 30080}]});
        check(&format!("{internal} {external}"), service(spec), slices.clone(), &[("tcp 10.43.0.5:80", cluster), ("tcp any:30080", node)]);
    }
}

#[test]
fn affinity_lasts_as_long_as_said() {
    for (config, expected) in [
        (json!({"sessionAffinity": "ClientIP"}), &["for 10800 s"][..]),
        (json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}}), &["for 7 s"]),
        (json!({"sessionAffinity": "None"}), &[]),
    ] {
        let mut spec = json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]});
        for (key, value) in config.as_object().expect("object") {
            spec[key] = value.clone();
        }
        check("affinity", service(spec), json!([]), &[("tcp 10.43.0.5:80", expected)]);
    }
}
