//! The node's serving certificate: asked for as any node asks, renewed in place, while what was opened before goes on. One server.

use std::{io::Write as _, net::TcpStream, sync::Arc};

use coracle_pki::stranger;
use coracle_tests::{Kubectl, Server};
use rustls::{ClientConnection, pki_types::ServerName};

/// Says a number ten times a second.
const COUNTS: &str = "n=0; while :; do echo number $n; n=$((n+1)); sleep 0.1; done";

/// The certificate that the node's server shows to who connects now.
fn shown(kubectl: &Kubectl) -> Vec<u8> {
    let port = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.daemonEndpoints.kubeletEndpoint.Port}"]);
    let mut socket = TcpStream::connect(("127.0.0.1", port.parse().expect("a port"))).expect("the node listens");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = stranger::client_config(&provider).expect("a client");
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").expect("a name")).expect("a client");
    while client.is_handshaking() {
        client.complete_io(&mut socket).expect("a handshake");
    }
    client.send_close_notify();
    let _ = client.complete_io(&mut socket).and_then(|_| socket.flush());
    client.peer_certificates().and_then(<[_]>::first).expect("a certificate").to_vec()
}

#[test]
fn a_node_renews_its_certificate_and_what_is_open_goes_on() {
    let (_server, kubectl) = Server::with_image_and(&["--cluster-signing-duration=6s"], Vec::new());
    let first = shown(&kubectl);
    kubectl.pod("counts", &["--restart=Never"], COUNTS);
    kubectl.wait("pod/counts", "condition=Ready");
    let mut logs = kubectl.follow(&["logs", "-f", "counts"]);
    let mut exec = kubectl.follow(&["exec", "counts", "--", "sh", "-c", COUNTS]);
    logs.see("number 1\n");
    exec.see("number 1\n");
    // Asked for by the node itself, approved and signed; twice, so that the first certificate and the second are over.
    let columns = "custom-columns=N:.metadata.generateName,S:.spec.signerName,U:.spec.username,Y:.spec.usages,C:.status.conditions[*].reason,I:.status.certificate";
    let mut requests = kubectl.follow(&["get", "csr", "--watch", "-o", columns]);
    let node = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let mut last = first;
    for _ in 0..2 {
        let want =
            format!("csr-   kubernetes.io/kubelet-serving   system:node:{node}   [digital signature server auth]   AutoApproved   LS0t");
        requests.see(&want);
        // The object is written before the node has it: the counter says when it shows it.
        let next = loop {
            let now = shown(&kubectl);
            if now != last {
                break now;
            }
        };
        assert_ne!(next, last);
        last = next;
    }
    let path = format!("/api/v1/nodes/{node}/proxy/metrics");
    let metrics = kubectl.ok(&["get", "--raw", &path]);
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.trim().parse::<f64>().expect("a number")
    };
    assert!(value("kubelet_certificate_manager_server_rotation_seconds_count ") >= 2.0);
    assert!(value("kubelet_certificate_manager_server_ttl_seconds ") <= 6.0);
    assert_eq!(value("kubelet_server_expiration_renew_errors "), 0.0);
    // What the pod says from here on comes by connections that were opened under the first certificate.
    let now = kubectl.ok(&["logs", "--tail=1", "counts"]);
    let number: u64 = now.trim().strip_prefix("number ").and_then(|n| n.parse().ok()).expect("a number");
    logs.see(&format!("number {}\n", number + 10));
    exec.see("number 100\n");
}
