//! A node with real containers behind a real Service, with the real kubectl; and what a kill of the server does to it: nothing.

use coracle_tests::{Server, manifests};
use nix::sys::signal::Signal;

/// Ends when it is told to through a directory of the machine.
const ENDS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "while [ ! -e /hold/stop ]; do sleep 0.1; done; touch /hold/gone; exit 9"]
    volumeMounts: [{name: hold, mountPath: /hold}]
  volumes: [{name: hold, hostPath: {path: HOLD, type: Directory}}]
"#;

/// kill -9 of the server stops no container and fails no request by name; the next one adopts what runs.
#[test]
fn a_killed_server_is_missed_by_nobody() {
    let (mut server, kubectl) = Server::with_image();
    kubectl.apply(&manifests::web(3));
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let ask = "n=0; while [ ! -e /tmp/stop ]; do wget -qO /dev/null http://web || echo failed $n; n=$((n+1)); done; echo asked $n";
    kubectl.pod("ask", &["--restart=Never"], ask);
    let hold = tempfile::tempdir().expect("a directory");
    kubectl.apply(&ENDS.replace("HOLD", hold.path().to_str().expect("UTF-8")));
    kubectl.wait("pod/ask", "condition=Ready");
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
    kubectl.wait("pod/ask", "jsonpath={.status.phase}=Succeeded");
    let log = kubectl.ok(&["logs", "ask"]);
    assert!(!log.contains("failed") && log.contains("asked "), "{log}");

    // It ends while there is nobody to see it.
    server.end(Signal::SIGKILL);
    std::fs::write(hold.path().join("stop"), "").expect("written");
    while !hold.path().join("gone").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server.up();
    kubectl.wait("pod/ends", "jsonpath={.status.phase}=Failed");
    let code = kubectl.ok(&["get", "pod", "ends", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"]);
    assert_eq!(code, "9", "an exit code is not lost");
}

const IMPOSSIBLE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: neverimage}
spec: {containers: [{name: c, image: "example.invalid/none:1", imagePullPolicy: Never}]}
---
apiVersion: v1
kind: Pod
metadata: {name: noimage}
spec: {containers: [{name: c, image: "127.0.0.1:1/none:1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: badimage}
spec: {containers: [{name: c, image: "Not/A/Name:::"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nocommand}
spec:
  restartPolicy: Never
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, command: [/no/such/program]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nodirectory}
spec:
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, command: [no-such-program]}]
---
apiVersion: v1
kind: Pod
metadata: {name: novolume}
spec:
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, configMap: {name: none}}]
---
apiVersion: v1
kind: Pod
metadata: {name: nopath}
spec:
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, hostPath: {path: /no/such/path, type: Directory}}]
---
apiVersion: v1
kind: Pod
metadata: {name: noenv}
spec:
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "1000"]
    env: [{name: X, valueFrom: {secretKeyRef: {name: none, key: x}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: noroom}
spec:
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, resources: {requests: {cpu: "4000"}}}]
"#;

/// What cannot run says so as upstream does: a waiting reason on the pod, and an Event that says what.
#[test]
fn impossible_pods_say_why() {
    let (_server, kubectl) = Server::with_image();
    kubectl.apply(IMPOSSIBLE);
    for (pod, state, reason, event, what) in [
        ("neverimage", "waiting", "ErrImageNeverPull", "ErrImageNeverPull", "example.invalid/none:1"),
        ("noimage", "waiting", "ImagePullBackOff", "Failed", "127.0.0.1:1/none:1"),
        ("badimage", "waiting", "InvalidImageName", "InspectFailed", "Not/A/Name:::"),
        ("nocommand", "terminated", "StartError", "Failed", "/no/such/program"),
        ("nodirectory", "waiting", "CrashLoopBackOff", "Failed", "no-such-program"),
        ("novolume", "waiting", "ContainerCreating", "FailedMount", "configmap \"none\" not found"),
        ("nopath", "waiting", "ContainerCreating", "FailedMount", "/no/such/path"),
        ("noenv", "waiting", "CreateContainerConfigError", "Failed", "secret \"none\" not found"),
    ] {
        kubectl.wait(&format!("pod/{pod}"), &format!("jsonpath={{.status.containerStatuses[0].state.{state}.reason}}={reason}"));
        let mut events = kubectl.follow(&[
            "get",
            "events",
            "--watch",
            &format!("--field-selector=involvedObject.name={pod},reason={event}"),
            "--output=custom-columns=M:.message",
        ]);
        events.see(what);
    }
    // What comes later is used: the volume is there, and the pod runs.
    kubectl.ok(&["create", "configmap", "none"]);
    kubectl.wait("pod/novolume", "condition=Ready");
    kubectl.wait("pod/noroom", "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}=Unschedulable");
    kubectl.event("noroom", "Insufficient cpu");
}
