//! What the program does beside running a cluster: doctor, images, killall, completion, version; and what it tells systemd.

use std::{
    ffi::OsStr,
    os::unix::net::UnixDatagram,
    process::{Command, Output},
    time::Duration,
};

use coracle_tests::{Server, image, left, registry::Registry, server::program};
use nix::sys::signal::Signal;

fn coracle(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("it runs")
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn version_is_told_to_people_and_programs() {
    let text = out(&coracle(&["version"]));
    let json: serde_json::Value = serde_json::from_str(&out(&coracle(&["version", "-o", "json"]))).expect("JSON");
    let (ours, kubernetes) = (json["version"].as_str().expect("a version"), json["kubernetes"].as_str().expect("another"));
    assert_eq!(text, format!("coracle {ours} (Kubernetes {kubernetes})\n"));
    assert!(kubernetes.starts_with("v1.36."), "{kubernetes}");
    assert_eq!((&json["os"], &json["arch"]), (&"linux".into(), &std::env::consts::ARCH.into()));
}

#[test]
fn completion_is_a_script_of_the_shell() {
    for (shell, marks) in [
        ("bash", ["complete -F _coracle", "--cluster-cidr"]),
        ("zsh", ["#compdef coracle", "--cluster-cidr"]),
        ("fish", ["complete -c coracle", "-l cluster-cidr"]),
    ] {
        let script = out(&coracle(&["completion", shell]));
        for mark in marks {
            assert!(script.contains(mark), "{mark} in the script of {shell}");
        }
    }
    // bash is on every machine that runs the tests: it offers what is there.
    let ask = "source <($0 completion bash); COMP_WORDS=(coracle images i); COMP_CWORD=2; _coracle coracle i images; echo ${COMPREPLY[@]}";
    let offered = Command::new("bash").args(["-c", ask]).arg(program()).output().expect("bash");
    assert_eq!(out(&offered), "import\n");
}

#[test]
fn doctor_says_of_each_thing_how_it_stands() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(program()).args(["doctor", "--data-dir"]).arg(directory.path()).output().expect("it runs");
    let text = out(&output);
    for line in text.lines() {
        let verdict = ["ok     ", "lacking"].iter().any(|mark| line.starts_with(mark));
        assert!(verdict && line.len() > 33 && line.is_char_boundary(33), "a verdict, a name, and what to do: {line}");
    }
    for what in ["root", "cgroup controllers", "ports", "clock", "fdatasync", "kernel", "BTF", "BPF file system", "cgroup v2", "nftables"] {
        assert!(text.lines().any(|line| line[8..].starts_with(what)), "{what} in {text}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0, "nothing is left of the look");
}

/// Import, list, pull over TLS from a registry with an authority of its own, remove; and what is refused.
#[test]
fn images_come_from_archives_and_registries_and_go() {
    let server = Server::start(&["--roles=apiserver"]);
    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::busybox(directory.path());
    let images = |args: &[&str]| server.images(&args.iter().map(OsStr::new).collect::<Vec<_>>());
    let imported = out(&images(&["import", archive.to_str().expect("UTF-8")]));
    let names: std::collections::BTreeSet<&str> = imported.lines().collect();
    assert_eq!(names, ["docker.io/library/busybox:next", "docker.io/library/busybox:test"].into());
    let listed = out(&images(&["ls"]));
    assert!(listed.lines().any(|line| line.starts_with("docker.io/library/busybox:test ")), "{listed}");

    let registry = Registry::start(&archive, "team/app", "v1", directory.path());
    let name = format!("{}/team/app:v1", registry.host);
    let failed = |args: &[&str]| {
        let output = images(args);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("coracle: ") && text.lines().count() == 1, "one line: {text}");
        text
    };
    let authority = registry.authority.to_str().expect("UTF-8");
    let pulled = out(&images(&["pull", "--ca-file", authority, &name]));
    assert!(pulled.starts_with("sha256:"), "{pulled}");
    assert!(out(&images(&["ls"])).contains(&name));
    let unknown = failed(&["pull", "--ca-file", authority, &format!("{}/team/app:v2", registry.host)]);
    assert!(unknown.contains("team/app:v2"), "{unknown}");
    // A certificate of nobody that is known.
    let foreign = Registry::start(&archive, "team/app", "v1", tempfile::tempdir().expect("a directory").path());
    let untrusted = failed(&["pull", "--ca-file", authority, &format!("{}/team/app:v1", foreign.host)]);
    assert!(untrusted.contains("certificate"), "{untrusted}");
    failed(&["pull", "--ca-file", "/no/such/file", &name]);
    failed(&["import", "/no/such/archive.tar"]);

    out(&images(&["rm", &name]));
    let listed = out(&images(&["ls"]));
    assert!(!listed.contains(&format!("{name} ")) && listed.contains("busybox:test"), "a name goes, the others stay: {listed}");
    out(&images(&["rm", pulled.trim()]));
    assert_eq!(out(&images(&["ls"])).lines().count(), 1, "the heading alone");
    let gone = failed(&["rm", "busybox:test"]);
    assert!(gone.contains("busybox:test"), "{gone}");
}

#[test]
fn killall_ends_all_workloads_of_a_data_directory() {
    let (mut server, kubectl) = Server::with_image();
    kubectl.pod("web", &[], "sleep 1000");
    kubectl.wait("pod/web", "condition=Ready");
    let (id, data) = (left::id(server.data_dir()).expect("the machine knows it"), server.data_dir().to_owned());
    server.end(Signal::SIGTERM);
    assert!(left::of(&id, &data).contains_key("processes"), "the workload outlives the server");
    let output = Command::new(program()).args(["killall", "--data-dir"]).arg(&data).output().expect("it runs");
    assert_eq!(out(&output), "");
    left::assert_nothing(&id, &data);
    assert!(data.join("server").exists(), "its data stays");
    // And the cluster comes back with what it should run.
    server.up();
    kubectl.wait("pod/web", "condition=Ready");
}

/// systemd's readiness: a datagram when the API serves and the node runs, another when it is to end.
#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut server = Server::start_with(&["--roles=apiserver"], vec![("NOTIFY_SOCKET", path.into())]);
    let told = || {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(told().trim(), "READY=1");
    assert_eq!(server.kubectl().ok(&["get", "--raw", "/readyz"]), "ok");
    server.end(Signal::SIGTERM);
    assert_eq!(told().trim(), "STOPPING=1");
}
