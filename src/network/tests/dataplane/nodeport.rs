//! Socket hooks, node ports and host ports: from the outside, from the node, from pods.

use std::net::{Ipv4Addr, SocketAddr};

use coracle_network::HostPort;
use serde_json::json;

use crate::machine::*;

fn at(ip: impl Into<std::net::IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 60);

async fn with_service(machine: &Machine) -> (Pod, Pod) {
    let (client, server) = (machine.pod("client").await, machine.pod("server").await);
    serve_tcp(&server.space, 8080, "server");
    serve_udp(&server.space, Ipv4Addr::UNSPECIFIED, 5353, "server");
    let ports = json!([{"name": "t", "port": 80, "nodePort": 30080}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}]);
    machine.api.service("web", "10.43.0.60", ports, json!({"type": "NodePort"}));
    let ports = json!([{"name": "t", "port": 8080}, {"name": "u", "port": 5353, "protocol": "UDP"}]);
    machine.api.endpoints("web", &[server.ip().to_string()], ports);
    machine.eventually("the Service answers", || who(&client.space, at(CLUSTER_IP, 80)).is_some()).await;
    (client, server)
}

#[test]
fn programs_of_the_node_and_of_pods_see_the_service_that_they_asked() {
    on_machine(false, |machine| async move {
        let (client, _server) = with_service(&machine).await;
        let cgroup = &machine.config.cgroup;
        for (protocol, port) in [("tcp", 80), ("udp", 53), ("udp-connected", 53)] {
            let to = at(CLUSTER_IP, port);
            for (space, whose) in [(&machine.node, "node"), (&client.space, "pod")] {
                assert_eq!(ask_in_cgroup(space, cgroup, protocol, to), Ok(format!("server {to}")), "{protocol} of the {whose}");
            }
        }
        // Nobody there.
        machine.api.service("empty", "10.43.0.61", json!([{"port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]), json!({}));
        let empty = Ipv4Addr::new(10, 43, 0, 61);
        for space in [&machine.node, &client.space] {
            assert_eq!(ask_in_cgroup(space, cgroup, "tcp", at(empty, 80)), Err("ConnectionRefused".into()));
            assert_eq!(ask_in_cgroup(space, cgroup, "udp-connected", at(empty, 53)), Err("ConnectionRefused".into()));
        }
        assert_eq!(ask_in_cgroup(&machine.node, cgroup, "udp", at(empty, 53)), Err("ConnectionRefused".into()));
        // A program of the node that is not in the cluster's cgroup does not know its Services.
        assert!(who(&machine.node, at(CLUSTER_IP, 80)).is_none());
    });
}

#[test]
fn a_node_port_answers_everybody() {
    on_machine(true, |machine| async move {
        let (client, _server) = with_service(&machine).await;
        let node_port = at(NODE_IP, 30080);
        let (mut stream, line) = ask_tcp(&machine.outside, node_port).expect("from outside");
        assert_eq!(line, format!("server {OUTSIDE_IP}"), "the client's address is kept");
        echo(&mut stream, &"x".repeat(100_000)).expect("large segments");
        assert_eq!(ask_udp(&machine.outside, at(NODE_IP, 30053)).expect("UDP from outside"), "server");
        assert_eq!(who(&client.space, node_port).as_deref(), Some("server"), "from a pod");
        let root = cgroup_root();
        for ip in [NODE_IP, Ipv4Addr::LOCALHOST, machine.dataplane.gateway()] {
            let to = at(ip, 30080);
            assert_eq!(ask_in_cgroup(&machine.node, &root, "tcp", to), Ok(format!("server {to}")), "from the node");
        }
        assert_eq!(ask_in_cgroup(&client.space, &root, "tcp", node_port), Ok(format!("server {node_port}")), "from a pod's socket");
        assert_eq!(
            ask_in_cgroup(&client.space, &root, "tcp", at(Ipv4Addr::LOCALHOST, 30080)),
            Err("ConnectionRefused".into()),
            "a pod's own loopback"
        );
        // The last endpoint goes: refused, also outside.
        machine.api.endpoints("web", &[], json!([{"name": "t", "port": 8080}]));
        machine
            .eventually("refused", || {
                ask_tcp(&machine.outside, node_port).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            })
            .await;
        // And the Service: its port is the node's own again.
        serve_tcp(&machine.node, 30080, "node");
        machine.api.delete_service("web");
        machine.eventually("the node's own program", || who(&machine.outside, node_port).as_deref() == Some("node")).await;
    });
}

#[test]
fn a_node_port_leads_to_programs_of_the_node_too() {
    on_machine(true, |machine| async move {
        serve_tcp(&machine.node, 6443, "node");
        machine.api.service("api", "10.43.0.1", json!([{"port": 443, "nodePort": 30443}]), json!({"type": "NodePort"}));
        machine.api.endpoints("api", &[NODE_IP.to_string()], json!([{"port": 6443}]));
        let to = at(NODE_IP, 30443);
        machine.eventually("answer", || who(&machine.outside, to).as_deref() == Some("node")).await;
    });
}

#[test]
fn a_host_port_is_its_pods_alone() {
    on_machine(true, |machine| async move {
        let port = HostPort { protocol: "TCP".into(), host_ip: Ipv4Addr::UNSPECIFIED.into(), host_port: 8088, container_port: 80 };
        let pod = machine.pod_with("web", vec![port.clone()]).await;
        serve_tcp(&pod.space, 80, "web");
        let to = at(NODE_IP, 8088);
        assert_eq!(who(&machine.outside, to).as_deref(), Some("web"), "from outside");
        assert_eq!(ask_in_cgroup(&machine.node, &cgroup_root(), "tcp", to), Ok(format!("web {to}")), "from the node");
        let client = machine.pod("client").await;
        assert_eq!(who(&client.space, to).as_deref(), Some("web"), "from a pod");
        let request = coracle_network::PodRequest {
            sandbox: "other".into(),
            namespace: "default".into(),
            name: "other".into(),
            uid: "other-uid".into(),
            host_ports: vec![port],
        };
        use coracle_network::{AttachError, PodNetwork};
        match machine.dataplane.attach(&request).await {
            Err(AttachError::PortTaken { port: 8088, by, .. }) => assert_eq!(by, "web-uid"),
            other => panic!("{other:?}"),
        }
        machine.dataplane.detach("web-sandbox").await.expect("detach");
        assert!(who(&machine.outside, to).is_none());
        machine.dataplane.attach(&request).await.expect("free again");
    });
}
