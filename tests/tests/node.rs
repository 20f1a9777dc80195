//! What a node does for a pod that runs: new limits in place, another image's files, a look inside, and its end when it takes too much.

use coracle_tests::{Kubectl, Server, image};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: grows}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, exec sleep 3599]
    resources: {requests: {cpu: 20m}, limits: {cpu: 200m}}
---
apiVersion: v1
kind: Pod
metadata: {name: shares}
spec:
  terminationGracePeriodSeconds: 1
  resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}
  containers:
  - name: free
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, exec sleep 3599]
  - name: bound
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, exec sleep 3599]
    resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
---
apiVersion: v1
kind: Pod
metadata: {name: reads}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "head -n 1 /image/etc/passwd; cat /group; touch /image/x 2>/dev/null || echo read-only"]
    volumeMounts: [{name: image, mountPath: /image}, {name: image, mountPath: /group, subPath: etc/group}]
  volumes: [{name: image, image: {reference: "busybox:test", pullPolicy: Never}}]
---
apiVersion: v1
kind: Pod
metadata: {name: fills}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "head -c 20000000 /dev/zero > /scratch/file; exec sleep 3600"]
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 8Mi}}]
"#;

/// The quota of a pod as a whole, in microseconds.
fn quota_of_pod(uid: &str) -> String {
    let find = format!(
        "find /sys/fs/cgroup -type d -name '*pod{uid}' 2>/dev/null | while read -r d; do cat $d/cpu.cfs_quota_us $d/cpu.max 2>/dev/null; done"
    );
    let found = std::process::Command::new("sh").args(["-c", &find]).output().expect("sh runs").stdout;
    String::from_utf8_lossy(&found).split_whitespace().next().unwrap_or_default().to_owned()
}

/// A pod with resources of its own: its group follows, and the containers' that have no limit; the others stay.
fn resizes_as_a_whole(kubectl: &Kubectl) {
    kubectl.wait("pod/shares", "condition=Ready");
    let of = |path: &str| kubectl.ok(&["get", "pod", "shares", "-o", &format!("jsonpath={path}")]);
    let uid = of("{.metadata.uid}");
    let quota = |container: &str| {
        let command = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
        let told = kubectl.ok(&["exec", "shares", "-c", container, "--", "sh", "-c", command]);
        told.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!([quota_of_pod(&uid), quota("free"), quota("bound")], ["20000", "20000", "10000"]);
    assert_eq!(of("{.status.resources.limits.cpu} {.status.allocatedResources.cpu}"), "200m 100m");
    let resize = |own: &str| {
        let patch = format!(r#"{{"spec":{{"resources":{own}}}}}"#);
        kubectl.output(&["patch", "pod", "shares", "--subresource=resize", "--patch", &patch])
    };
    let larger = r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"400m"}}"#;
    assert!(resize(larger).status.success());
    kubectl.wait("pod/shares", "jsonpath={.status.resources.limits.cpu}=400m");
    assert_eq!([quota_of_pod(&uid), quota("free"), quota("bound")], ["40000", "40000", "10000"]);
    assert_eq!(of("{.status.resources.requests.cpu} {.status.allocatedResources.cpu}"), "150m 150m");
    assert_eq!(of("{.status.containerStatuses[*].restartCount} {.status.containerStatuses[0].resources}"), "0 0 {}");
    kubectl.event("shares", "ResizeCompleted");
    // What the containers ask for is the least, and what they may take too.
    for (own, why) in [
        (r#"{"requests":{"cpu":"40m"}}"#, "aggregate container requests"),
        (r#"{"limits":{"cpu":"90m"}}"#, "pod limits of 90m"),
        (r#"{"limits":{"memory":null}}"#, "resource limits cannot be removed"),
    ] {
        let told = resize(own);
        assert!(!told.status.success() && String::from_utf8_lossy(&told.stderr).contains(why), "{own}: {told:?}");
    }
    let endless = r#"{"requests":{"cpu":"8000"},"limits":{"cpu":"9000"}}"#;
    assert!(resize(endless).status.success());
    kubectl.wait("pod/shares", "jsonpath={.status.conditions[?(@.type==\"PodResizePending\")].reason}=Infeasible");
    assert_eq!(of("{.spec.resources.limits.cpu} {.status.resources.limits.cpu} {.status.allocatedResources.cpu}"), "9k 400m 150m");
    assert_eq!(quota_of_pod(&uid), "40000");
}

#[test]
fn a_running_pod_grows_is_looked_into_and_ends_when_it_takes_too_much() {
    let server = Server::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    server.import(&image::busybox(directory.path()));
    let kubectl = server.kubectl();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    kubectl.apply(PODS);
    let reach = |pod: &str, path: &str, value: &str| {
        kubectl.ok(&["wait", pod, &format!("--for=jsonpath={{{path}}}={value}"), "--timeout=60s"]);
    };

    kubectl.ok(&["wait", "pod/grows", "--for=condition=Ready", "--timeout=60s"]);
    let wish = |cpu: &str| {
        format!(
            r#"{{"spec":{{"containers":[{{"name":"main","resources":{{"requests":{{"cpu":"{cpu}"}},"limits":{{"cpu":"{cpu}"}}}}}}]}}}}"#
        )
    };
    kubectl.ok(&["patch", "pod", "grows", "--subresource=resize", "--patch", &wish("300m")]);
    reach("pod/grows", ".status.containerStatuses[0].resources.limits.cpu", "300m");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let quota = kubectl.ok(&["exec", "grows", "--", "sh", "-c", quota]);
    assert_eq!(quota.split_whitespace().next(), Some("30000"), "{quota}");
    kubectl.ok(&["patch", "pod", "grows", "--subresource=resize", "--patch", &wish("9000")]);
    reach("pod/grows", ".status.conditions[?(@.type==\"PodResizePending\")].reason", "Infeasible");
    assert_eq!(kubectl.ok(&["get", "pod", "grows", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]), "0");

    resizes_as_a_whole(&kubectl);

    let look = "tr '\\0' ' ' < /proc/1/cmdline; echo";
    kubectl.ok(&[
        "debug",
        "grows",
        "--image=busybox:test",
        "--image-pull-policy=Never",
        "--target=main",
        "-c=look",
        "--",
        "sh",
        "-c",
        look,
    ]);
    reach("pod/grows", ".status.ephemeralContainerStatuses[0].state.terminated.reason", "Completed");
    assert_eq!(kubectl.ok(&["logs", "grows", "-c", "look"]).trim(), "sleep 3599");

    reach("pod/reads", ".status.phase", "Succeeded");
    let read = kubectl.ok(&["logs", "reads"]);
    assert!(read.starts_with("root:") && read.contains("nogroup:") && read.ends_with("read-only\n"), "{read}");

    reach("pod/fills", ".status.reason", "Evicted");
    let message = kubectl.ok(&["get", "pod", "fills", "-o", "jsonpath={.status.message}"]);
    assert!(message.contains("Usage of EmptyDir volume \"scratch\" exceeds the limit \"8Mi\""), "{message}");

    let metrics = kubectl.ok(&[
        "get",
        "--raw",
        &format!("/api/v1/nodes/{}/proxy/metrics/resource", kubectl.ok(&["get", "node", "-o", "jsonpath={.items[0].metadata.name}"])),
    ]);
    assert!(metrics.contains("container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"grows\"}"), "{metrics}");
}
