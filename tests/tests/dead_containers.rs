//! A disk that is short: what dead containers wrote goes before any pod has to.

use std::{
    thread,
    time::{Duration, Instant},
};

use coracle_tests::{Server, disk::Disk};
use nix::{sys::signal::Signal, sys::statvfs::statvfs};

const DISK_MIB: u64 = 1536;
/// Bytes that the first run writes.
const WRITTEN: u64 = 200 << 20;
const LONGEST: Duration = Duration::from_secs(60);

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: twice}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: mark, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "[ -e /mark/x ] && exec sleep 100000; touch /mark/x; head -c WRITTEN /dev/zero >/large; echo first; exit 5"]
    volumeMounts: [{name: mark, mountPath: /mark}]
"#;

#[test]
fn what_dead_containers_wrote_goes_before_pods() {
    let disk = Disk::new(DISK_MIB);
    let (mut server, kubectl) = Server::with_image_below(&disk.root(), &["--eviction-hard=nodefs.available<0%,nodefs.inodesFree<0%"]);
    kubectl.apply(&POD.replace("WRITTEN", &WRITTEN.to_string()));
    kubectl.wait("pod/twice", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    kubectl.wait("pod/twice", "condition=Ready");
    server.end(Signal::SIGTERM);
    let place = server.data_dir().to_owned();
    let free = || {
        let disk = statvfs(&place).expect("a file system");
        disk.blocks_available() * disk.fragment_size()
    };
    let before = free();
    server.set_flags(&[&format!("--eviction-hard=nodefs.available<{},nodefs.inodesFree<0%", before + WRITTEN / 2)]);
    server.up();
    // The node looks every ten seconds, and no watch tells of a disk.
    let until = Instant::now() + LONGEST;
    while free() < before + WRITTEN / 4 * 3 {
        assert!(Instant::now() < until, "nothing was given back: {} MiB were free, {} are", before >> 20, free() >> 20);
        thread::sleep(Duration::from_millis(100));
    }
    let state = "{.status.phase} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(kubectl.ok(&["get", "pod", "twice", "-o", &format!("jsonpath={state}")]), "Running 1 5");
    assert_eq!(kubectl.ok(&["logs", "twice", "--previous"]), "first\n");
    // Nor does a node that comes back forget how the run before ended.
    server.end(Signal::SIGKILL);
    server.up();
    kubectl.wait("pod/twice", "condition=Ready");
    assert_eq!(kubectl.ok(&["get", "pod", "twice", "-o", &format!("jsonpath={state}")]), "Running 1 5");
}
