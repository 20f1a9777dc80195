//! Pods that cannot be, or mean harm: upstream's reason, an Event that says what, and no other pod pays for it.

use std::fs;

use coracle_tests::{Server, image, left};

/// Processes of a pod: a bomb shall fill that, and not the machine.
const MOST_PROCESSES: &str = "--pod-max-pids=100";
/// Bytes of a line without an end.
const LINE_BYTES: &str = "1000000000";
/// Private memory of the process that keeps such a line's pod, built without optimisation.
const SHIM_KIB: u64 = 8 << 10;

const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: some}
data: {here: "1"}
---
apiVersion: v1
kind: Pod
metadata: {name: well}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nouser}
spec: {containers: [{name: c, image: "busybox:nouser", imagePullPolicy: Never, command: [sleep, "100000"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nokey}
spec:
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    env: [{name: X, valueFrom: {configMapKeyRef: {name: some, key: absent}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: nofile}
spec:
  containers: [{name: c, image: busybox:test, imagePullPolicy: Never, volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, configMap: {name: some, items: [{key: absent, path: x}]}}]
---
apiVersion: v1
kind: Pod
metadata: {name: escapes}
spec:
  restartPolicy: Never
  initContainers:
  - name: plants
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "busybox ln -s /etc /v/link; busybox ln -s ../../../.. /v/up"]
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "100000"]
    volumeMounts: [{name: v, mountPath: /host, subPath: link}]
  - name: d
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "100000"]
    volumeMounts: [{name: v, mountPath: /host, subPath: up/etc}]
  volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: silent}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "httpd -f -p 8080 -h /tmp & sleep 1; kill -STOP $!; exec sleep 100000"]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}
  - name: d
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "100000"]
    readinessProbe: {exec: {command: [sleep, "100000"]}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: endless}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "head -c LINE_BYTES /dev/zero; echo; echo the end; sleep 5"]
---
apiVersion: v1
kind: Pod
metadata: {name: bomb}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "b() { b | b & b; }; b & sleep 100000"]
    resources: {limits: {cpu: 200m}}
"#;

#[test]
fn bad_pods_say_why_and_harm_nobody() {
    let (server, kubectl) = Server::with_image_and(&[MOST_PROCESSES], Vec::new());
    let directory = tempfile::tempdir().expect("a directory");
    server.import(&image::busybox_as(directory.path(), "busybox:nouser", "nobody-knows-me"));
    kubectl.apply(&PODS.replace("LINE_BYTES", LINE_BYTES));
    kubectl.wait("pod/well", "condition=Ready");
    for (pod, reason, event, what) in [
        ("nouser", "CreateContainerError", "Failed", "unable to find user nobody-knows-me"),
        ("nokey", "CreateContainerConfigError", "Failed", "absent"),
        ("nofile", "ContainerCreating", "FailedMount", "absent"),
        ("escapes", "CreateContainerConfigError", "Failed", "the subPath \"link\" must be a path inside the volume"),
        ("escapes", "CreateContainerConfigError", "Failed", "the subPath \"up/etc\" must be a path inside the volume"),
    ] {
        kubectl.wait(&format!("pod/{pod}"), &format!("jsonpath={{.status.containerStatuses[0].state.waiting.reason}}={reason}"));
        seen(&kubectl, pod, event, what);
    }
    let refused = kubectl.fails(&["logs", "nofile"]);
    assert!(refused.contains("container \"c\" in pod \"nofile\" is waiting to start: ContainerCreating"), "{refused}");
    // A probe that is never answered is a probe that failed, and the next one is on time.
    seen(&kubectl, "silent", "Unhealthy", "no answer within 1 s");
    seen(&kubectl, "silent", "Unhealthy", "timed out after 1 s");
    let up = "{.spec.containers[0].volumeMounts[0].subPath}";
    assert_eq!(kubectl.ok(&["get", "pod", "escapes", "-o", &format!("jsonpath={up}")]), "link");
    let dots =
        PODS.split("---").find(|pod| pod.contains("name: escapes")).expect("it is there").replace("subPath: link", "subPath: ../../etc");
    let refused = kubectl.stdin_fails(&["create", "--dry-run=server", "-f", "-"], &dots.replace("name: escapes", "name: dots"));
    assert!(refused.contains("spec.containers[0].volumeMounts[0].subPath"), "{refused}");
    // A line without an end is cut into pieces that the next line survives.
    kubectl.follow(&["logs", "--follow", "endless", "--tail=1"]).see("the end");
    for shim in shims(&server) {
        let used = private_kib(&shim);
        assert!(used < SHIM_KIB, "{shim} has {used} KiB");
    }
    kubectl.ok(&["wait", "pod/endless", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"]);
    // A container that forks without end is held within its pod, and ends as every other.
    kubectl.wait("pod/bomb", "condition=Ready");
    kubectl.ok(&["delete", "pod", "bomb", "--timeout=60s"]);
    let well = "{.status.containerStatuses[0].restartCount} {.status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(kubectl.ok(&["get", "pod", "well", "-o", &format!("jsonpath={well}")]), "0 True");
}

fn seen(kubectl: &coracle_tests::Kubectl, pod: &str, event: &str, what: &str) {
    let of = format!("--field-selector=involvedObject.name={pod},reason={event}");
    kubectl.follow(&["get", "events", "--watch", &of, "--output=custom-columns=M:.message"]).see(what);
}

/// The processes that keep pods.
fn shims(server: &Server) -> Vec<String> {
    let id = left::id(server.data_dir()).expect("the machine knows it");
    let processes = left::of(&id, server.data_dir()).remove("processes").unwrap_or_default();
    processes.into_iter().filter(|process| process.contains(" __shim")).collect()
}

/// Memory that is this process's alone.
fn private_kib(process: &str) -> u64 {
    let pid = process.split(' ').next().expect("a pid");
    // One that ends meanwhile has none.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let fields = rollup.lines().filter(|line| line.starts_with("Private_"));
    fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
