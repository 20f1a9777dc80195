//! Endpoints plans as tables of cases.

use super::*;

fn service(ports: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "d", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": ports}}))
    .unwrap()
}

fn pod(ip: &str, ready: bool, named: &[(&str, i32)]) -> Arc<Pod> {
    let ports: Vec<_> = named.iter().map(|(name, port)| json!({"name": name, "containerPort": port})).collect();
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": ip, "namespace": "d", "uid": ip},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]}}))
        .unwrap(),
    )
}

/// Subsets as `ready|notready:ports`.
fn check(ports: serde_json::Value, pods: &[Arc<Pod>], expected: &str) {
    let (subsets, _) = subsets(&service(ports), pods);
    let ips = |list: &Option<Vec<EndpointAddress>>| list.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(",");
    let words: Vec<String> = subsets
        .iter()
        .map(|s| {
            let ports: Vec<String> = s.ports.iter().flatten().map(|p| p.port.to_string()).collect();
            format!("{}|{}:{}", ips(&s.addresses), ips(&s.not_ready_addresses), ports.join(","))
        })
        .collect();
    assert_eq!(words.join(" "), expected);
}

#[test]
fn addresses_share_subsets_by_their_ports() {
    let http = json!([{"port": 80, "targetPort": 8080}]);
    check(http.clone(), &[], "");
    check(http, &[pod("10.1.0.2", true, &[]), pod("10.1.0.1", true, &[]), pod("10.1.0.3", false, &[])], "10.1.0.1,10.1.0.2|10.1.0.3:8080");
    let two = json!([{"name": "a", "port": 80, "targetPort": "x"}, {"name": "b", "port": 81, "targetPort": "y"}]);
    let both = pod("10.1.0.1", true, &[("x", 1), ("y", 2)]);
    check(two.clone(), &[both.clone(), pod("10.1.0.2", true, &[("x", 1), ("y", 2)])], "10.1.0.1,10.1.0.2|:1,2");
    check(two.clone(), &[both, pod("10.1.0.2", true, &[("x", 1)])], "10.1.0.1|:2 10.1.0.1,10.1.0.2|:1");
    check(two, &[pod("10.1.0.2", true, &[])], "");
}

#[test]
fn beyond_a_thousand_those_that_serve_stay() {
    let mut pods: Vec<_> = (0..600).map(|i| pod(&format!("10.1.{}.{}", i / 250, i % 250), false, &[])).collect();
    pods.extend((0..600).map(|i| pod(&format!("10.2.{}.{}", i / 250, i % 250), true, &[])));
    let service = service(json!([{"port": 80}]));
    let plan = plan(&Observed { service: Some(&service), pods: &pods, endpoints: None });
    let object = &plan.creates[0].object;
    assert_eq!(object["metadata"]["annotations"][OVER_CAPACITY], "truncated");
    let count = |field: &str| object["subsets"][0][field].as_array().unwrap().len();
    assert_eq!((count("addresses"), count("notReadyAddresses")), (600, 400));
}

#[test]
fn the_object_comes_changes_stays_and_goes_with_its_service() {
    let service = service(json!([{"port": 80}]));
    let pods = [pod("10.1.0.1", true, &[])];
    let first = plan(&Observed { service: Some(&service), pods: &pods, endpoints: None });
    let made: Endpoints = serde_json::from_value(first.creates[0].object.clone()).unwrap();
    assert_eq!(made.metadata.labels.as_ref().unwrap().keys().collect::<Vec<_>>(), [MANAGED_BY_LABEL, "team"]);
    assert_eq!(plan(&Observed { service: Some(&service), pods: &pods, endpoints: Some(&made) }), Plan::default());
    let empty = plan(&Observed { service: Some(&service), pods: &[], endpoints: Some(&made) });
    assert_eq!(empty.patches[0].body, json!({"subsets": []}));
    assert_eq!(plan(&Observed { service: None, pods: &[], endpoints: Some(&made) }).deletes.len(), 1);
    let by_hand = Endpoints::default();
    assert_eq!(plan(&Observed { service: None, pods: &[], endpoints: Some(&by_hand) }), Plan::default());
}
