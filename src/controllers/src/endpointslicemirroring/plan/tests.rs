//! Mirroring: what becomes of subsets, and that slices once right stay as they are.

use serde_json::{Value, json};

use super::*;
use crate::plan::Doomed;

fn endpoints(subsets: Value) -> Endpoints {
    let metadata = json!({"name": "web", "namespace": "d", "uid": "e", "resourceVersion": "1", "labels": {"a": "b"},
        "annotations": {"note": "x", "endpoints.kubernetes.io/last-change-trigger-time": "t"}});
    serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
}

/// The slices after a plan, as the API would hold them.
fn made(plan: &Plan) -> Vec<Arc<EndpointSlice>> {
    let slices = plan.creates.iter().enumerate().map(|(at, create)| {
        let mut slice: EndpointSlice = serde_json::from_value(create.object.clone()).unwrap();
        slice.metadata.name = Some(format!("web-{at}"));
        slice.metadata.uid = Some(format!("s{at}"));
        Arc::new(slice)
    });
    slices.collect()
}

/// `family ports: addresses`, not ready ones in brackets.
fn told(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let one = |slice: &Arc<EndpointSlice>| {
        let ports: Vec<String> = slice_ports(slice).iter().map(|p| format!("{}={}", p.name, p.port)).collect();
        let addresses = slice.endpoints.iter().flatten().map(|e| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
            if ready { e.addresses[0].clone() } else { format!("[{}]", e.addresses[0]) }
        });
        format!("{} {}: {}", slice.address_type, ports.join(","), addresses.collect::<Vec<_>>().join(" "))
    };
    slices.iter().map(one).collect()
}

fn check(subsets: Value, expected: &[&str]) {
    let endpoints = endpoints(subsets);
    let slices = made(&plan(&endpoints, &[]));
    assert_eq!(told(&slices), expected);
    assert_eq!(plan(&endpoints, &slices), Plan::default(), "a second look writes nothing");
}

#[test]
fn subsets_become_slices() {
    let port = json!([{"name": "http", "port": 80}]);
    check(
        json!([{"addresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": port}]),
        &["IPv4 http=80: 10.0.0.1 10.0.0.2 [10.0.0.3]"],
    );
    check(
        json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "what"}], "ports": port}]),
        &["IPv4 http=80: 10.0.0.1", "IPv6 http=80: fd00::1"],
    );
    // One address with the ports of two subsets.
    check(
        json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": port}, {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "x", "port": 81}]}]),
        &["IPv4 http=80,x=81: 10.0.0.1"],
    );
    check(
        json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": port}, {"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": port}]),
        &["IPv4 http=80: [10.0.0.1]"],
    );
    check(json!([{"addresses": [{"ip": "10.0.0.1"}]}]), &["IPv4 : 10.0.0.1"]);
    check(json!([]), &[]);
}

#[test]
fn a_slice_is_changed_rather_than_replaced() {
    let of = |port: i32, ip: &str| endpoints(json!([{"addresses": [{"ip": ip}], "ports": [{"port": port}]}]));
    let slices = made(&plan(&of(80, "10.0.0.1"), &[]));
    let labels = slices[0].metadata.labels.clone().unwrap();
    assert_eq!((labels["a"].as_str(), labels[MANAGED_BY_LABEL].as_str(), labels[SERVICE_LABEL].as_str()), ("b", MANAGED_BY, "web"));
    assert_eq!(slices[0].metadata.annotations.as_ref().unwrap().len(), 1);
    let moved = plan(&of(81, "10.0.0.1"), &slices);
    assert_eq!((moved.patches.len(), moved.creates.len(), moved.deletes.len()), (1, 0, 0));
    assert_eq!(moved.patches[0].body["ports"][0]["port"], 81);
    assert!(moved.patches[0].body["endpoints"].is_null());
    let other = plan(&of(80, "fd00::1"), &slices);
    assert_eq!((other.patches.len(), other.creates.len(), other.deletes.len()), (0, 1, 1));
    let gone = none(&slices);
    assert!(matches!(&gone.deletes[0].doomed, Doomed::One(target) if &*target.key.name == "web-0"));
}

#[test]
fn some_endpoints_are_left_alone() {
    let with = |metadata: Value| is_mirrored(&serde_json::from_value(json!({"metadata": metadata})).unwrap());
    assert!(with(json!({})) && with(json!({"labels": {SKIP_LABEL: "false"}})));
    assert!(!with(json!({"labels": {SKIP_LABEL: "true"}})) && !with(json!({"annotations": {LEADER_ANNOTATION: "{}"}})));
}
