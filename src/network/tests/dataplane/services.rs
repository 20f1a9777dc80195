//! Pods among themselves, and Services on the packet path (sockets outside of the cluster's cgroup).

use std::{io, net::SocketAddr, time::Instant};

use coracle_network::PodNetwork;
use serde_json::json;

use crate::machine::*;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

#[test]
fn pods_reach_each_other_and_the_node() {
    on_machine(false, |machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        serve_tcp(&b.space, 80, "b");
        serve_tcp(&machine.node, 81, "node");
        let (mut stream, line) = ask_tcp(&a.space, SocketAddr::new(b.ip(), 80)).expect("pod to pod");
        assert_eq!(line, format!("b {}", a.ip()));
        echo(&mut stream, &"x".repeat(100_000)).expect("large segments");
        let gateway = SocketAddr::new(machine.config.gateway().expect("gateway"), 81);
        assert_eq!(ask_tcp(&a.space, gateway).expect("pod to node").1, format!("node {}", a.ip()));
        assert_eq!(who(&machine.node, SocketAddr::new(b.ip(), 80)).as_deref(), Some("b"), "node to pod");
        serve_tcp(&machine.outside, 82, "outside");
        let (_, line) = ask_tcp(&a.space, SocketAddr::new(OUTSIDE_IP.into(), 82)).expect("pod to outside");
        assert_eq!(line, format!("outside {NODE_IP}"), "masqueraded");
    });
}

