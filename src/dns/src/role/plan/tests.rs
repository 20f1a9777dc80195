//! Objects in, records out; and steps that lead to the same table as looking once.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn of(spec: Value, slices: Value) -> records::Service {
    let object: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a Service");
    let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect("EndpointSlices");
    service(&object, slices.iter())
}

fn slice(endpoints: Value) -> Value {
    json!([{"metadata": {}, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "protocol": "TCP", "port": 8080}, {"name": "", "port": 1}]}])
}

fn http(number: u16) -> Port {
    Port { name: "http".into(), protocol: "tcp".into(), number }
}

#[test]
fn a_service_has_its_addresses_and_named_ports() {
    let found = of(
        json!({"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5", "fd00::5"], "ports": [{"name": "http", "port": 80}, {"port": 81, "protocol": "UDP"}]}),
        slice(json!([{"addresses": ["10.42.0.5"]}])),
    );
    assert_eq!(found.ips, ["10.43.0.5", "fd00::5"].map(|ip| ip.parse::<IpAddr>().expect("an address")));
    assert_eq!((found.ports, found.endpoints, found.external), (vec![http(80)], vec![], None));
}

#[test]
fn an_external_name_is_an_alias_and_nothing_else() {
    let found = of(json!({"type": "ExternalName", "externalName": "Example.COM."}), json!([]));
    assert_eq!(found, records::Service { external: Some("example.com".into()), ..records::Service::default() });
}

#[test]
fn a_service_without_an_address_yet_has_none() {
    assert_eq!(of(json!({"clusterIP": ""}), json!([])), records::Service::default());
}

#[test]
fn a_headless_service_has_those_that_are_ready() {
    let endpoints = json!([
        {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.42.0.6"], "conditions": {"ready": false}},
        {"addresses": ["10.42.0.7"]},
    ]);
    let labels = |all: bool| {
        let found = of(json!({"clusterIP": "None", "clusterIPs": ["None"], "publishNotReadyAddresses": all}), slice(endpoints.clone()));
        assert!(found.ips.is_empty() && found.endpoints.iter().all(|e| e.ports == [http(8080)]), "{found:?}");
        found.endpoints.iter().map(Endpoint::label).collect::<Vec<_>>()
    };
    assert_eq!(labels(false), ["db-0", "10-42-0-7"]);
    assert_eq!(labels(true), ["db-0", "10-42-0-6", "10-42-0-7"]);
}

#[test]
fn an_address_in_two_slices_is_answered_once() {
    let mut slices = slice(json!([{"addresses": ["10.42.0.5"]}]));
    let mut second = slices[0].clone();
    second["ports"] = json!([{"name": "http", "protocol": "TCP", "port": 9090}]);
    slices.as_array_mut().expect("slices").push(second);
    let found = of(json!({"clusterIP": "None"}), slices);
    assert_eq!(found.endpoints, [Endpoint { ip: [10, 42, 0, 5].into(), hostname: None, ports: vec![http(8080), http(9090)] }]);
}

fn pod(namespace: &str, born: &str, spec: Value, status: Value) -> Pod {
    let metadata = json!({"namespace": namespace, "creationTimestamp": born});
    let mut spec = spec;
    spec["containers"] = json!([]);
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("a Pod")
}

#[test]
fn an_address_is_of_the_pod_that_has_it_for_itself() {
    let born = "2026-01-01T00:00:00Z";
    let at = json!({"podIP": "10.42.0.5", "podIPs": [{"ip": "10.42.0.5"}, {"ip": "fd00::5"}]});
    assert_eq!(addresses(&pod("a", born, json!({}), at.clone())).len(), 2);
    assert!(addresses(&pod("a", born, json!({"hostNetwork": true}), at.clone())).is_empty());
    for phase in ["Succeeded", "Failed"] {
        assert!(addresses(&pod("a", born, json!({}), json!({"podIP": "10.42.0.5", "phase": phase}))).is_empty(), "{phase}");
    }
    let [old, young] = [pod("a", born, json!({}), at.clone()), pod("b", "2026-01-02T00:00:00Z", json!({}), at)];
    assert_eq!(namespace([&young, &old].into_iter()).as_deref(), Some("b"));
    assert_eq!(namespace([].into_iter()), None);
}

#[derive(Clone, Debug)]
enum Look {
    Service(u8, u8, Option<u8>),
    Namespace(u8, bool),
    Pod(u8, Option<u8>),
}

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let look = prop_oneof![
        (0..3u8, 0..3u8, prop::option::of(0..4u8)).prop_map(|(ns, name, ip)| Look::Service(ns, name, ip)),
        (0..3u8, any::<bool>()).prop_map(|(name, exists)| Look::Namespace(name, exists)),
        (0..4u8, prop::option::of(0..3u8)).prop_map(|(ip, ns)| Look::Pod(ip, ns)),
    ];
    prop::collection::vec(look, 0..60)
}

proptest! {
    /// Whoever was told the steps knows what the table knows, and looking again is no news.
    #[test]
    fn the_steps_lead_to_the_table(looks in looks()) {
        let (mut table, mut told) = (Table::default(), Records::default());
        for look in looks {
            for again in [false, true] {
                let step = match look.clone() {
                    Look::Service(ns, name, ip) => table.service(
                        &ns.to_string(),
                        &name.to_string(),
                        ip.map(|ip| records::Service { ips: vec![[10, 43, 0, ip].into()], ..records::Service::default() }),
                    ),
                    Look::Namespace(name, exists) => table.namespace(&name.to_string(), exists),
                    Look::Pod(ip, ns) => table.pod([10, 42, 0, ip].into(), ns.map(|ns| ns.to_string())),
                };
                prop_assert!(!again || step.is_none());
                step.into_iter().for_each(|step| told.apply(step));
            }
        }
        prop_assert_eq!(&told, table.records());
        let mut whole = Records::default();
        whole.apply(Change::All(Box::new(table.records().clone())));
        prop_assert_eq!(
            whole.reverse.keys().collect::<Vec<_>>(), told.reverse.keys().collect::<Vec<_>>(), "the reverse index follows"
        );
    }
}
