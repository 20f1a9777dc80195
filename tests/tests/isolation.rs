//! Whose users a pod has, which runtime makes its containers, what it uses, and who may ask the node for that: with the real kubectl.

use coracle_tests::{Kubectl, Server};
use serde_json::Value;

const OBJECTS: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: other}
handler: runc
overhead: {podFixed: {cpu: 10m, memory: 8Mi}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nowhere}
handler: no-such-handler
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: scraper}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: scraper}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/configz], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: scraper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: scraper}
subjects: [{kind: ServiceAccount, name: scraper, namespace: default}]
"#;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: other, labels: {app: measured}}
spec:
  runtimeClassName: other
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "while :; do :; done"]
    resources: {limits: {cpu: 100m}}
    readinessProbe: {exec: {command: [sh, -c, "test -e /etc/passwd"]}}
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec:
  runtimeClassName: nowhere
  containers: [{name: main, image: "busybox:test", imagePullPolicy: Never, command: [sh]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: read}
---
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  containers:
  - name: main
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "cat /words/word; echo; touch /scratch/file; stat -c '%u %g' /scratch/file; exec sleep 3600"]
    volumeMounts: [{name: words, mountPath: /words}, {name: scratch, mountPath: /scratch}]
  volumes: [{name: words, configMap: {name: words}}, {name: scratch, emptyDir: {}}]
"#;

/// Asks the node's own server with a bearer token, and nothing else that says who asks.
fn ask(kubectl: &Kubectl, address: &str, path: &str, token: &str) -> Result<String, String> {
    let (server, token) = (format!("--server=https://{address}"), format!("--token={token}"));
    let asks = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "get", "--raw", path, &server, &token];
    let said = kubectl.command(&asks).output().expect("kubectl");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) }
}

#[test]
fn pods_have_their_own_users_and_runtimes_and_are_measured() {
    let (server, kubectl) = Server::with_image();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    kubectl.apply(OBJECTS);
    kubectl.apply(PODS);
    let json = |args: &[&str]| -> Value { serde_json::from_str(&kubectl.ok(args)).expect("JSON") };

    // A RuntimeClass' handler makes the container, which is as any other.
    kubectl.wait("pod/other", "condition=Ready");
    assert_eq!(kubectl.ok(&["exec", "other", "--", "cat", "/proc/sys/kernel/hostname"]).trim(), "other");
    let pod = json(&["get", "pod", "other", "-o", "json"]);
    assert_eq!(pod["spec"]["overhead"]["cpu"], "10m");
    kubectl.event("nowhere", "FailedCreatePodSandBox");
    let events = kubectl.ok(&["get", "events", "--field-selector=involvedObject.name=nowhere,reason=FailedCreatePodSandBox", "-o=json"]);
    assert!(events.contains("no runtime for \\\"no-such-handler\\\" is configured"), "{events}");

    // Users of its own; volumes show theirs.
    kubectl.wait("pod/own", "condition=Ready");
    let map = kubectl.ok(&["exec", "own", "--", "cat", "/proc/self/uid_map"]);
    let map: Vec<&str> = map.split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0" && map[2] == "65536", "{map:?}");
    assert_eq!(kubectl.ok(&["logs", "own"]), "read\n0 2000\n");

    // The node says what it can.
    let node = &json(&["get", "nodes", "-o", "json"])["items"][0];
    assert_eq!(node["status"]["features"]["supplementalGroupsPolicy"], true);
    let handlers = node["status"]["runtimeHandlers"].as_array().expect("handlers").clone();
    let named = |name: &str| handlers.iter().find(|handler| handler["name"] == name).expect("a handler")["features"].clone();
    assert_eq!((&named("")["userNamespaces"], &named("runc")["userNamespaces"]), (&Value::Bool(true), &Value::Bool(false)));

    // metrics.k8s.io, without a server of its own.
    let top = kubectl.ok(&["top", "pod", "--no-headers", "-l", "app=measured"]);
    let cells: Vec<&str> = top.split_whitespace().collect();
    let cpu: u64 = cells[1].trim_end_matches('m').parse().expect("milli cores");
    assert!(cells[0] == "other" && (50..=150).contains(&cpu), "{top}");
    assert!(kubectl.ok(&["top", "node", "--no-headers"]).contains('%'));
    let table = kubectl.ok(&["get", "pods.metrics.k8s.io", "other"]);
    assert!(table.starts_with("NAME") && table.contains("WINDOW"), "{table}");
    let missing = kubectl.fails(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/none"]);
    assert!(missing.contains("podmetrics.metrics.k8s.io \"default/none\" not found"), "{missing}");
    let service = json(&["get", "apiservice", "v1beta1.metrics.k8s.io", "-o", "json"]);
    assert!(service["spec"]["service"].is_null(), "{service}");

    // The node's own server asks the API who may.
    let ip = node["status"]["addresses"][0]["address"].as_str().expect("an address");
    let address = format!("{ip}:{}", node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]);
    let token = |account: &str| kubectl.ok(&["create", "token", account]).trim().to_owned();
    let (scraper, nobody) = (token("scraper"), token("nobody"));
    for path in ["/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/configz"] {
        let answer = ask(&kubectl, &address, path, &scraper);
        assert!(answer.is_ok(), "{path}: {answer:?}");
    }
    let page = ask(&kubectl, &address, "/metrics/cadvisor", &scraper).expect("it was there before");
    let rows = |name: &str, container: &str| {
        let begins = format!("{name}{{container=\"{container}\",");
        page.lines().filter(|line| line.starts_with(&begins) && line.contains("pod=\"own\"")).count()
    };
    for name in ["cpu_usage_seconds_total", "cpu_user_seconds_total", "cpu_system_seconds_total", "memory_swap", "memory_failcnt"] {
        let name = format!("container_{name}");
        assert_eq!((rows(&name, "main"), rows(&name, "")), (1, 1), "{name} of the container and of its pod: {page}");
    }
    assert_eq!((rows("container_oom_events_total", "main"), rows("container_network_receive_bytes_total", "")), (1, 1), "{page}");
    let refused = |path: &str, token: &str| ask(&kubectl, &address, path, token).expect_err(path);
    assert!(refused("/stats/summary", &scraper).contains("subresource(s)=[stats]"));
    let why = refused("/metrics", &nobody);
    let expected = "Forbidden (user=system:serviceaccount:default:nobody, verb=get, resource=nodes, subresource(s)=[metrics])";
    assert!(why.contains(expected), "{why}");
    let why = refused("/metrics", "wrong");
    assert!(why.contains("must be logged in"), "{why}");

    kubectl.ok(&["delete", "pod", "other", "own", "nowhere", "--timeout=60s"]);
    drop(server);
}
