//! A disk that is full or closed, and an image store that is damaged: the node says why it is not Ready, what runs goes on, nothing that was
//! acknowledged is lost, and all is well soon after the cause is gone, without a restart.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_tests::{
    Kubectl, Server,
    disk::{Disk, ReadOnly},
    image,
};
use nix::sys::signal::Signal;

/// Room for the program as shims run it, images, and two segments of the log, also of a build that is not optimised.
const DISK_MIB: u64 = 2048;
/// Until the node says what is wrong, and until it is Ready again: one look at the disk, and time for a machine that is shared.
const SOON: &str = "--timeout=30s";
const HEALS_WITHIN: Duration = Duration::from_secs(15);

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox:test, imagePullPolicy: Never, command: [sh, -c, "while :; do echo on; sleep 0.05; done"]}
---
apiVersion: v1
kind: Pod
metadata: {name: serves}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "echo well > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 3}
"#;

fn new_pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers: [{{name: c, image: busybox:test, imagePullPolicy: Never, command: [sleep, '100000']}}]\n"
    )
}

fn not_ready(kubectl: &Kubectl, why: &str) {
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready=false", SOON]);
    let message = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].message}"]);
    assert!(message.contains(why), "{message}");
}

fn ready(kubectl: &Kubectl) {
    let began = Instant::now();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", SOON]);
    assert!(began.elapsed() < HEALS_WITHIN, "it took {:?}", began.elapsed());
}

/// What the pods that were there from the beginning have to say for themselves: they never stopped.
fn all_well(kubectl: &Kubectl) {
    let state = "{range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[0].restartCount} {end}";
    let names = ["get", "pods", "talks", "serves", "-o"];
    let said = kubectl.ok(&[&names[..], &[&format!("jsonpath={state}")]].concat());
    assert_eq!(said, "talks Running 0 serves Running 0 ");
    assert_eq!(kubectl.ok(&["exec", "serves", "--", "cat", "/tmp/index.html"]), "well\n");
}

/// A ConfigMap that no compression makes small, so that the log fills soon.
fn big(n: usize) -> String {
    let mut noise = vec![0; 600 << 10];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut noise)).expect("noise");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big-{n}, labels: {{size: big}}}}\ndata: {{noise: {}}}\n",
        STANDARD.encode(noise)
    )
}

fn big_ones(kubectl: &Kubectl) -> usize {
    kubectl.ok(&["get", "configmaps", "-l", "size=big", "-o", "name"]).lines().count()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_disk_in_trouble_costs_no_running_pod_and_heals_without_a_restart() {
    let disk = Disk::new(DISK_MIB);
    // Pods are not ended to make room here: eviction has tests of its own.
    let (mut server, kubectl) = Server::with_image_below(&disk.root(), &["--eviction-hard=nodefs.available<0%,nodefs.inodesFree<0%"]);
    kubectl.apply(PODS);
    kubectl.ok(&["wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s"]);

    // Full.
    let ballast = disk.fill();
    not_ready(&kubectl, "has no room");
    all_well(&kubectl);
    // What was set aside for the log takes writes for a while.
    let mut acknowledged = 0;
    let refused = loop {
        let output = kubectl.try_stdin(&["create", "-f", "-"], &big(acknowledged));
        if !output.status.success() {
            break String::from_utf8_lossy(&output.stderr).into_owned();
        }
        acknowledged += 1;
        assert!(acknowledged < 100, "a full disk takes everything");
    };
    assert!(refused.contains("the store takes no writes") && refused.contains("No space left on device"), "{refused}");
    assert_eq!(big_ones(&kubectl), acknowledged, "what was acknowledged can be read, what was refused is not there");
    all_well(&kubectl);
    drop(ballast);
    kubectl.stdin(&["create", "-f", "-"], &big(acknowledged));
    ready(&kubectl);
    kubectl.apply(&new_pod("after-full"));
    kubectl.wait("pod/after-full", "condition=Ready");
    let more = || kubectl.ok(&["logs", "talks", "--tail=5", "--since=1s"]).contains("on");
    assert!(more(), "its log goes on");
    let log = kubectl.ok(&["logs", "talks"]);
    assert_eq!(log.lines().find(|line| !"on".starts_with(line)), None, "a line that had no room is cut off, and the next one is whole");

    // Closed to writes.
    let closed = ReadOnly::new(server.data_dir());
    not_ready(&kubectl, "is read-only");
    all_well(&kubectl);
    assert_eq!(big_ones(&kubectl), acknowledged + 1);
    drop(closed);
    ready(&kubectl);
    kubectl.apply(&new_pod("after-closed"));
    kubectl.wait("pod/after-closed", "condition=Ready");

    // The index of the images is damaged, then its copy as well.
    let images = server.data_dir().join("runtime/images");
    let (index, copy) = (images.join("index.json"), images.join("index.copy"));
    let good = fs::read(&index).expect("an index");
    fs::write(&index, &good[..good.len() / 2]).expect("damaged");
    kubectl.apply(&new_pod("by-the-copy"));
    kubectl.wait("pod/by-the-copy", "condition=Ready");
    fs::write(&copy, "").expect("damaged");
    not_ready(&kubectl, "index.json is damaged");
    all_well(&kubectl);
    fs::write(&index, &good).expect("mended");
    ready(&kubectl);

    // The layers are lost: the image is not here any more, until it comes again.
    for (n, layer) in files(&images.join("layers")).iter().enumerate() {
        // Out of sight only: what runs stands on them.
        fs::rename(layer.join("fs"), server.data_dir().join(format!("lost-{n}"))).expect("lost");
    }
    kubectl.apply(&new_pod("without-layers"));
    kubectl.wait("pod/without-layers", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull");
    let directory = tempfile::tempdir().expect("a directory");
    server.import(&image::busybox(directory.path()));
    kubectl.wait("pod/without-layers", "condition=Ready");
    all_well(&kubectl);

    // Nothing that was acknowledged is lost.
    server.end(Signal::SIGKILL);
    server.up();
    assert_eq!(big_ones(&kubectl), acknowledged + 1);
    ready(&kubectl);
    all_well(&kubectl);
}
