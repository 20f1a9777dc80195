//! Rules of a pod's life that only a real node shows: all containers begin anew, a critical pod takes others' places, hooks that cannot be.

use coracle_tests::Server;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: anew}
spec:
  restartPolicy: Never
  initContainers:
  - name: i
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "echo ran >> /v/i"]
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: a
    image: busybox:test
    imagePullPolicy: Never
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
    command: [sh, -c, "if [ -e /v/a ]; then exec sleep 100000; fi; touch /v/a; sleep 1; exit 42"]
    volumeMounts: [{name: v, mountPath: /v}]
  - name: b
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "trap '' TERM; echo ran >> /v/b; while :; do sleep 0.1; done"]
    volumeMounts: [{name: v, mountPath: /v}]
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "100000"]
    lifecycle: {postStart: {tcpSocket: {port: 80}}}
"#;

fn large(name: &str, more: &str, cpu: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {more}\n  containers: \
         [{{name: c, image: busybox:test, imagePullPolicy: Never, command: [sleep, '100000'], resources: {{requests: {{cpu: {cpu}}}}}}}]\n"
    )
}

#[test]
fn rules_of_a_pods_life() {
    let (_server, kubectl) = Server::with_image();
    kubectl.apply(PODS);
    let get = |pod: &str, path: &str| kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);

    kubectl.wait("pod/anew", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    kubectl.wait("pod/anew", "condition=Ready");
    let counts = "{.status.initContainerStatuses[*].restartCount} {.status.containerStatuses[*].restartCount} {.status.phase}";
    assert_eq!(get("anew", counts), "1 1 1 Running");
    assert_eq!(get("anew", "{.status.containerStatuses[1].lastState.terminated.reason}"), "RestartingAllContainers");
    assert_eq!(get("anew", "{.status.conditions[?(@.type==\"AllContainersRestarting\")].status}"), "False");
    assert_eq!(kubectl.ok(&["exec", "anew", "-c", "b", "--", "cat", "/v/i", "/v/b"]), "ran\nran\nran\nran\n", "volumes stay");

    kubectl.event("hooked", "FailedPostStartHook");
    kubectl.wait("pod/hooked", "jsonpath={.status.phase}=Failed");

    // A critical pod finds no room, and is given that of another.
    let node = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let cpus = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.cpu}"]);
    let bound = format!("nodeName: {node}");
    kubectl.apply(&large("small", &bound, "10m"));
    let most: u32 = cpus.parse::<u32>().expect("whole processors") * 1000 - 200;
    kubectl.apply(&large("large", &bound, &format!("{most}m")));
    kubectl.wait("pod/large", "condition=Ready");
    kubectl.apply(&large("plain", &bound, "500m"));
    kubectl.wait("pod/plain", "jsonpath={.status.reason}=OutOfcpu");
    assert!(get("plain", "{.status.message}").starts_with("Pod was rejected: "));
    kubectl.apply(&large("critical", &format!("{bound}\n  priorityClassName: system-node-critical"), "500m"));
    kubectl.wait("pod/critical", "condition=Ready");
    let ended = "{.status.phase}/{.status.reason}/{.status.message}/{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    assert_eq!(get("large", ended), "Failed/Preempting/Preempted in order to admit critical pod/TerminationByKubelet");
    assert_eq!(get("small", "{.status.phase}"), "Running", "who was not in the way stays");
    let too_large = large("too-large", &format!("{bound}\n  priorityClassName: system-node-critical"), &cpus);
    kubectl.apply(&too_large);
    kubectl.wait("pod/too-large", "jsonpath={.status.reason}=UnexpectedAdmissionError");
}
