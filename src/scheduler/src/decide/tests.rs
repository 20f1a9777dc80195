//! Cases of decisions: a cluster, a pod, where it goes.

use std::sync::Arc;

use coracle_client::Key;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    json_patch_merge(&mut node, &more);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn json_patch_merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(k, v)| json_patch_merge(into.entry(k).or_insert(Value::Null), v))
        }
        (into, more) => *into = more.clone(),
    }
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut full = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"containers": [{"name": "c"}]}});
    json_patch_merge(&mut full["spec"], &spec);
    serde_json::from_value(full).expect("a pod")
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

fn cluster(nodes: &[Arc<Node>], placed: &[(&str, Pod)]) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.put_node(node.metadata.name.as_deref().expect("named"), node.clone());
    }
    for (node, pod) in placed {
        let mut pod = pod.clone();
        pod.spec.as_mut().expect("a spec").node_name = Some((*node).to_owned());
        cluster.put_pod(&Key::of(&pod), &pod);
    }
    cluster
}

fn check(cluster: &Cluster, spec: Value, want: Result<&str, &str>) {
    let decision = decide(cluster, &pod("p", spec.clone()), None);
    let want = match want {
        Ok(node) => Decision::Bind(node.into()),
        Err(why) => Decision::Unschedulable(why.into()),
    };
    assert_eq!(decision, want, "{spec}");
}

#[test]
fn no_nodes_is_said_so() {
    check(&cluster(&[], &[]), json!({}), Err("no nodes available to schedule pods"));
}

#[test]
fn what_speaks_against_every_node_is_said_once() {
    let refused = |nodes: &[Arc<Node>]| decide(&cluster(nodes, &[]), &pod("p", json!({})), Some("its claim is missing".into()));
    let two = refused(&[node("a", json!({})), node("b", json!({}))]);
    assert_eq!(two, Decision::Unschedulable("0/2 nodes are available: its claim is missing.".into()));
    assert_eq!(refused(&[]), Decision::Unschedulable("no nodes available to schedule pods".into()));
}

#[test]
fn resources_bound_a_node() {
    let full = cluster(&[node("a", json!({}))], &[("a", pod("x", cpu("1500m")))]);
    check(&full, cpu("500m"), Ok("a"));
    check(&full, cpu("501m"), Err("0/1 nodes are available: 1 Insufficient cpu."));
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "example.com/gpu": "1"}}}]});
    check(&full, gpu, Err("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu."));
    let tiny = cluster(&[node("a", json!({"status": {"allocatable": {"pods": "1"}}}))], &[("a", pod("x", json!({})))]);
    check(&tiny, json!({}), Err("0/1 nodes are available: 1 Too many pods."));
}

#[test]
fn selectors_and_affinity_choose_nodes() {
    let two = cluster(&[node("a", json!({})), node("b", json!({"metadata": {"labels": {"disk": "ssd", "gen": "7"}}}))], &[]);
    check(&two, json!({"nodeSelector": {"disk": "ssd"}}), Ok("b"));
    check(
        &two,
        json!({"nodeSelector": {"disk": "hdd"}}),
        Err("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
    );
    let required =
        |e: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [e]}}}});
    check(&two, required(json!({"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["6"]}]})), Ok("b"));
    check(&two, required(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})), Ok("b"));
    check(&two, required(json!({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]})), Ok("a"));
    check(&two, required(json!({})), Err("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."));
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    check(&two, preferred, Ok("b"));
}

#[test]
fn taints_keep_pods_away() {
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let closed = cluster(&[node("a", taint("NoSchedule"))], &[]);
    check(&closed, json!({}), Err("0/1 nodes are available: 1 node(s) had untolerated taint(s)."));
    check(&closed, json!({"tolerations": [{"key": "k", "value": "v"}]}), Ok("a"));
    check(&closed, json!({"tolerations": [{"operator": "Exists"}]}), Ok("a"));
    check(
        &closed,
        json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
        Err("0/1 nodes are available: 1 node(s) had untolerated taint(s)."),
    );
    let unloved = cluster(&[node("a", taint("PreferNoSchedule")), node("b", json!({}))], &[]);
    check(&unloved, json!({}), Ok("b"));
    let cordoned = cluster(&[node("a", json!({"spec": {"unschedulable": true}}))], &[]);
    check(&cordoned, json!({}), Err("0/1 nodes are available: 1 node(s) were unschedulable."));
    check(&cordoned, json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}), Ok("a"));
}

#[test]
fn host_ports_are_taken_once() {
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    let taken = cluster(&[node("a", json!({}))], &[("a", pod("x", port("127.0.0.1")))]);
    let why = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(&taken, port("127.0.0.1"), Err(why));
    check(&taken, port("0.0.0.0"), Err(why));
    check(&taken, port("127.0.0.2"), Ok("a"));
}

#[test]
fn the_emptier_node_wins_and_siblings_spread() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    check(&cluster(&nodes, &[("a", pod("x", cpu("1")))]), cpu("100m"), Ok("b"));
    let owned = |name: &str, cpu_: &str| {
        let mut pod = pod(name, cpu(cpu_));
        pod.metadata.owner_references =
            serde_json::from_value(json!([{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true}]))
                .expect("owners");
        pod
    };
    // b is fuller, but has no sibling.
    let cluster = cluster(&nodes, &[("a", owned("x", "100m")), ("b", pod("y", cpu("500m")))]);
    assert_eq!(decide(&cluster, &owned("p", "100m"), None), Decision::Bind("b".into()));
}

#[test]
fn an_assumed_pod_counts_until_it_fails() {
    let mut one = cluster(&[node("a", json!({}))], &[]);
    let big = pod("big", cpu("2"));
    one.assume(&Key::of(&big), "a", &big);
    one.put_pod(&Key::of(&big), &big); // the informer lags: still unbound
    check(&one, cpu("1"), Err("0/1 nodes are available: 1 Insufficient cpu."));
    one.remove_pod(&Key::of(&big));
    check(&one, cpu("1"), Ok("a"));
}

proptest! {
    /// Whatever comes in whatever order, no node is ever promised more than it has, and all sums return to zero.
    #[test]
    fn nodes_are_never_overcommitted(requests in prop::collection::vec(1i64..1500, 1..40)) {
        let mut cluster = cluster(&[node("a", json!({})), node("b", json!({})), node("c", json!({}))], &[]);
        let mut bound = Vec::new();
        for (i, millis) in requests.iter().enumerate() {
            let pod = pod(&format!("p{i}"), cpu(&format!("{millis}m")));
            if let Decision::Bind(node) = decide(&cluster, &pod, None) {
                cluster.assume(&Key::of(&pod), &node, &pod);
                bound.push(pod);
            }
            for (name, state, _) in cluster.nodes() {
                prop_assert!(state.requested.get("cpu").copied().unwrap_or(0) <= 2000, "{name}");
                prop_assert!(state.pods <= 10, "{name}");
            }
        }
        bound.iter().for_each(|pod| cluster.remove_pod(&Key::of(pod)));
        for (_, state, _) in cluster.nodes() {
            prop_assert!(state.pods == 0 && state.requested.values().all(|v| *v == 0));
        }
    }
}