#[test]
fn a_cluster_address_spreads_over_its_backends() {
    on_machine(false, |machine| async move {
        let (client, one, two) = (machine.pod("client").await, machine.pod("one").await, machine.pod("two").await);
        for (pod, name) in [(&one, "one"), (&two, "two")] {
            serve_tcp(&pod.space, 8080, name);
            serve_udp(&pod.space, std::net::Ipv4Addr::UNSPECIFIED, 5353, name);
        }
        let ports = json!([{"name": "web", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        machine.api.service("web", "10.43.0.20", ports, json!({}));
        let backend_ports = json!([{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
        machine.api.endpoints("web", &[one.ip().to_string(), two.ip().to_string()], backend_ports.clone());
        machine.eventually("the Service answers", || who(&client.space, at("10.43.0.20:80")).is_some()).await;
        let mut seen: Vec<_> = (0..40).filter_map(|_| who(&client.space, at("10.43.0.20:80"))).collect();
        assert_eq!(seen.len(), 40, "every connection is answered");
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["one", "two"]);
        let mut seen: Vec<_> = (0..40).filter_map(|_| ask_udp(&client.space, at("10.43.0.20:53")).ok()).collect();
        assert_eq!(seen.len(), 40, "every datagram is answered");
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["one", "two"]);

        let (mut stream, line) = ask_tcp(&client.space, at("10.43.0.20:80")).expect("connection");
        let (stays, goes) = if line.starts_with("one") { ("two", &one) } else { ("one", &two) };
        let remaining = if stays == "one" { one.ip() } else { two.ip() };
        let start = Instant::now();
        machine.api.endpoints("web", &[remaining.to_string()], backend_ports);
        let socket = client.space.run(|| std::net::UdpSocket::bind("0.0.0.0:0").expect("bind"));
        let _ = goes;
        machine
            .eventually("the backend is gone", || (0..16).all(|_| who(&client.space, at("10.43.0.20:80")).as_deref() == Some(stays)))
            .await;
        eprintln!("endpoint gone after {:?}, sixteen connections included", start.elapsed());
        echo(&mut stream, "still there").expect("an established connection goes on");
        drop(socket);
    });
}

#[test]
fn datagrams_leave_a_backend_that_is_gone() {
    on_machine(false, |machine| async move {
        let (client, one, two) = (machine.pod("client").await, machine.pod("one").await, machine.pod("two").await);
        for (pod, name) in [(&one, "one"), (&two, "two")] {
            serve_udp(&pod.space, std::net::Ipv4Addr::UNSPECIFIED, 53, name);
        }
        let ports = json!([{"port": 53, "protocol": "UDP"}]);
        machine.api.service("dns", "10.43.0.10", ports.clone(), json!({}));
        machine.api.endpoints("dns", &[one.ip().to_string()], ports.clone());
        machine.eventually("the Service answers", || ask_udp(&client.space, at("10.43.0.10:53")).is_ok()).await;
        let socket = client.space.run(|| std::net::UdpSocket::bind("0.0.0.0:0").expect("bind"));
        socket.connect("10.43.0.10:53").expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let ask = || -> io::Result<String> {
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let read = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
        };
        assert_eq!(ask().expect("answer"), "one");
        machine.api.endpoints("dns", &[two.ip().to_string()], ports);
        machine.eventually("the other answers the same socket", || ask().is_ok_and(|name| name == "two")).await;
    });
}

#[test]
fn nobody_there_is_refused_at_once() {
    on_machine(false, |machine| async move {
        let (client, one) = (machine.pod("client").await, machine.pod("one").await);
        serve_tcp(&one.space, 80, "one");
        machine.api.service("empty", "10.43.0.30", json!([{"port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]), json!({}));
        machine.api.service("full", "10.43.0.31", json!([{"port": 80}]), json!({}));
        machine.api.endpoints("full", &[one.ip().to_string()], json!([{"port": 80}]));
        machine.eventually("the other Service answers", || who(&client.space, at("10.43.0.31:80")).is_some()).await;
        for to in ["10.43.0.30:80", "10.43.0.31:81", "10.43.9.9:80"] {
            let start = Instant::now();
            let error = ask_tcp(&client.space, at(to)).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to}");
            assert!(start.elapsed().as_millis() < 500, "{to}: {:?}", start.elapsed());
        }
        let error = ask_udp(&client.space, at("10.43.0.30:53")).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "UDP");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_machine(false, |machine| async move {
        let pod = machine.pod("self").await;
        serve_tcp(&pod.space, 8080, "self");
        serve_udp(&pod.space, std::net::Ipv4Addr::UNSPECIFIED, 53, "self");
        machine.api.service(
            "me",
            "10.43.0.40",
            json!([{"name": "t", "port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]),
            json!({}),
        );
        let ports = json!([{"name": "t", "port": 8080}, {"name": "u", "port": 53, "protocol": "UDP"}]);
        machine.api.endpoints("me", &[pod.ip().to_string()], ports);
        machine.eventually("TCP", || who(&pod.space, at("10.43.0.40:80")).as_deref() == Some("self")).await;
        assert_eq!(ask_udp(&pod.space, at("10.43.0.40:53")).expect("UDP"), "self");
    });
}

#[test]
fn a_client_keeps_its_backend_when_asked_to() {
    on_machine(false, |machine| async move {
        let clients = [machine.pod("c0").await, machine.pod("c1").await, machine.pod("c2").await, machine.pod("c3").await];
        let mut backends = Vec::new();
        for name in ["s0", "s1", "s2", "s3"] {
            let pod = machine.pod(name).await;
            serve_tcp(&pod.space, 80, name);
            backends.push(pod.ip().to_string());
        }
        let affinity = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
        machine.api.service("sticky", "10.43.0.50", json!([{"port": 80}]), affinity);
        machine.api.endpoints("sticky", &backends, json!([{"port": 80}]));
        let to = at("10.43.0.50:80");
        machine.eventually("the Service answers", || who(&clients[0].space, to).is_some()).await;
        for client in &clients {
            let first = who(&client.space, to).expect("answer");
            for _ in 0..12 {
                assert_eq!(who(&client.space, to).expect("answer"), first);
            }
            // Its backend goes: another takes over, and is kept.
            let index: usize = first[1..].parse().expect("number");
            let rest: Vec<_> = backends.iter().enumerate().filter(|(n, _)| *n != index).map(|(_, ip)| ip.clone()).collect();
            machine.api.endpoints("sticky", &rest, json!([{"port": 80}]));
            machine.eventually("another backend", || who(&client.space, to).is_some_and(|now| now != first)).await;
            machine.api.endpoints("sticky", &backends, json!([{"port": 80}]));
        }
    });
}

#[test]
fn backends_on_the_node_answer_pods() {
    on_machine(false, |machine| async move {
        let client = machine.pod("client").await;
        let gateway = machine.dataplane.gateway();
        serve_udp(&machine.node, gateway, 10053, "dns");
        serve_tcp(&machine.node, 6443, "api");
        machine.api.service("kube-dns", "10.43.0.10", json!([{"port": 53, "protocol": "UDP"}]), json!({}));
        machine.api.endpoints("kube-dns", &[gateway.to_string()], json!([{"port": 10053, "protocol": "UDP"}]));
        machine.api.service("kubernetes", "10.43.0.1", json!([{"port": 443}]), json!({}));
        machine.api.endpoints("kubernetes", &[NODE_IP.to_string()], json!([{"port": 6443}]));
        machine.eventually("UDP", || ask_udp(&client.space, at("10.43.0.10:53")).is_ok_and(|name| name == "dns")).await;
        machine.eventually("TCP", || who(&client.space, at("10.43.0.1:443")).as_deref() == Some("api")).await;
    });
}

#[test]
fn nobody_speaks_with_anothers_address() {
    on_machine(false, |machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        serve_udp(&b.space, std::net::Ipv4Addr::UNSPECIFIED, 53, "b");
        let target = SocketAddr::new(b.ip(), 53);
        assert_eq!(ask_udp(&a.space, target).expect("own address"), "b");
        let heard = b.space.run(|| std::net::UdpSocket::bind("0.0.0.0:54").expect("bind"));
        heard.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("timeout");
        let to = SocketAddr::new(b.ip(), 54);
        a.space.run(move || {
            run("ip addr add 10.42.200.200/32 dev eth0");
            let forged = std::net::UdpSocket::bind("10.42.200.200:0").expect("bind");
            let _ = forged.send_to(b"forged", to);
            let honest = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
            honest.send_to(b"honest", to).expect("send");
        });
        let mut buffer = [0; 64];
        let read = heard.recv(&mut buffer).expect("the honest one");
        assert_eq!(&buffer[..read], b"honest");
    });
}

#[test]
fn what_is_detached_is_gone() {
    on_machine(false, |machine| async move {
        let (a, b) = (machine.pod("a").await, machine.pod("b").await);
        let netns = b.attachment.netns.clone();
        assert_eq!(machine.pod("b").await.ip(), b.ip(), "attach is idempotent");
        machine.dataplane.detach("b-sandbox").await.expect("detach");
        machine.dataplane.detach("b-sandbox").await.expect("detach is idempotent");
        machine.dataplane.detach("never-there").await.expect("detach of nothing");
        assert!(!netns.exists());
        let left: Vec<_> = machine.dataplane.attachments().await.expect("list").into_iter().map(|of| of.sandbox).collect();
        assert_eq!(left, ["a-sandbox"]);
        assert_ne!(machine.pod("c").await.ip(), b.ip(), "an address rests");
        drop(a);
    });
}

#[test]
fn errors_about_translated_packets_are_translated() {
    on_machine(false, |machine| async move {
        let (client, server) = (machine.pod("client").await, machine.pod("server").await);
        machine.api.service("closed", "10.43.0.80", json!([{"name": "pod", "port": 53, "protocol": "UDP"}]), json!({}));
        machine.api.endpoints("closed", &[server.ip().to_string()], json!([{"name": "pod", "port": 5399, "protocol": "UDP"}]));
        // Nobody listens on the pod's port: its ICMP error must fit the socket that asked the Service.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let gateway = machine.dataplane.gateway();
        serve_udp(&server.space, std::net::Ipv4Addr::UNSPECIFIED, 5398, "server");
        machine.api.service("open", "10.43.0.81", json!([{"port": 53, "protocol": "UDP"}]), json!({}));
        machine.api.endpoints("open", &[server.ip().to_string()], json!([{"port": 5398, "protocol": "UDP"}]));
        machine.eventually("both Services are there", || ask_udp(&client.space, at("10.43.0.81:53")).is_ok()).await;
        assert!(ask_udp(&client.space, at("10.43.0.80:53")).is_err_and(refused), "from a pod");
        machine.api.endpoints("closed", &[gateway.to_string()], json!([{"name": "pod", "port": 5399, "protocol": "UDP"}]));
        machine.api.endpoints("open", &[gateway.to_string()], json!([{"port": 5398, "protocol": "UDP"}]));
        serve_udp(&machine.node, gateway, 5398, "node");
        machine.eventually("both have changed", || ask_udp(&client.space, at("10.43.0.81:53")).is_ok_and(|name| name == "node")).await;
        assert!(ask_udp(&client.space, at("10.43.0.80:53")).is_err_and(refused), "from the node");
    });
}

#[test]
fn large_datagrams_in_pieces_arrive_through_a_service() {
    on_machine(false, |machine| async move {
        let (client, server) = (machine.pod("client").await, machine.pod("server").await);
        let socket = server.space.run(|| std::net::UdpSocket::bind("0.0.0.0:5300").expect("bind"));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((read, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..read], from);
            }
        });
        machine.api.service("big", "10.43.0.82", json!([{"port": 53, "protocol": "UDP"}]), json!({}));
        machine.api.endpoints("big", &[server.ip().to_string()], json!([{"port": 5300, "protocol": "UDP"}]));
        machine.eventually("small", || ask_udp(&client.space, at("10.43.0.82:53")).is_ok()).await;
        let asked: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let sent = asked.clone();
        let back = client.space.run(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
            socket.connect("10.43.0.82:53").expect("connect");
            socket.send(&sent).expect("send");
            let mut buffer = vec![0; 65_536];
            let read = socket.recv(&mut buffer).expect("echo");
            buffer.truncate(read);
            buffer
        });
        assert_eq!(back, asked);
    });
}
