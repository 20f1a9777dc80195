//! The control plane with the real kubectl, no node.

use coracle_tests::{Kubectl, Server};

const CONTROL_PLANE: &[&str] = &["--disable-agent"];

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: paper}
spec: {taints: []}
"#;

/// Capacity as a node agent would write it.
fn paper_node(kubectl: &Kubectl) {
    kubectl.apply(NODE);
    let status = r#"{"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"},"capacity":{"cpu":"4","memory":"8Gi","pods":"110"},"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"on paper"}]}}"#;
    kubectl.ok(&["patch", "node", "paper", "--subresource=status", "--type=merge", "-p", status]);
}

fn deployment_becomes_bound_pods(kubectl: &Kubectl) {
    paper_node(kubectl);
    kubectl.ok(&["create", "deployment", "web", "--image=example.com/none", "--replicas=3"]);
    let pods = "-l=app=web";
    kubectl.ok(&["wait", "pod", pods, "--for=create", "--timeout=60s"]);
    kubectl.ok(&["wait", "pod", pods, "--for=condition=PodScheduled", "--timeout=60s"]);
    let nodes = kubectl.ok(&["get", "pods", pods, "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert_eq!(nodes, "paper paper paper");
}

#[test]
fn objects_are_created_read_changed_and_deleted() {
    let server = Server::start(&["--roles=apiserver"]);
    let kubectl = server.kubectl();
    let names = kubectl.ok(&["get", "namespaces", "-o", "name"]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(names.contains(&format!("namespace/{name}")), "{names}");
    }
    kubectl.ok(&["create", "configmap", "c", "--from-literal=a=1"]);
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.a}"]), "1");
    kubectl.ok(&["patch", "cm", "c", "-p", r#"{"data":{"a":"2"}}"#]);
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.a}"]), "2");
    kubectl.ok(&["label", "cm", "c", "x=y"]);
    assert!(kubectl.ok(&["get", "cm", "-l", "x=y"]).contains("DATA"));
    kubectl.ok(&["delete", "cm", "c"]);
    assert!(kubectl.fails(&["get", "cm", "c"]).contains("NotFound"));
}

#[test]
fn mistakes_are_told_as_upstream_tells_them() {
    let server = Server::start(&["--roles=apiserver"]);
    let kubectl = server.kubectl();
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nspec: {foo: 1}\n";
    let mut child = kubectl.command(&["create", "--validate=strict", "-f", "-"]);
    let error = feed(&mut child, unknown);
    assert!(error.contains("unknown field \"spec\""), "{error}");
    let bad_name = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n";
    let error = feed(&mut kubectl.command(&["create", "-f", "-"]), bad_name);
    assert!(error.contains("Invalid value") && error.contains("metadata.name"), "{error}");
    assert!(kubectl.fails(&["get", "nonsense"]).contains("the server doesn't have a resource type"));
    let explained = kubectl.ok(&["explain", "deployment.spec.strategy"]);
    assert!(explained.contains("rollingUpdate"), "{explained}");
}

fn feed(command: &mut std::process::Command, manifest: &str) -> String {
    use std::{io::Write as _, process::Stdio};
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
    child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success(), "it was refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_deployment_becomes_pods_on_a_node() {
    let server = Server::start(CONTROL_PLANE);
    deployment_becomes_bound_pods(&server.kubectl());
    server.kubectl().ok(&["delete", "deployment", "web"]);
    server.kubectl().ok(&["delete", "pod", "-l=app=web", "--force", "--grace-period=0"]);
}

#[test]
fn roles_in_two_processes_are_one_cluster() {
    let api = Server::start(&["--roles=apiserver"]);
    let kubeconfig = api.kubeconfig();
    let roles = Server::start(&["--roles=controllers,scheduler", "--kubeconfig", kubeconfig.to_str().expect("UTF-8")]);
    deployment_becomes_bound_pods(&api.kubectl());
    drop(roles);
}

#[test]
fn a_namespace_ends_with_all_it_held() {
    let server = Server::start(CONTROL_PLANE);
    let kubectl = server.kubectl();
    kubectl.ok(&["create", "namespace", "n"]);
    kubectl.ok(&["-n", "n", "create", "configmap", "c"]);
    kubectl.ok(&["-n", "n", "create", "deployment", "web", "--image=example.com/none"]);
    kubectl.ok(&["delete", "namespace", "n", "--timeout=60s"]);
    assert!(kubectl.fails(&["get", "namespace", "n"]).contains("NotFound"));
}

#[test]
fn what_was_answered_survives_a_kill() {
    let mut server = Server::start(&["--roles=apiserver"]);
    let kubectl = server.kubectl();
    for i in 0..20 {
        kubectl.ok(&["create", "configmap", &format!("c{i}"), &format!("--from-literal=i={i}")]);
    }
    let port_of = |server: &Server| std::fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
    let before = port_of(&server);
    server.end(nix::sys::signal::Signal::SIGKILL);
    server.up();
    assert_ne!(port_of(&server), before, "the kubeconfig names the new port");
    for i in 0..20 {
        assert_eq!(kubectl.ok(&["get", "cm", &format!("c{i}"), "-o", "jsonpath={.data.i}"]), i.to_string());
    }
}
