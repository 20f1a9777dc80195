//! A newer binary in the place of the old one: nobody who uses the cluster notices.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use coracle_tests::{Server, left, manifests, server::program};
use nix::sys::signal::Signal;

/// The eBPF object as the program holds it.
const OBJECT: &[u8] = include_bytes!("../../ebpf/coracle.bpf.o");

/// The program as another build would have it: other bytes at its end, and other eBPF programs, that do the same.
fn newer(directory: &Path) -> PathBuf {
    let mut bytes = std::fs::read(program()).expect("the program");
    let at = bytes.windows(OBJECT.len()).position(|window| window == OBJECT).expect("the program holds its eBPF object");
    // A source file's name in the object's debug information: part of its hash, and of nothing that is run.
    let name = OBJECT.windows(4).position(|window| window == b".rs\0").expect("a source file is named");
    bytes[at + name - 1] ^= 1;
    bytes.extend_from_slice(b"a newer build");
    let path = directory.join("coracle");
    std::fs::write(&path, bytes).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    path
}

fn names(directory: &str, of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory}: {e}")).flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(of)).collect()
}

#[test]
fn a_newer_binary_is_noticed_by_nobody() {
    let (mut server, kubectl) = Server::with_image();
    // Not below /tmp: it may be small and in memory.
    let directory = tempfile::Builder::new().prefix("coracle-newer-").tempdir_in("/var/tmp").expect("a directory");
    let newer = newer(directory.path());
    kubectl.apply(&manifests::web(2));
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    kubectl.pod(
        "ask",
        &["--restart=Never"],
        "until wget -qO /dev/null http://web; do :; done; echo begun; n=0; \
         while [ ! -e /tmp/stop ]; do wget -qO /dev/null http://web || echo failed $n; n=$((n+1)); done; echo asked $n",
    );
    kubectl.pod("talk", &[], "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done");
    kubectl.wait("pod/talk", "condition=Ready");
    kubectl.follow(&["logs", "-f", "ask"]).see("begun");
    let of_all = |field: &str| {
        let path = format!("jsonpath={{.items[*].status.containerStatuses[0].{field}}}");
        kubectl.ok(&["get", "pods", "--sort-by=.metadata.name", "-o", &path])
    };
    let before = of_all("containerID");
    let id = left::id(server.data_dir()).expect("the machine knows it");
    let pins = format!("/sys/fs/bpf/coracle/{id}");
    let programs = names(&pins, "programs-");
    let resident = |server: &Server| {
        let found = left::of(&id, server.data_dir())["processes"].iter().find(|p| p.contains(" __dns ")).cloned();
        found.expect("a resident of DNS").split(' ').next().unwrap_or_default().to_owned()
    };
    let dns = resident(&server);

    server.end(Signal::SIGTERM);
    server.up_as(&newer);
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    assert_ne!(names(&pins, "programs-"), programs, "the dataplane is the newer build's");
    // What a new pod gets and asks is the newer build's, too.
    assert_eq!(kubectl.in_a_pod("later", "wget -qO- http://web"), "hello\n");
    assert_eq!(resident(&server), dns, "the resident stayed");
    let exe = std::fs::read_link(format!("/proc/{dns}/exe")).expect("it runs");
    assert_eq!(exe, newer.canonicalize().expect("it is there"), "and became the newer program");

    kubectl.ok(&["exec", "ask", "--", "touch", "/tmp/stop"]);
    kubectl.wait("pod/ask", "jsonpath={.status.phase}=Succeeded");
    let log = kubectl.ok(&["logs", "ask"]);
    assert!(!log.contains("failed") && log.contains("asked "), "{log}");
    kubectl.ok(&["delete", "pod", "later"]);
    assert_eq!(of_all("containerID"), before, "the same containers run");
    assert_eq!(of_all("restartCount"), "0 0 0 0");
    let lines = kubectl.ok(&["logs", "talk"]);
    let gap = lines.lines().enumerate().find(|(n, line)| n.to_string() != *line);
    assert_eq!(gap, None, "the log has every line once");
    assert!(lines.lines().count() > 100);
    server.end(Signal::SIGTERM);
    server.up();
    assert_eq!(names(&pins, "programs-"), programs, "and back again");
    assert_eq!(of_all("containerID"), before);
}
