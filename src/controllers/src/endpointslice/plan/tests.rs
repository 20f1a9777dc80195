//! EndpointSlice plans: tables of cases, and convergence with few changed slices.

use std::collections::BTreeSet;

use coracle_client::Key;
use proptest::prelude::*;

use super::*;
use crate::model::Model;

fn service(words: &str) -> Service {
    let mut service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "svc", "resourceVersion": "1"},
        "spec": {"clusterIP": "10.43.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    }))
    .unwrap();
    let spec = service.spec.as_mut().unwrap();
    for word in words.split_whitespace() {
        match word {
            "headless" => spec.cluster_ip = Some("None".into()),
            "portless" => spec.ports = None,
            "publish" => spec.publish_not_ready_addresses = Some(true),
            "dual" => spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]),
            "named" => {
                spec.ports.as_mut().unwrap()[0].target_port =
                    Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("web".into()))
            }
            _ => panic!("{word}"),
        }
    }
    service
}

/// A pod in words: `ready`, `leaving`, `v6`, `port=N` (its port `web`), `host` (a name in DNS), `node=N`.
fn pod(n: usize, words: &str) -> Arc<Pod> {
    let mut pod = json!({"metadata": {"name": format!("p{n}"), "namespace": "d", "uid": format!("u{n}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": {"phase": "Running", "podIPs": [{"ip": format!("10.42.{}.{}", n / 250, n % 250)}]}});
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ready", _) => pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            ("leaving", _) => pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            ("v6", _) => pod["status"]["podIPs"].as_array_mut().unwrap().push(json!({"ip": format!("fd00::{n}")})),
            ("port", n) => pod["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": n.parse::<i32>().unwrap()}]),
            ("host", _) => (pod["spec"]["hostname"], pod["spec"]["subdomain"]) = (json!("h"), json!("web")),
            ("node", n) => pod["spec"]["nodeName"] = json!(n),
            _ => panic!("{word}"),
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// The new slices, in words.
fn check(service_words: &str, pods: &[&str], expected: &str) {
    let service = service(service_words);
    let pods: Vec<_> = pods.iter().enumerate().map(|(n, words)| pod(n, words)).collect();
    let plan = plan(&Observed { service: &service, pods: &pods, slices: &[], zone: &|node| (node == "zoned").then(|| "z".to_owned()) });
    let words: Vec<String> = plan
        .creates
        .iter()
        .map(|create| {
            let slice: EndpointSlice = serde_json::from_value(create.object.clone()).unwrap();
            let endpoints: Vec<String> = slice.endpoints.iter().flatten().map(describe).collect();
            let ports: Vec<String> = slice.ports.iter().flatten().map(|p| p.port.unwrap().to_string()).collect();
            format!("{} [{}] :{}", slice.address_type, endpoints.join(" "), ports.join(","))
        })
        .collect();
    assert_eq!(words.join("; "), expected);
}

fn describe(endpoint: &Endpoint) -> String {
    let c = endpoint.conditions.as_ref().unwrap();
    let flags: String =
        [(c.ready, 'r'), (c.serving, 's'), (c.terminating, 't')].iter().filter(|(f, _)| *f == Some(true)).map(|(_, l)| *l).collect();
    let more: String = [&endpoint.hostname, &endpoint.zone].into_iter().flatten().map(|s| format!("/{s}")).collect();
    format!("{}:{flags}{more}", endpoint.addresses.join(","))
}

#[test]
fn endpoints_of_pods() {
    check("", &[], "IPv4 [] :");
    check("", &["ready", ""], "IPv4 [10.42.0.0:rs 10.42.0.1:] :8080");
    check("", &["ready leaving", "leaving"], "IPv4 [10.42.0.0:st 10.42.0.1:t] :8080");
    check("publish", &["", "ready leaving"], "IPv4 [10.42.0.0:r 10.42.0.1:rst] :8080");
    check("named", &["ready port=1", "ready port=2", "ready"], "IPv4 [10.42.0.0:rs] :1; IPv4 [10.42.0.1:rs] :2");
    check("headless portless", &["ready host"], "IPv4 [10.42.0.0:rs/h] :");
    check("dual", &["ready v6"], "IPv4 [10.42.0.0:rs] :8080; IPv6 [fd00::0:rs] :8080");
    check("", &["ready node=zoned"], "IPv4 [10.42.0.0:rs/z] :8080");
}

#[test]
fn slices_hold_a_hundred() {
    let pods: Vec<_> = (0..250).map(|n| pod(n, "ready")).collect();
    let plan = plan(&Observed { service: &service(""), pods: &pods, slices: &[], zone: &|_| None });
    let sizes: Vec<_> = plan.creates.iter().map(|c| c.object["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
}

fn turn(model: &Model, key: &Key) -> bool {
    let Some(service) = model.seen::<Service>().into_iter().next() else { return false };
    model.turn("endpointslice", key, |_, _| {
        let mut pods = model.seen::<Pod>();
        pods.retain(|p| backends::selects(backends::selector(&service).unwrap(), p) && backends::has_address(p));
        let slices = model.seen::<EndpointSlice>();
        plan(&Observed { service: &service, pods: &pods, slices: &slices, zone: &|_| None })
    })
}

fn add(model: &Model, n: usize, words: &str) {
    model.add(&*pod(n, words));
}

#[derive(Clone, Debug)]
enum Step {
    Turn,
    Look(&'static str, u8),
    Add(u8, bool),
    Ready(u8),
    Remove(u8),
    Hide(u8),
    Meddle(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Turn),
        3 => (prop::sample::select(vec!["Pod", "EndpointSlice", "Service"]), any::<u8>()).prop_map(|(kind, part)| Step::Look(kind, part)),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(n, port)| Step::Add(n, port)),
        2 => any::<u8>().prop_map(Step::Ready),
        2 => any::<u8>().prop_map(Step::Remove),
        1 => any::<u8>().prop_map(Step::Hide),
        1 => any::<u8>().prop_map(Step::Meddle),
    ]
}

fn apply(model: &Model, key: &Key, step: &Step, next: &mut usize) {
    let nth = |n: u8| crate::replicaset::plan::tests::nth(model, n);
    match step {
        Step::Turn => drop(turn(model, key)),
        Step::Look(kind, part) => model.look(kind, *part),
        Step::Add(n, port) => {
            *next += 1;
            add(
                model,
                *next,
                if *port {
                    "ready port=7"
                } else if n % 2 == 0 {
                    "port=8"
                } else {
                    "ready port=8"
                },
            );
        }
        Step::Ready(n) => drop(nth(*n).map(|key| crate::replicaset::plan::tests::make_ready(model, &key, n % 2 == 0))),
        Step::Remove(n) => drop(nth(*n).map(|key| model.vanish::<Pod>(&key))),
        Step::Hide(n) => drop(nth(*n).map(|key| model.edit::<Pod>(&key, |p| p.metadata.labels = None))),
        Step::Meddle(n) => {
            let slices = model.all::<EndpointSlice>();
            if let Some(slice) = slices.get(usize::from(*n) % slices.len().max(1)) {
                let slice = Key::of(&**slice);
                if n % 2 == 0 {
                    model.remove::<EndpointSlice>(&slice);
                } else {
                    model.edit::<EndpointSlice>(&slice, |s| s.endpoints = None);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn from_any_state_every_address_is_told_once(steps in prop::collection::vec(steps(), 0..60)) {
        let model = Model::new();
        let key = model.add(&service("named"));
        let mut next = 0;
        for step in &steps {
            apply(&model, &key, step, &mut next);
        }
        for round in 0..10 {
            ["Pod", "EndpointSlice", "Service"].iter().for_each(|kind| model.look(kind, 255));
            if !turn(&model, &key) { break; }
            prop_assert!(round < 5, "no fixpoint");
        }
        let slices = model.all::<EndpointSlice>();
        let told: Vec<(i32, String)> = slices.iter().flat_map(|s| {
            let port = s.ports.iter().flatten().next().and_then(|p| p.port).unwrap_or(0);
            s.endpoints.iter().flatten().map(move |e| (port, describe(e)))
        }).collect();
        let wanted: BTreeSet<(i32, String)> = model.all::<Pod>().iter().filter(|p| p.metadata.labels.is_some()).map(|p| {
            let port = p.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap()[0].container_port;
            let observed = service("named");
            let seen = Observed { service: &observed, pods: &[], slices: &[], zone: &|_| None };
            (port, describe(&endpoint(&seen, p, addresses(p).into_iter().map(str::to_owned).collect())))
        }).collect();
        prop_assert_eq!(told.len(), wanted.len());
        prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), wanted);
        prop_assert!(slices.iter().all(|s| s.endpoints.iter().flatten().count() <= SLICE_ENDPOINTS));
        prop_assert!(!slices.is_empty());
        ["Pod", "EndpointSlice", "Service"].iter().for_each(|kind| model.look(kind, 255));
        prop_assert!(!turn(&model, &key), "it does not stay");
    }
}

#[test]
fn one_pod_more_or_less_changes_one_slice() {
    let model = Model::new();
    let key = model.add(&service(""));
    (0..250).for_each(|n| add(&model, n, "ready"));
    let look = || ["Pod", "EndpointSlice", "Service"].iter().for_each(|kind| model.look(kind, 255));
    look();
    turn(&model, &key);
    look();
    model.vanish::<Pod>(&Key::new("d", "p3"));
    add(&model, 251, "ready");
    look();
    let before = model.all::<EndpointSlice>();
    turn(&model, &key);
    let after = model.all::<EndpointSlice>();
    assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(after.len(), 3);
}
