//! Measures the dataplane against plain veth and routing, interleaved in one run; prints figure, must and goal. Needs root.
//!
//! Both clients are processes of the same cgroup; the one asks a ClusterIP, the other a pod of two plain veth links and a routing node between them.

#![allow(dead_code, reason = "the machine of the tests does more than this")]

#[path = "../tests/dataplane/api.rs"]
mod api;
#[path = "../tests/dataplane/machine.rs"]
mod machine;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use coracle_network::PodNetwork;
use machine::{Space, node_space, on_shared, run};
use serde_json::json;

/// Pairs of rounds; their ratios' median is the figure.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);
const ATTACHES: usize = 50;

fn main() {
    if let Ok(asks) = std::env::var("BENCH_ASKS") {
        return client(&asks);
    }
    on_shared(&node_space(), 250, false, |machine| async move {
        let mut times = Vec::new();
        for n in 0..ATTACHES {
            let start = Instant::now();
            machine.pod(&format!("p{n}")).await;
            times.push(start.elapsed());
            machine.dataplane.detach(&format!("p{n}-sandbox")).await.expect("detach");
        }
        times.sort();
        println!("attach of a pod: p50 {:?}, max {:?} of {ATTACHES}", times[ATTACHES / 2], times[ATTACHES - 1]);

        let (from, to) = (machine.pod("from").await, machine.pod("to").await);
        machine.api.service("web", "10.43.0.90", json!([{"port": 80}]), json!({}));
        machine.api.endpoints("web", &[to.ip().to_string()], json!([{"port": 80}]));
        serve(&to.space);
        let service: SocketAddr = "10.43.0.90:80".parse().expect("address");
        machine
            .eventually("the Service answers", || {
                from.space.run(move || TcpStream::connect_timeout(&service, Duration::from_millis(200)).is_ok())
            })
            .await;
        let mut gone = Vec::new();
        for _ in 0..ATTACHES {
            machine.api.endpoints("web", &[], json!([{"port": 80}]));
            let refused = || from.space.run(move || TcpStream::connect_timeout(&service, Duration::from_millis(200)).is_err());
            gone.push(machine.eventually("refused", refused).await);
            machine.api.endpoints("web", &[to.ip().to_string()], json!([{"port": 80}]));
            machine.eventually("answers", || !refused()).await;
        }
        gone.sort();
        println!("endpoint gone after its event: p50 {:?}, max {:?} of {ATTACHES}; must < 50 ms", gone[ATTACHES / 2], gone[ATTACHES - 1]);

        let (plain_from, plain_to, _router) = plain();
        serve(&plain_to);
        let cgroup = machine.config.cgroup.clone();
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let ours = measure(&from.space, &cgroup, "10.43.0.90:80");
            let theirs = measure(&plain_from, &cgroup, "10.99.2.2:80");
            ratios.push((ours / theirs, ours, theirs));
        }
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, ours, theirs) = ratios[ROUNDS / 2];
        println!("pod to ClusterIP, one byte there and back: {ours:.0}/s against {theirs:.0}/s, ratio {ratio:.2}; must >= 1.0, goal 1.4");
        assert!(ratio >= 1.0, "slower than plain veth and routing");
    });
}

/// Two namespaces, and a routing one between.
fn plain() -> (Space, Space, Space) {
    let (router, from, to) = (Space::new(), Space::new(), Space::new());
    for (space, n) in [(&from, 1), (&to, 2)] {
        let path = space.path();
        router.run(move || {
            run(&format!("ip link add r{n} type veth peer name eth0 netns {path}"));
            run(&format!("ip addr add 10.99.{n}.1/24 dev r{n}"));
            run(&format!("ip link set r{n} up"));
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("sysctl");
        });
        space.run(move || {
            run(&format!("ip addr add 10.99.{n}.2/24 dev eth0"));
            run("ip link set eth0 up");
            run(&format!("ip route add default via 10.99.{n}.1"));
        });
    }
    (from, to, router)
}

fn serve(space: &Space) {
    let listener = space.run(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut stream, mut byte) = (stream, [0]);
                let _ = stream.set_nodelay(true);
                while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
            });
        }
    });
}

/// Requests per second of a client process in the namespace.
fn measure(space: &Space, cgroup: &Path, to: &str) -> f64 {
    let (cgroup, to) = (cgroup.display().to_string(), to.to_owned());
    let output = space.run(move || {
        let mut command = Command::new(std::env::current_exe().expect("program"));
        command.env("BENCH_ASKS", to).env("BENCH_CGROUP", cgroup).output().expect("client")
    });
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn client(to: &str) {
    let cgroup = std::env::var("BENCH_CGROUP").expect("cgroup");
    std::fs::write(Path::new(&cgroup).join("cgroup.procs"), std::process::id().to_string()).expect("join the cgroup");
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let (start, mut count, mut byte) = (Instant::now(), 0u32, [1]);
    while start.elapsed() < ROUND {
        stream.write_all(&byte).expect("write");
        stream.read_exact(&mut byte).expect("read");
        count += 1;
    }
    println!("{}", f64::from(count) / start.elapsed().as_secs_f64());
}
