//! Pods from files of the node: they run without anybody asking the API, and the API shows them.

use std::{fs, path::PathBuf};

use coracle_tests::{Kubectl, Server};
use nix::sys::signal::Signal;

fn manifest(value: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "echo {value} > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
"#
    )
}

struct Node {
    server: Server,
    kubectl: Kubectl,
    pod: String,
    manifests: PathBuf,
}

impl Node {
    fn get(&self, path: &str) -> String {
        self.kubectl.ok(&["get", "pod", &self.pod, "-o", &format!("jsonpath={{{path}}}")])
    }

    fn says(&self) -> String {
        self.kubectl.ok(&["exec", &self.pod, "--", "cat", "/tmp/index.html"]).trim().to_owned()
    }

    /// Waits, by a watch, until the mirror is another than that of this uid and Ready.
    fn another(&self, uid: &str) {
        let mut seen = self.kubectl.follow(&[
            "get",
            "pods",
            "-l=app=web",
            "--watch",
            "--output=custom-columns=U:.metadata.uid,R:.status.conditions[?(@.type==\"Ready\")].status",
        ]);
        let is_it = |line: &str| line.ends_with("True") && !line.starts_with(uid);
        while !is_it(&seen.line()) {}
    }
}

#[test]
fn a_file_is_a_pod() {
    let (server, kubectl) = Server::with_image();
    let manifests = server.data_dir().join("agent/pod-manifests");
    let name = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let mut node = Node { server, kubectl, pod: format!("web-{name}"), manifests };
    let file = node.manifests.join("web.yaml");

    fs::write(&file, manifest("one")).expect("written");
    node.another("none");
    assert_eq!(node.says(), "one");
    let owner = node.get(".metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}/{.metadata.ownerReferences[0].controller");
    assert_eq!(owner, format!("Node/{name}/true"));
    let hash = node.get(".metadata.annotations.kubernetes\\.io/config\\.hash");
    assert_eq!(hash.len(), 32);
    assert_eq!(node.get(".metadata.annotations.kubernetes\\.io/config\\.mirror"), hash);
    assert_eq!(node.get(".metadata.annotations.kubernetes\\.io/config\\.source"), "file");

    // Who deletes the mirror deletes no pod.
    let (uid, container) = (node.get(".metadata.uid"), node.get(".status.containerStatuses[0].containerID"));
    node.kubectl.ok(&["delete", "pod", &node.pod, "--wait=false"]);
    node.another(&uid);
    assert_eq!(node.get(".status.containerStatuses[0].containerID"), container);

    // Nor does who restarts the server.
    let uid = node.get(".metadata.uid");
    node.server.end(Signal::SIGKILL);
    node.server.up();
    node.kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(node.get(".metadata.uid}/{.status.containerStatuses[0].containerID"), format!("{uid}/{container}"));

    // Another manifest is another pod in the place of the first.
    fs::write(&file, manifest("two")).expect("written");
    node.another(&uid);
    assert_eq!(node.says(), "two");
    assert_ne!(node.get(".metadata.annotations.kubernetes\\.io/config\\.hash"), hash);

    // A manifest that is no good is no pod, and harms none.
    fs::write(
        node.manifests.join("bad.yaml"),
        manifest("x").replace("name: web,", "name: bad,").replace("containers:", "serviceAccountName: x\n  containers:"),
    )
    .expect("written");
    fs::write(node.manifests.join("nonsense.json"), "{").expect("written");
    fs::write(node.manifests.join("plain.json"), plain()).expect("written");
    let plain = format!("pod/plain-{name}");
    node.kubectl.ok(&["wait", &plain, "--for=create", "--timeout=60s"]);
    node.kubectl.wait(&plain, "jsonpath={.status.phase}=Running");
    assert_eq!(node.kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]), format!("plain-{name} web-{name}"));

    // It goes with its file, while nobody looks, too.
    fs::remove_file(node.manifests.join("plain.json")).expect("removed");
    node.kubectl.wait(&plain, "delete");
    node.server.end(Signal::SIGTERM);
    fs::remove_file(&file).expect("removed");
    node.server.up();
    node.kubectl.wait(&format!("pod/{}", node.pod), "delete");
}

fn plain() -> String {
    r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "busybox:test", "imagePullPolicy": "Never", "command": ["sleep", "100000"]}]}}"#
        .to_owned()
}
