//! `coracle run`: the cluster of one command, whose end takes everything with it, however that comes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use coracle_tests::{
    Server, image, left,
    pty::Terminal,
    screen::{Follow, LIMIT, Screen},
    server::program,
};
use nix::sys::signal::Signal;

/// What a cluster with a pod has on a machine.
const ALL: [&str; 7] = ["cgroups", "links", "mounts", "network namespaces", "pins", "processes", "state"];

fn run(flags: &[&str], line: &str) -> Command {
    let mut command = Command::new(program());
    command.arg("run").args(flags).args(["--", "sh", "-c", line]);
    command
}

/// Says where its data is, in a line of its own: the rest of it.
fn data_dir(shown: &str) -> PathBuf {
    PathBuf::from(shown.trim())
}

/// Gone at once: who ends takes everything down before.
fn assert_gone(id: &str, data_dir: &Path) {
    left::assert_nothing(id, data_dir);
    assert!(!data_dir.exists(), "{} is gone", data_dir.display());
}

#[test]
fn the_commands_exit_code_is_passed_on_and_two_at_once_leave_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::busybox(directory.path());
    let archive = archive.to_str().expect("UTF-8");
    let work = "kubectl run web --image=busybox:test --image-pull-policy=Never -- sleep 1000 >&2 && \
        kubectl wait pod/web --for=condition=Ready --timeout=90s >&2 && mkfifo $CORACLE_DATA_DIR/go && echo $CORACLE_DATA_DIR && read -r go < $CORACLE_DATA_DIR/go; exit 3";
    let mut runs: Vec<Follow> = [(), ()].iter().map(|()| Follow::start(run(&["--import", archive], work))).collect();
    let places: Vec<(String, PathBuf)> = runs
        .iter_mut()
        .map(|run| {
            let data_dir = data_dir(&run.line());
            let id = left::id(&data_dir).expect("the machine knows it");
            assert_eq!(left::of(&id, &data_dir).into_keys().collect::<Vec<_>>(), ALL, "what is looked for can be found");
            (id, data_dir)
        })
        .collect();
    for (_, data_dir) in &places {
        // The command waits for this line.
        std::fs::write(data_dir.join("go"), "go\n").expect("written");
    }
    for (run, (id, data_dir)) in runs.into_iter().zip(places) {
        assert_eq!(run.wait().code(), Some(3));
        assert_gone(&id, &data_dir);
    }
}

#[test]
fn signals_end_it_in_order() {
    // A command that is killed, as a shell tells it.
    let output = run(&[], "echo $CORACLE_DATA_DIR; kill -KILL $$").stderr(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(128 + 9));
    assert!(!data_dir(&String::from_utf8_lossy(&output.stdout)).exists());

    // SIGTERM goes to the command, whose exit code counts. What it started itself ends with the cluster.
    // The child says the line, so it is what its arguments say by then.
    let line = "trap 'exit 5' TERM; sh -c 'echo $CORACLE_DATA_DIR; sleep 1000; :' a-child & wait";
    let mut follow = Follow::start(run(&[], line));
    let data = data_dir(&follow.line());
    let id = left::id(&data).expect("the machine knows it");
    assert!(left::of(&id, &data)["processes"].iter().any(|p| p.ends_with("a-child ")), "the command's child is the cluster's");
    follow.signal(Signal::SIGTERM);
    assert_eq!(follow.wait().code(), Some(5));
    assert_gone(&id, &data);

    // Ctrl-C on a real terminal reaches both.
    let mut terminal =
        Terminal::start(run(&[], "trap 'exit 6' INT TERM; echo data=$CORACLE_DATA_DIR; while :; do sleep 0.1; done"), 24, 80);
    terminal.see("data=");
    let data = data_dir(&terminal.see("\n"));
    let id = left::id(&data).expect("the machine knows it");
    terminal.say("\x03");
    assert_eq!(terminal.wait().code(), Some(6));
    assert_gone(&id, &data);
}

/// A signal that comes before the command began: it never runs, and that is no success.
#[test]
fn a_start_that_is_interrupted_leaves_nothing() {
    for step in ["API server ready", "dataplane ready", "serves on"] {
        let directory = tempfile::Builder::new().prefix("coracle-run-").tempdir_in("/var/tmp").expect("a directory");
        let data = directory.path();
        let mut command = run(&["--data-dir", data.to_str().expect("UTF-8")], "echo it ran");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut told = Screen::of(child.stderr.take().expect("piped"));
        told.see(step);
        let id = left::id(data).expect("the machine knows it");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("it lives");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), &*output.stdout), (Some(128 + 15), &b""[..]), "{step}");
        left::assert_nothing(&id, data);
        assert!(data.join("server").exists(), "a data directory that was named stays");
    }
}

/// Next to a server with a workload; killed; what it left is taken down by the next, and the server's pods never notice.
#[test]
fn the_next_run_takes_down_what_a_killed_one_left() {
    let (server, kubectl) = Server::with_image();
    kubectl.pod("web", &[], "echo of the server > /tmp/index.html; httpd -f -p 80 -h /tmp");
    kubectl.ok(&["expose", "pod", "web", "--port=80"]);
    kubectl.wait("pod/web", "condition=Ready");
    let ask = |name: &str| kubectl.in_a_pod(name, "until wget -qO- http://web; do :; done");
    assert_eq!(ask("before"), "of the server\n");

    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::busybox(directory.path());
    let line = "kubectl run web --image=busybox:test --image-pull-policy=Never -- \
        sh -c 'echo of the run > /tmp/index.html; httpd -f -p 80 -h /tmp' >&2 && kubectl expose pod web --port=80 >&2 && \
        kubectl wait pod/web --for=condition=Ready --timeout=90s >&2 && \
        kubectl run ask --image=busybox:test --image-pull-policy=Never --restart=Never -- sh -c 'until wget -qO- http://web; do :; done' >&2 && \
        kubectl wait pod/ask --for=jsonpath={.status.phase}=Succeeded --timeout=90s >&2 && kubectl logs ask && echo $CORACLE_DATA_DIR; sleep 1000";
    let mut killed = Follow::start(run(&["--import", archive.to_str().expect("UTF-8")], line));
    assert_eq!(killed.line(), "of the run", "the same name in another cluster is another Service");
    let data = data_dir(&killed.line());
    let id = left::id(&data).expect("the machine knows it");
    assert_eq!(left::of(&id, &data).into_keys().collect::<Vec<_>>(), ALL);
    killed.signal(Signal::SIGKILL);
    killed.wait();

    let output = run(&[], "exit 0").stderr(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    // Another test's cluster may have come first and may not be done yet.
    let began = Instant::now();
    while !left::of(&id, &data).is_empty() || data.exists() {
        assert!(began.elapsed() < LIMIT, "left: {:#?}", left::of(&id, &data));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(ask("after"), "of the server\n");
    drop(server);
}
