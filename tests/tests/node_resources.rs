//! What the node keeps for itself and how it ends pods: reservations, limits of a pod, and a disk that is too full.

use coracle_tests::{Kubectl, Server};
use nix::{sys::signal::Signal, sys::statvfs::statvfs};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "n=0; while [ $n -lt 100 ]; do sleep 60 & n=$((n+1)); done; exit 0"]
---
apiVersion: v1
kind: Pod
metadata: {name: eats}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [tail, /dev/zero]
    resources: {limits: {memory: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: shares}
spec:
  terminationGracePeriodSeconds: 1
  resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
  containers:
  - {name: one, image: "busybox:test", imagePullPolicy: Never, command: [sleep, "3600"]}
  - {name: two, image: "busybox:test", imagePullPolicy: Never, command: [tail, /dev/zero]}
---
apiVersion: v1
kind: Pod
metadata: {name: writes}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "head -c 20000000 /dev/zero > /tmp/file; exec sleep 3600"]
    resources: {limits: {ephemeral-storage: 8Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "busybox:test", imagePullPolicy: Never, command: [sleep, "3600"]}
"#;

/// Takes longer to end than a pod has that is ended at once.
const LASTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: lasts}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "trap 'sleep 3; exit 7' TERM; while :; do sleep 0.1; done"]
"#;

fn reach(kubectl: &Kubectl, object: &str, path: &str, value: &str) {
    let (until, all) = (format!("--for=jsonpath={{{path}}}={value}"), object == "node");
    kubectl.ok(&[&["wait", object, &until, "--timeout=90s"][..], if all { &["--all"] } else { &[] }].concat());
}

fn get(kubectl: &Kubectl, object: &[&str], path: &str) -> String {
    kubectl.ok(&[&["get"], object, &["-o", &format!("jsonpath={{{path}}}")]].concat())
}

/// A quantity of memory in KiB.
fn kib(text: &str) -> u64 {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..at].parse().expect("a number");
    match &text[at..] {
        "" => number >> 10,
        "Ki" => number,
        "Mi" => number << 10,
        "Gi" => number << 20,
        other => panic!("{other:?} is no unit of this test"),
    }
}

#[test]
fn a_node_keeps_what_it_needs_and_ends_who_takes_too_much() {
    let (mut server, kubectl) = Server::with_image();
    server.end(Signal::SIGTERM);
    server.set_flags(&["--kube-reserved=cpu=100m,memory=64Mi", "--system-reserved=memory=64Mi", "--pod-max-pids=40"]);
    server.up();
    let memory = |of: &str| kib(&get(&kubectl, &["node"], &format!(".items[0].status.{of}.memory")));
    let cpu = get(&kubectl, &["node"], ".items[0].status.capacity.cpu").parse::<u64>().expect("cores");
    reach(&kubectl, "node", ".status.allocatable.cpu", &format!("{}m", cpu * 1000 - 100));
    // The reservations, and 100Mi that must be left before pods are ended.
    assert_eq!(memory("capacity") - memory("allocatable"), (64 + 64 + 100) << 10);

    kubectl.apply(PODS);
    reach(&kubectl, "pod/forks", ".status.phase", "Failed");
    assert!(kubectl.ok(&["logs", "forks"]).contains("can't fork"));
    reach(&kubectl, "pod/eats", ".status.containerStatuses[0].state.terminated.reason", "OOMKilled");
    assert_eq!(get(&kubectl, &["pod", "eats"], ".status.containerStatuses[0].state.terminated.exitCode"), "137");
    // Containers without limits of their own share their pod's.
    reach(&kubectl, "pod/shares", ".status.containerStatuses[1].lastState.terminated.exitCode", "137");
    assert_eq!(get(&kubectl, &["pod", "shares"], ".status.qosClass"), "Burstable");
    assert_eq!(get(&kubectl, &["pod", "shares"], ".status.containerStatuses[0].restartCount"), "0");
    reach(&kubectl, "pod/writes", ".status.reason", "Evicted");
    let why = get(&kubectl, &["pod", "writes"], ".status.message");
    assert_eq!(why.trim(), "Pod ephemeral local storage usage exceeds the total limit of containers 8Mi.");
    kubectl.event("writes", "Evicted");
    kubectl.wait("pod/stays", "condition=Ready");

    // More must be left than there is.
    server.end(Signal::SIGTERM);
    let disk = statvfs(server.data_dir()).expect("a file system");
    let free = disk.blocks_available() * disk.fragment_size();
    server.set_flags(&[&format!("--eviction-hard=nodefs.available<{}", free + (1 << 30))]);
    server.up();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=DiskPressure", "--timeout=60s"]);
    reach(&kubectl, "node", ".spec.taints[?(@.key==\"node.kubernetes.io/disk-pressure\")].effect", "NoSchedule");
    reach(&kubectl, "pod/stays", ".status.reason", "Evicted");
    let why = get(&kubectl, &["pod", "stays"], ".status.message");
    assert!(why.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "), "{why}");
    assert_eq!(get(&kubectl, &["pod", "stays"], ".status.conditions[?(@.type==\"DisruptionTarget\")].reason"), "TerminationByKubelet");
    kubectl.event("stays", "Evicted");
    let node = get(&kubectl, &["node"], ".items[0].metadata.name");
    kubectl.event(&node, "EvictionThresholdMet");
    // Whoever comes all the same is sent away.
    let bound = format!("{{\"spec\":{{\"nodeName\":\"{node}\"}}}}");
    kubectl.pod("comes", &["--restart=Never", "--overrides", &bound], "true");
    reach(&kubectl, "pod/comes", ".status.reason", "Evicted");
    assert!(get(&kubectl, &["pod", "comes"], ".status.message").contains("The node had condition: [DiskPressure]"));

    // A soft threshold is told at once and borne for a while; then pods end, with their grace.
    server.end(Signal::SIGTERM);
    server.set_flags(&[]);
    server.up();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=DiskPressure=false", "--timeout=60s"]);
    kubectl.apply(LASTS);
    kubectl.wait("pod/lasts", "condition=Ready");
    server.end(Signal::SIGTERM);
    server.set_flags(&[
        &format!("--eviction-soft=nodefs.available<{}", free + (1 << 30)),
        "--eviction-soft-grace-period=nodefs.available=3s",
        "--eviction-max-pod-grace-period=20",
        "--eviction-minimum-reclaim=nodefs.available=1Mi",
        "--eviction-pressure-transition-period=1s",
    ]);
    server.up();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=DiskPressure", "--timeout=60s"]);
    reach(&kubectl, "pod/lasts", ".status.reason", "Evicted");
    reach(&kubectl, "pod/lasts", ".status.containerStatuses[0].state.terminated.exitCode", "7");
    kubectl.event(&node, "NodeHasDiskPressure");
    let path = format!("/api/v1/nodes/{node}/proxy");
    let configuration = kubectl.ok(&["get", "--raw", &format!("{path}/configz")]);
    assert!(configuration.contains(r#""evictionSoftGracePeriod":{"nodefs.available":"3s"}"#), "{configuration}");
    let metrics = kubectl.ok(&["get", "--raw", &format!("{path}/metrics")]);
    assert!(metrics.contains("kubelet_evictions{eviction_signal=\"nodefs.available\"} 1\n"), "{metrics}");
}
