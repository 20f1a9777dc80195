//! Mistakes of the person who starts it: one clear line, exit code 1, and the machine as it was.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use coracle_tests::{Server, left, server::program};

/// A server of a directory of its own, on ports of its own.
fn server(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["server", "--https-listen-port=0", "--kubelet-port=0", "--data-dir"]).arg(directory).args(args);
    command
}

/// Runs it to its end, which must be exit code 1; the one line that it says, behind the steps of its start.
fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it can be started");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(1), "{command:?}: {out}{err}");
    let is_step = |line: &&str| line.strip_prefix("coracle ").is_some_and(|rest| rest.trim_start().split_once(" ms  ").is_some());
    let lines: Vec<&str> = err.lines().filter(|line| !is_step(line)).collect();
    assert!(lines.len() == 1 && out.is_empty(), "one line: {lines:?} {out}");
    lines[0].strip_prefix("coracle: ").unwrap_or_else(|| panic!("who says it: {err}")).to_owned()
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("coracle-mistakes-").tempdir_in("/var/tmp").expect("a directory")
}

/// Refused at the end of a start, so that there was something to take down.
fn refused_and_clean(data: &Path, command: &mut Command) -> String {
    let line = refused(command);
    assert_eq!(left::id(data), None, "the machine knows nothing of it");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(data.to_str().expect("UTF-8")), "no mount is left");
    line
}

#[test]
fn flags_keys_and_variables_are_named_with_where_they_stand() {
    let directory = directory();
    let (data, config) = (directory.path().join("data"), directory.path().join("config.yaml"));
    let more = directory.path().join("config.yaml.d");
    fs::create_dir(&more).expect("made");
    let with = |main: &str, second: &str, flags: &[&str]| {
        fs::write(&config, main).expect("written");
        fs::write(more.join("10.yaml"), second).expect("written");
        let mut command = Command::new(program());
        command.arg("server").arg("--data-dir").arg(&data).arg("--config").arg(&config).args(flags);
        command
    };
    let (main, second) = (config.display().to_string(), more.join("10.yaml").display().to_string());
    for (first, then, flags, wanted) in [
        ("", "", &["--cluster-cdir=10.0.0.0/16"][..], vec!["'--cluster-cdir'", "'--cluster-cidr'"]),
        ("", "", &["--https-listen-port=many"][..], vec!["'many'", "'--https-listen-port <PORT>'"]),
        ("", "", &["--roles=scheduler,kitchen"][..], vec!["'kitchen'", "possible values"]),
        ("", "", &["--cluster-cidr=10.42.0.1/16"][..], vec!["--cluster-cidr \"10.42.0.1/16\"", "expected a network"]),
        ("cluster-cdir: x\n", "", &[][..], vec![&*main, "unknown key \"cluster-cdir\"", "\"cluster-cidr\""]),
        ("a: [\n", "", &[][..], vec![&*main, "not valid YAML"]),
        ("https-listen-port: many\n", "", &[][..], vec![&*main, "'many'", "'--https-listen-port <PORT>'"]),
        ("https-listen-port: 7443\n", "node-taint: [a=b:Never]\n", &[][..], vec![&*second, "--node-taint \"a=b:Never\""]),
        ("", "disable-agent: perhaps\n", &[][..], vec![&*second, "disable-agent", "true or false"]),
        ("", "tls-san: {a: b}\n", &[][..], vec![&*second, "tls-san"]),
    ] {
        let line = refused(&mut with(first, then, flags));
        for word in wanted {
            assert!(line.contains(word), "{word} in: {line}");
        }
    }
    for (variable, value, wanted) in [
        ("CORACLE_HTTPS_LISTEN_PORT", "many", "'--https-listen-port <PORT>'"),
        ("CORACLE_SERVICE_CIDR", "everything", "--service-cidr \"everything\""),
        ("CORACLE_DISABLE_AGENT", "perhaps", "'--disable-agent'"),
    ] {
        let line = refused(with("", "", &[]).env(variable, value));
        assert!(line.contains(variable) && line.contains(value) && line.contains(wanted), "{line}");
    }
    let missing = directory.path().join("none.yaml");
    let line = refused(Command::new(program()).args(["server", "--config"]).arg(&missing));
    assert!(line.contains(&missing.display().to_string()) && line.contains("No such file"), "{line}");
    assert!(!data.exists(), "nothing was begun");
    assert!(refused(Command::new(program()).arg("sever")).contains("'server'"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a socket");
    let port = taken.local_addr().expect("bound").port().to_string();
    for flag in ["--https-listen-port", "--kubelet-port"] {
        let directory = directory();
        let mut command = Command::new(program());
        let other = if flag == "--kubelet-port" { "--https-listen-port" } else { "--kubelet-port" };
        command.arg("server").arg("--data-dir").arg(directory.path()).args([flag, &port, other, "0"]);
        let line = refused_and_clean(directory.path(), &mut command);
        assert!(line.contains(&port) && line.contains("in use"), "{line}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    // No program may write there, root neither.
    let line = refused(&mut server(Path::new("/proc/coracle"), &[]));
    assert!(line.contains("/proc/coracle"), "{line}");
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let line = refused(&mut server(&file, &[]));
    assert!(line.contains(&file.display().to_string()), "{line}");
    // Whose is it? A second server of the same directory.
    let running = Server::start(&["--roles=apiserver"]);
    let line = refused(&mut server(running.data_dir(), &["--roles=apiserver"]));
    assert!(line.contains("another coracle runs") && line.contains(&running.data_dir().display().to_string()), "{line}");
    let line = refused(Command::new(program()).arg("killall").arg("--data-dir").arg(running.data_dir()));
    assert!(line.contains("stop it first"), "{line}");
    assert_eq!(running.kubectl().ok(&["get", "--raw", "/readyz"]), "ok", "and the first goes on");
}

#[test]
fn who_is_not_root_is_told_so() {
    // The program may stand where nobody else can look.
    let directory = tempfile::Builder::new().prefix("coracle-nobody-").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let copy = directory.path().join("coracle");
    fs::hard_link(program(), &copy).or_else(|_| fs::copy(program(), &copy).map(drop)).expect("a copy");
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy).args(args);
        command
    };
    for args in [&["server"][..], &["run", "--", "true"], &["killall"]] {
        let line = refused(&mut nobody(args));
        assert!(line.contains("needs root"), "{line}");
    }
    let output = nobody(&["doctor"]).output().expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && out.lines().any(|l| l.starts_with("MISSING root ") && l.contains("sudo")), "{out}");
}

/// A machine without cgroups, as a mount namespace makes it.
#[test]
fn a_missing_kernel_feature_is_named_and_nothing_begun() {
    let directory = directory();
    let without = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!("umount -a -l -t cgroup2,cgroup && {line}"));
        command.env("CORACLE", program()).env("DATA", directory.path());
        command
    };
    let line = refused_and_clean(
        directory.path(),
        &mut without("exec \"$CORACLE\" server --data-dir \"$DATA\" --https-listen-port=0 --kubelet-port=0"),
    );
    assert!(line.contains("no cgroup hierarchy of version 2 is mounted"), "{line}");
    assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0, "nothing was begun");
    let output = without("exec \"$CORACLE\" doctor --data-dir \"$DATA\"").output().expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && out.lines().any(|l| l.starts_with("MISSING cgroup v2 ")), "{out}");
}
