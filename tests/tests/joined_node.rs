//! A node that joins by a bootstrap token: both its certificates come by requests to the API, and are renewed in place.

use std::{fs, path::Path};

use coracle_tests::{Kubectl, Server, image};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// What kubeadm gives newcomers and nodes, and a token for one.
const MAY_JOIN: &str = r#"
apiVersion: v1
kind: Secret
type: bootstrap.kubernetes.io/token
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: "true"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: newcomers-ask}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: newcomers-become-nodes}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: nodes-renew}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: there}
spec:
  nodeName: joined
  terminationGracePeriodSeconds: 1
  containers: [{name: a, image: "busybox:test", imagePullPolicy: Never, command: [sleep, "3600"]}]
"#;

/// Who signs the certificates by which nodes are clients.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Whom the token makes.
const NEWCOMER: &str = "system:bootstrap:abcdef";

/// A line on a request: who signs what whom it names asks for, what was said to it, and whether there is a certificate.
const LINE: &str = r#"{{.spec.signerName}} {{.spec.username}}{{range .status.conditions}} {{.reason}}{{end}}{{if .status.certificate}} issued{{end}};{{"\n"}}"#;

/// The administrator's kubeconfig, for the bearer of the token.
fn newcomer(server: &Server, file: &Path) {
    let text = server.kubectl().ok(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["users"][0]["user"] = json!({"token": "abcdef.0123456789abcdef"});
    fs::write(file, config.to_string()).expect("written");
}

/// The names of the requests to a signer that this user has made.
fn requests(kubectl: &Kubectl, signer: &str, user: &str) -> Vec<String> {
    let all = kubectl.ok(&["get", "csr", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let of = all["items"].as_array().expect("a list").iter();
    let own = of.filter(|csr| csr["spec"]["signerName"] == signer && csr["spec"]["username"] == user);
    own.map(|csr| csr["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_node_joins_by_a_token_and_its_certificates_by_request() {
    // Long enough to be looked at, and short enough to be waited for.
    let server = Server::start(&["--cluster-signing-duration=20s"]);
    let kubectl = server.kubectl();
    kubectl.apply(MAY_JOIN);
    let directory = tempfile::tempdir().expect("a directory");
    let bootstrap = directory.path().join("bootstrap.kubeconfig");
    newcomer(&server, &bootstrap);
    let mut watched = kubectl.follow(&["get", "csr", "--watch", "-o", &format!("go-template={LINE}")]);

    let path = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = [
        "--roles=agent,network".to_owned(),
        "--node-name=joined".to_owned(),
        "--rotate-server-certificates".to_owned(),
        path("kubeconfig", &server.kubeconfig()),
        path("bootstrap-kubeconfig", &bootstrap),
        path("client-ca-file", &server.data_dir().join("server/tls/client-ca.pem")),
    ];
    let mut joined = Server::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    watched.see(&format!("{CLIENT} {NEWCOMER} AutoApproved issued;"));
    kubectl.wait("node/joined", "condition=Ready");
    joined.import(&image::busybox(directory.path()));
    kubectl.apply(POD);
    kubectl.wait("pod/there", "condition=Ready");

    // Nobody approves for it what names it may serve under, and until then the API server does not know it.
    let serving = ["kubernetes.io/kubelet-serving", "system:node:joined"];
    watched.see(&format!("{} {};", serving[0], serving[1]));
    let exec = ["exec", "there", "--", "echo", "reached"];
    assert!(!kubectl.output(&exec).status.success(), "its certificate is of its own making");
    let asked = requests(&kubectl, serving[0], serving[1]);
    assert_eq!(asked.len(), 1, "it asks once and waits");
    kubectl.ok(&["certificate", "approve", &asked[0]]);
    // It is issued before the node has it.
    let kept = joined.data_dir().join("agent/pki/kubelet-server-current.pem");
    while !kept.exists() {
        std::thread::yield_now();
    }
    assert_eq!(kubectl.ok(&exec), "reached\n");

    // It renews as itself, and goes on under what it got.
    let first = fs::read(joined.data_dir().join("agent/pki/kubelet-client-current.pem")).expect("it is kept");
    watched.see(&format!("{CLIENT} {} AutoApproved issued;", serving[1]));
    while fs::read(joined.data_dir().join("agent/pki/kubelet-client-current.pem")).expect("it is kept") == first {
        std::thread::yield_now();
    }
    // A node that was there needs no token any more.
    kubectl.ok(&["delete", "secret", "-n", "kube-system", "bootstrap-token-abcdef"]);
    joined.end(Signal::SIGKILL);
    joined.up();
    kubectl.ok(&["delete", "pod", "there", "--now", "--timeout=30s"]);
    let by_token = requests(&kubectl, CLIENT, NEWCOMER);
    assert_eq!(by_token.len(), 1, "it has asked by the token once");
}
