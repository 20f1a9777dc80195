//! What Services get, keep and lose.

use serde_json::{Value, json};

use super::*;
use crate::allocator::Services;

fn pool() -> Services {
    Services::new("10.43.0.0/24", 30000..=30099).unwrap()
}

fn run(pool: &Services, mut service: Value, old: Option<&Value>) -> Result<Value, Vec<Cause>> {
    let mut reservation = pool.begin();
    let mut seed = 0;
    let mut random = || {
        seed += 1;
        seed
    };
    allocate(&mut service, old, &mut reservation, &mut random)?;
    reservation.keep();
    Ok(service)
}

fn of(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

#[test]
fn a_cluster_service_gets_an_address_and_keeps_it() {
    let pool = pool();
    let made = run(&pool, of(json!({"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"port": 80}]})), None).unwrap();
    assert_eq!(made["spec"]["clusterIPs"][0], made["spec"]["clusterIP"]);
    assert_eq!((&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
    let bare = of(json!({"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"port": 81}]}));
    let updated = run(&pool, bare, Some(&made)).unwrap();
    assert_eq!(updated["spec"]["clusterIPs"], made["spec"]["clusterIPs"]);
    let other = of(json!({"clusterIP": made["spec"]["clusterIP"], "ports": [{"port": 80}]}));
    let causes = run(&pool, other, None).unwrap_err();
    assert_eq!((causes[0].field.as_str(), causes[0].reason), ("spec.clusterIPs", "FieldValueInvalid"));
}

#[test]
fn types_bring_and_take_node_ports() {
    let pool = pool();
    let cluster = run(&pool, of(json!({"type": "ClusterIP", "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]})), None).unwrap();
    let mut next = cluster.clone();
    next["spec"]["type"] = "NodePort".into();
    let exposed = run(&pool, next, Some(&cluster)).unwrap();
    let ports = &exposed["spec"]["ports"];
    assert!(ports[0]["nodePort"].is_u64());
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"], "TCP and UDP of one port share");
    let mut back = exposed.clone();
    back["spec"]["type"] = "ClusterIP".into();
    let hidden = run(&pool, back, Some(&exposed)).unwrap();
    assert_eq!(hidden["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(Holding::of(&exposed).without(&Holding::of(&hidden)).ports.len(), 1);
}

#[test]
fn wrong_ports_are_named() {
    let pool = pool();
    for (spec, field) in [
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}), "spec.ports[0].nodePort"),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}, {"port": 81, "nodePort": 30005}]}),
            "spec.ports[1].nodePort",
        ),
    ] {
        assert_eq!(run(&pool, of(spec), None).unwrap_err()[0].field, field);
    }
    // What a failed write took is free again.
    assert!(run(&pool, of(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]})), None).is_ok());
}

#[test]
fn headless_and_external_services_take_nothing() {
    let pool = pool();
    let headless = run(&pool, of(json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}})), None).unwrap();
    assert_eq!((&headless["spec"]["clusterIPs"], &headless["spec"]["ipFamilyPolicy"]), (&json!(["None"]), &json!("SingleStack")));
    let bare = run(&pool, of(json!({"type": "ClusterIP", "clusterIP": "None"})), None).unwrap();
    assert_eq!(bare["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let external = run(&pool, of(json!({"type": "ExternalName", "externalName": "x.test"})), None).unwrap();
    assert_eq!(external["spec"].get("clusterIP"), None);
    let cluster = run(&pool, of(json!({"type": "ClusterIP", "ports": [{"port": 80}]})), None).unwrap();
    let mut gone = cluster.clone();
    gone["spec"]["type"] = "ExternalName".into();
    let gone = run(&pool, gone, Some(&cluster)).unwrap();
    assert_eq!((gone["spec"].get("clusterIP"), gone["spec"].get("clusterIPs")), (None, None));
}
