//! A node with real containers behind a real Service, with the real kubectl; and what a kill of the server does to it: nothing.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use coracle_tests::{Kubectl, Server, image, server::program};
use nix::sys::signal::Signal;

const WEB: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "hello from config\n"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: httpd
        image: busybox:test
        imagePullPolicy: Never
        command: [httpd, -f, -p, "8080", -h, /www]
        env: [{name: PAGE, valueFrom: {configMapKeyRef: {name: page, key: index.html}}}]
        volumeMounts: [{name: www, mountPath: /www}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      volumes: [{name: www, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

/// How long something may take that has no watch of its own.
const LIMIT: Duration = Duration::from_secs(60);

fn with_image() -> (Server, Kubectl) {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    server.import(&image::busybox(directory.path()));
    let kubectl = server.kubectl();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    (server, kubectl)
}

/// Runs a shell line in a pod of its own, to its end; its output.
fn in_a_pod(kubectl: &Kubectl, name: &str, line: &str) -> String {
    kubectl.ok(&["run", name, "--image=busybox:test", "--image-pull-policy=Never", "--restart=Never", "--", "sh", "-c", line]);
    let pod = format!("pod/{name}");
    kubectl.ok(&["wait", &pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]);
    kubectl.ok(&["logs", name])
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not after {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_deployment_answers_by_its_services_name_and_follows_its_changes() {
    let (server, kubectl) = with_image();
    kubectl.apply(WEB);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let wide = kubectl.ok(&["get", "pods", "-l=app=web", "-o", "wide"]);
    assert_eq!(wide.matches("Running").count(), 3, "{wide}");
    assert_eq!(wide.matches(" 10.42.").count(), 3, "{wide}");
    let answers = in_a_pod(&kubectl, "ask", "wget -qO- http://web && wget -qO- http://web.default.svc.cluster.local");
    assert_eq!(answers, "hello from config\nhello from config\n");

    kubectl.ok(&["set", "image", "deployment/web", "httpd=busybox:next"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let images = || kubectl.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]);
    assert_eq!(images(), "busybox:next");
    kubectl.ok(&["rollout", "undo", "deployment/web"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    assert_eq!(images(), "busybox:test");
    kubectl.ok(&["scale", "deployment/web", "--replicas=1"]);
    kubectl.ok(&["wait", "deployment/web", "--for=jsonpath={.status.replicas}=1", "--timeout=60s"]);

    let pod =
        kubectl.ok(&["get", "pods", "-l=app=web", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[0].metadata.name}"]);
    kubectl.ok(&["delete", "pod", &pod]);
    kubectl.ok(&["wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=60s"]);
    assert!(kubectl.fails(&["get", "pod", &pod]).contains("NotFound"));

    let patch = r#"{"data":{"index.html":"changed\n"}}"#;
    kubectl.ok(&["patch", "configmap", "page", "-p", patch]);
    until("a changed ConfigMap is seen in the pod", || {
        kubectl.ok(&["exec", "deployment/web", "--", "cat", "/www/index.html"]) == "changed\n"
    });
    drop(server);
}

#[test]
fn logs_exec_copy_and_forwarded_ports_reach_the_container() {
    let (_server, kubectl) = with_image();
    let talk = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done";
    kubectl.ok(&["run", "talk", "--image=busybox:test", "--image-pull-policy=Never", "--", "sh", "-c", talk]);
    kubectl.wait("pod/talk", "condition=Ready");
    let mut follow = kubectl.command(&["logs", "-f", "talk"]).stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut read = [0; 64];
    let mut out = follow.stdout.take().expect("piped");
    let mut text = String::new();
    while !text.contains("line 3") {
        let n = out.read(&mut read).expect("it follows");
        assert!(n > 0, "the log ended: {text}");
        text.push_str(&String::from_utf8_lossy(&read[..n]));
    }
    follow.kill().and_then(|()| follow.wait()).expect("it ends");
    assert_eq!(text.lines().next(), Some("line 0"));

    assert_eq!(kubectl.ok(&["exec", "talk", "--", "echo", "hi"]), "hi\n");
    assert_eq!(kubectl.stdin(&["exec", "-i", "talk", "--", "cat"], "through\n"), "through\n");
    let status = kubectl.output(&["exec", "talk", "--", "sh", "-c", "exit 7"]).status;
    assert_eq!(status.code(), Some(7));

    let directory = tempfile::tempdir().expect("a directory");
    let (there, back) = (directory.path().join("there"), directory.path().join("back"));
    std::fs::write(&there, "carried").expect("written");
    kubectl.ok(&["cp", there.to_str().expect("UTF-8"), "talk:/tmp/x"]);
    kubectl.ok(&["cp", "talk:/tmp/x", back.to_str().expect("UTF-8")]);
    assert_eq!(std::fs::read_to_string(back).expect("copied"), "carried");

    kubectl.ok(&[
        "run",
        "web",
        "--image=busybox:test",
        "--image-pull-policy=Never",
        "--",
        "sh",
        "-c",
        "echo forwarded > /tmp/index.html; httpd -f -p 8080 -h /tmp",
    ]);
    kubectl.wait("pod/web", "condition=Ready");
    let mut forward = kubectl.command(&["port-forward", "pod/web", ":8080"]).stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut told = String::new();
    let mut out = forward.stdout.take().expect("piped");
    while !told.contains(" -> ") {
        let n = out.read(&mut read).expect("it tells");
        assert!(n > 0, "port-forward ended: {told}");
        told.push_str(&String::from_utf8_lossy(&read[..n]));
    }
    let port: u16 = told.split("127.0.0.1:").nth(1).and_then(|t| t.split(' ').next()).and_then(|p| p.parse().ok()).expect("a port");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("forwarded");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    forward.kill().and_then(|()| forward.wait()).expect("it ends");
    assert!(answer.ends_with("forwarded\n"), "{answer}");
}

/// kill -9 of the server stops no container and fails no request by name; the next one adopts what runs.
#[test]
fn a_killed_server_is_missed_by_nobody() {
    let (mut server, kubectl) = with_image();
    kubectl.apply(WEB);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let ask = "n=0; while [ ! -e /tmp/stop ]; do wget -qO /dev/null http://web || echo failed $n; n=$((n+1)); done; echo asked $n";
    kubectl.ok(&["run", "ask", "--image=busybox:test", "--image-pull-policy=Never", "--restart=Never", "--", "sh", "-c", ask]);
    kubectl.wait("pod/ask", "condition=Ready");
    kubectl.ok(&[
        "run",
        "ends",
        "--image=busybox:test",
        "--image-pull-policy=Never",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 9",
    ]);
    kubectl.wait("pod/ends", "condition=Ready");
    let ids = || kubectl.ok(&["get", "pods", "-l=app=web", "-o", "jsonpath={.items[*].status.containerStatuses[0].containerID}"]);
    let before = ids();

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        server.end(signal);
        server.up();
        kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
        assert_eq!(ids(), before, "{signal}: the same containers run");
    }
    let restarts = kubectl.ok(&["get", "pods", "-l=app=web", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"]);
    assert_eq!(restarts, "0 0 0");

    kubectl.ok(&["exec", "ask", "--", "touch", "/tmp/stop"]);
    kubectl.ok(&["wait", "pod/ask", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]);
    let log = kubectl.ok(&["logs", "ask"]);
    assert!(!log.contains("failed") && log.contains("asked "), "{log}");

    kubectl.ok(&["exec", "ends", "--", "touch", "/tmp/stop"]);
    server.end(Signal::SIGKILL);
    server.up();
    kubectl.ok(&["wait", "pod/ends", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s"]);
    let code = kubectl.ok(&["get", "pod", "ends", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"]);
    assert_eq!(code, "9", "an exit code is not lost");
}

#[test]
fn impossible_pods_say_why() {
    let (_server, kubectl) = with_image();
    kubectl.ok(&["run", "noimage", "--image=example.invalid/none:1", "--image-pull-policy=Never"]);
    kubectl.ok(&[
        "run",
        "nocommand",
        "--image=busybox:test",
        "--image-pull-policy=Never",
        "--restart=Never",
        "--command",
        "--",
        "/no/such/program",
    ]);
    let reason = |pod: &str, state: &str| {
        kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={{.status.containerStatuses[0].state.{state}.reason}}")])
    };
    until("a missing image is told", || reason("noimage", "waiting") == "ErrImageNeverPull");
    until("a missing command is told", || matches!(reason("nocommand", "terminated").as_str(), "StartError" | "ContainerCannotRun"));
    let events = kubectl.ok(&["get", "events"]);
    assert!(events.contains("ErrImageNeverPull"), "{events}");
}

/// The cluster of one command: its exit code is passed on, and nothing stays on the machine. Two at once do not disturb each other.
#[test]
fn run_passes_the_exit_code_on_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::busybox(directory.path());
    let start = |line: &str| {
        let mut command = Command::new(program());
        command.arg("run").arg("--import").arg(&archive).args(["--", "sh", "-c", line]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let work = "kubectl run web --image=busybox:test --image-pull-policy=Never -- sleep 1000 && kubectl wait pod/web --for=condition=Ready --timeout=60s && echo $CORACLE_DATA_DIR && exit 3";
    let runs: Vec<_> = [start(work), start(work)].into_iter().map(|child| child.wait_with_output().expect("it ends")).collect();
    for output in runs {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{out}{err}");
        let data_dir = out.lines().last().expect("the command told its data directory");
        assert!(!std::path::Path::new(data_dir).exists(), "{data_dir} is gone");
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(data_dir), "no mount is left");
    }
}
