//! Restarts, other builds, other clusters, teardown.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use coracle_network::{PodNetwork, PodRequest, teardown};
use serde_json::json;

use crate::machine::*;

fn at(ip: impl Into<std::net::IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 70);

async fn with_service(machine: &Machine) -> (Pod, Pod) {
    let (client, server) = (machine.pod("client").await, machine.pod("server").await);
    serve_tcp(&server.space, 80, "server");
    serve_udp(&server.space, Ipv4Addr::UNSPECIFIED, 53, "server");
    let ports = json!([{"name": "t", "port": 80}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    machine.api.service("web", "10.43.0.70", ports.clone(), json!({}));
    machine.api.endpoints("web", &[server.ip().to_string()], ports);
    machine.eventually("the Service answers", || who(&client.space, at(CLUSTER_IP, 80)).is_some()).await;
    (client, server)
}

/// Asks without a pause, each time anew, until told to stop; counts answers. UDP without a second try: one lost packet is one failure.
fn bombard(client: &Pod, stop: &Arc<AtomicBool>, answers: &Arc<AtomicU32>) -> thread::JoinHandle<Result<(), String>> {
    let (client, stop, answers) = (client.clone(), Arc::clone(stop), Arc::clone(answers));
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            ask_udp(&client.space, at(CLUSTER_IP, 53)).map_err(|error| format!("UDP: {error}"))?;
            ask_tcp(&client.space, at(CLUSTER_IP, 80)).map_err(|error| format!("TCP: {error}"))?;
            answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
}

async fn answered(answers: &AtomicU32, more: u32) {
    let start = answers.load(Ordering::Relaxed);
    let wait = async {
        while answers.load(Ordering::Relaxed) < start + more {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, wait).await;
}

#[test]
fn a_restart_drops_no_packet() {
    on_machine(false, |mut machine| async move {
        let (client, server) = with_service(&machine).await;
        let (mut kept, _) = ask_tcp(&client.space, at(CLUSTER_IP, 80)).expect("connection");
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let worker = bombard(&client, &stop, &answers);
        answered(&answers, 5).await;
        // The same build adopts what is pinned.
        machine.restart().await;
        answered(&answers, 20).await;
        // To another build these programs are another's: links must change over, and the old programs go.
        let pins = std::path::PathBuf::from("/sys/fs/bpf/coracle").join(&machine.config.cluster_id);
        let programs = |pins: &std::path::Path| -> Vec<std::ffi::OsString> {
            let entries = std::fs::read_dir(pins).expect("pins").filter_map(|entry| Some(entry.ok()?.file_name()));
            entries.filter(|name| name.to_string_lossy().starts_with("programs-")).collect()
        };
        let own = programs(&pins);
        std::fs::rename(pins.join(&own[0]), pins.join("programs-0000000000000000")).expect("rename");
        machine.restart().await;
        assert_eq!(programs(&pins), own, "only this build's programs stay");
        answered(&answers, 20).await;
        stop.store(true, Ordering::Relaxed);
        worker.join().expect("thread").expect("no request fails");
        assert!(answers.load(Ordering::Relaxed) >= 45);
        echo(&mut kept, "the connection of before").expect("goes on");
        // What was there is known, and attach gives the same again.
        assert_eq!(machine.dataplane.attachments().await.expect("list").len(), 2);
        assert_eq!(machine.pod("server").await.ip(), server.ip());
        assert_eq!(who(&client.space, at(CLUSTER_IP, 80)).as_deref(), Some("server"));
    });
}

#[test]
fn what_changed_while_nobody_watched_is_caught_up() {
    on_machine(false, |mut machine| async move {
        let (client, server) = with_service(&machine).await;
        machine.shutdown.cancel();
        machine.api.delete_service("web");
        machine.api.service("later", "10.43.0.71", json!([{"port": 80}]), json!({}));
        machine.api.endpoints("later", &[server.ip().to_string()], json!([{"port": 80}]));
        machine.restart().await;
        machine.eventually("the new one", || who(&client.space, at(Ipv4Addr::new(10, 43, 0, 71), 80)).is_some()).await;
        machine.eventually("the old one is gone", || who(&client.space, at(CLUSTER_IP, 80)).is_none()).await;
    });
}

#[test]
fn two_clusters_share_a_machine() {
    let spaces = node_space();
    on_shared(&spaces.clone(), 201, true, move |first| async move {
        let (client, _server) = with_service(&first).await;
        let inner = spaces.clone();
        // The second has the same Service address, and goes before the first does.
        let second = thread::spawn(move || {
            on_shared(&inner, 202, false, |second| async move {
                let (client, server) = (second.pod("client").await, second.pod("server").await);
                serve_tcp(&server.space, 80, "other");
                second.api.service("web", "10.43.0.70", json!([{"port": 80}]), json!({}));
                second.api.endpoints("web", &[server.ip().to_string()], json!([{"port": 80}]));
                let to = at(CLUSTER_IP, 80);
                second.eventually("its own Service", || who(&client.space, to).as_deref() == Some("other")).await;
                for space in [&client.space, &second.node] {
                    let cgroup = &second.config.cgroup;
                    assert_eq!(ask_in_cgroup(space, cgroup, "tcp", to), Ok(format!("other {to}")), "in its cgroup");
                    // The first cluster's hooks are at the root, and must not answer for this one's addresses.
                    assert_eq!(ask_in_cgroup(space, cgroup, "udp-connected", at(CLUSTER_IP, 53)), Err("ConnectionRefused".into()));
                }
            });
        });
        let joined = tokio::task::spawn_blocking(move || second.join()).await.expect("task");
        joined.expect("the second cluster");
        let to = at(CLUSTER_IP, 80);
        assert_eq!(who(&client.space, to).as_deref(), Some("server"), "the first goes on");
        assert_eq!(ask_in_cgroup(&first.node, &cgroup_root(), "tcp", to), Ok(format!("server {to}")));
    });
}

#[test]
fn nothing_is_left_behind() {
    on_machine(true, |machine| async move {
        let (client, _server) = with_service(&machine).await;
        let before = machine.node.run(links);
        assert!(before.len() > 2, "{before:?}");
        machine.shutdown.cancel();
        let (id, state) = (machine.config.cluster_id.clone(), machine.config.state_dir.clone());
        let netns = client.attachment.netns.clone();
        let state_dir = state.clone();
        machine.node.run(move || {
            teardown(&id, &state_dir).expect("teardown");
            teardown(&id, &state_dir).expect("teardown of nothing");
        });
        let mut left = machine.node.run(links);
        left.sort();
        assert_eq!(left, ["lo", "up0"]);
        assert!(!netns.exists() && !state.exists());
        assert!(!std::path::Path::new("/sys/fs/bpf/coracle").join(&machine.config.cluster_id).exists());
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(&state.display().to_string()));
        // Not masqueraded any more, no program on the uplink: the outside reaches the node's own port.
        serve_tcp(&machine.node, 30080, "node");
        assert_eq!(who(&machine.outside, at(NODE_IP, 30080)).as_deref(), Some("node"));
    });
}

#[test]
fn a_pod_range_that_is_in_use_is_refused() {
    let spaces = node_space();
    spaces.0.run(|| {
        run("ip link add other type veth peer name other1");
        run("ip addr add 10.42.203.1/24 dev other");
    });
    let failed = std::panic::catch_unwind(|| on_shared(&spaces, 203, false, |_| async {})).expect_err("refused");
    let text = failed.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains("10.42.203.0/24 is in use"), "{text}");
}

/// Links are named by a hash of 32 bits; whoever comes second is refused, and its going takes nothing of the first.
#[test]
fn sandboxes_whose_links_would_have_one_name_harm_nobody() {
    on_machine(false, |machine| async move {
        let (first, second) = colliding();
        let pod = machine.pod(&first).await;
        serve_tcp(&pod.space, 80, "first");
        let sandbox = format!("{second}-sandbox");
        let request =
            PodRequest { sandbox: sandbox.clone(), namespace: "default".into(), name: second.clone(), uid: second, host_ports: Vec::new() };
        let refused = machine.dataplane.attach(&request).await.expect_err("refused");
        assert!(chain(&refused).contains(&format!("{first}-sandbox")), "{}", chain(&refused));
        machine.dataplane.detach(&sandbox).await.expect("detach");
        assert_eq!(who(&machine.node, at(pod.ip(), 80)).as_deref(), Some("first"));
        machine.dataplane.detach(&format!("{first}-sandbox")).await.expect("detach");
        machine.dataplane.attach(&request).await.expect("the name is free");
    });
}

/// Two names of pods whose sandboxes have the same FNV-1a, of which links have the low half.
fn colliding() -> (String, String) {
    let low = |text: &str| {
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) as u32
    };
    let mut seen = std::collections::HashMap::new();
    (0..)
        .map(|n: u32| format!("pod{n}"))
        .find_map(|name| seen.insert(low(&format!("{name}-sandbox")), name.clone()).map(|first| (first, name)))
        .expect("a hash of 32 bits collides")
}

fn links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("links");
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}
