//! Pods by another runtime: a real containerd behind `--container-runtime-endpoint`, seen through kubectl.

use coracle_tests::{Kubectl, Server, containerd::Containerd, image, left, pty::Terminal, registry::Registry};
use nix::sys::signal::Signal;

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: busybox:test
        imagePullPolicy: Never
        command: [sh, -c, "mkdir /w; touch /tmp/live; echo served > /w/index.html; echo begun; httpd -p 8080 -h /w; while :; do sleep 1; done"]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        livenessProbe: {exec: {command: [cat, /tmp/live]}, periodSeconds: 1, failureThreshold: 1}
        resources: {limits: {memory: 32Mi, cpu: 500m}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

const ENDS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  restartPolicy: Never
  containers:
  - {name: a, image: busybox:test, imagePullPolicy: Never, command: COMMAND, resources: {limits: {memory: 16Mi}}}
"#;

fn ids(kubectl: &Kubectl) -> String {
    kubectl.ok(&["get", "pods", "-o", "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} {.restartCount}\n{end}"])
}

fn ended(kubectl: &Kubectl, name: &str) -> String {
    let state = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}";
    kubectl.ok(&["get", "pod", name, "-o", state])
}

/// Ends of all kinds have their codes and reasons.
fn ends(kubectl: &Kubectl) {
    let stories = [
        ("done", r#"["true"]"#, "Succeeded", "0 Completed"),
        ("failed", r#"[sh, -c, "exit 3"]"#, "Failed", "3 Error"),
        ("oom", r#"[tail, /dev/zero]"#, "Failed", "137 OOMKilled"),
        ("none", r#"[/no/such/program]"#, "Failed", "128 StartError"),
    ];
    for (name, command, ..) in stories {
        kubectl.apply(&ENDS.replace("NAME", name).replace("COMMAND", command));
    }
    for (name, _, phase, end) in stories {
        kubectl.wait(&format!("pod/{name}"), &format!("jsonpath={{.status.phase}}={phase}"));
        // containerd 1.6 hears of the kernel's killing on another way than of the end, and may tell it too late.
        let told = ended(kubectl, name);
        assert!(told == end || (name, told.as_str()) == ("oom", "137 Error"), "{name}: {told}");
    }
    kubectl.ok(&["delete", "pod", "done", "failed", "oom", "none"]);
}

/// What goes in and out of a container: runtime and agent speak SPDY, whatever kubectl speaks.
fn streams(kubectl: &Kubectl, pod: &str) {
    let output = kubectl.output(&["exec", pod, "--", "sh", "-c", "echo to out; echo to err >&2; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"to out\n"[..]));
    assert!(output.stderr.starts_with(b"to err\n"), "{}", String::from_utf8_lossy(&output.stderr));
    let large = "0123456789abcdef\n".repeat(64 << 10);
    assert_eq!(kubectl.stdin(&["exec", "-i", pod, "--", "cat"], &large), large, "a megabyte there and back");
    let mut terminal = Terminal::start(kubectl.command(&["exec", "-it", pod, "--", "sh"]), 40, 100);
    terminal.see("# ");
    terminal.say("until busybox stty size | busybox grep '40 100'; do :; done; echo si''zed\n");
    terminal.see("sized\r\n");
    terminal.say("exit 5\n");
    assert_eq!(terminal.wait().code(), Some(5));
    assert!(kubectl.ok(&["logs", pod]).starts_with("begun\n"));

    kubectl.pod("echo", &["--stdin", "--attach=false"], "while read -r word; do echo heard $word; done");
    kubectl.wait("pod/echo", "condition=Ready");
    // Attach joins what runs; the log has all that was said.
    let mut command = kubectl.command(&["attach", "-i", "echo"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("kubectl");
    let mut screen = coracle_tests::screen::Screen::of(child.stdout.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"word\n").expect("taken");
    screen.see("heard word");
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert_eq!(kubectl.ok(&["logs", "echo"]), "heard word\n");
    kubectl.ok(&["delete", "pod", "echo", "--now"]);
}

/// The runtime pulls, and says why it does not.
fn pulls(kubectl: &Kubectl, containerd: &Containerd) {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::archive(directory.path(), "pulled.tar", &["pulled:1"], &["true"]);
    let registry = Registry::start(&archive, "test/pulled", "1", directory.path());
    containerd.trust(&registry.host, &registry.authority);
    let image = format!("{}/test/pulled:1", registry.host);
    kubectl.ok(&["run", "pulled", "--restart=Never", &format!("--image={image}")]);
    kubectl.wait("pod/pulled", "jsonpath={.status.phase}=Succeeded");
    kubectl.event("pulled", "Successfully pulled image");
    kubectl.ok(&["run", "absent", "--restart=Never", &format!("--image={}/test/absent:1", registry.host)]);
    kubectl.wait("pod/absent", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull");
    kubectl.ok(&["delete", "pod", "pulled", "absent", "--now"]);
}

const HANDLERS: &str = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: known}
handler: runc
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: unknown}
handler: no-such-handler
---
apiVersion: v1
kind: Pod
metadata: {name: by-runc}
spec:
  runtimeClassName: known
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "3600"]
    volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: IfPossible}]
  volumes: [{name: v, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: by-none}
spec:
  runtimeClassName: unknown
  containers: [{name: a, image: "busybox:test", imagePullPolicy: Never, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: own-users}
spec:
  hostUsers: false
  containers: [{name: a, image: "busybox:test", imagePullPolicy: Never, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: deep}
spec:
  containers:
  - name: a
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, "3600"]
    volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}]
  volumes: [{name: v, emptyDir: {}}]
"#;

/// What the runtime cannot do for a pod the pod is refused, and nothing of it runs; what it can do is told as it is.
fn handlers(kubectl: &Kubectl) {
    kubectl.apply(HANDLERS);
    kubectl.wait("pod/by-runc", "condition=Ready");
    let mounted = kubectl.ok(&["get", "pod", "by-runc", "-o", "jsonpath={.status.containerStatuses[0].volumeMounts[0].recursiveReadOnly}"]);
    assert_eq!(mounted, "Disabled", "this runtime mounts nothing so");
    kubectl.event("by-none", "no runtime for \"no-such-handler\" is configured");
    kubectl.event("own-users", "does not support user namespaces");
    kubectl.wait("pod/deep", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError");
    let phases = kubectl.ok(&["get", "pod", "by-none", "own-users", "deep", "-o", "jsonpath={.items[*].status.phase}"]);
    assert_eq!(phases, "Pending Pending Pending");
    let told = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.runtimeHandlers}"]);
    assert_eq!(told, "", "a runtime that names no handlers has none shown");
    kubectl.ok(&["delete", "pod", "by-runc", "by-none", "own-users", "deep", "--now"]);
}

/// The images' file system is the runtime's to tell.
fn image_filesystem(kubectl: &Kubectl) {
    let node = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let summary = kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")]);
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    let bytes = |path: &str| summary.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {path} in {summary}"));
    // It looks at its store each ten seconds, and may have looked before the images came.
    assert!(bytes("/node/runtime/imageFs/usedBytes") < bytes("/node/fs/usedBytes"), "images are not all that is on the disk: {summary}");
    assert_eq!(bytes("/node/runtime/imageFs/capacityBytes"), bytes("/node/fs/capacityBytes"), "they are on the same");
}

/// What its pods use is told as of our own: by the runtime, and by the cgroups, which are where the pod's is.
fn figures(kubectl: &Kubectl, pod: &str) {
    let node = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let id = kubectl.ok(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}"]);
    let id = id.strip_prefix("containerd://").expect("the runtime's");
    let page = kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/cadvisor")]);
    let of_pod = format!("pod=\"{pod}\"");
    let row = |name: &str, container: &str| {
        let begins = format!("{name}{{container=\"{container}\",");
        page.lines()
            .find(|line| line.starts_with(&begins) && line.contains(&of_pod))
            .unwrap_or_else(|| panic!("no {begins} {pod} in\n{page}"))
    };
    let cgroup = |row: &str| row.split("id=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cgroup").to_owned();
    let (whole, web) = (row("container_memory_working_set_bytes", ""), row("container_cpu_user_seconds_total", "web"));
    assert_eq!(cgroup(web), format!("{}/{id}", cgroup(whole)));
    assert!(web.contains(&format!("name=\"{id}\"")), "{web}");
    let processes: f64 = row("container_processes", "web").split(' ').nth(1).and_then(|value| value.parse().ok()).expect("a value");
    assert!(processes >= 2.0, "a shell and its server");
    let summary = kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")]);
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    let told = summary["pods"].as_array().into_iter().flatten().find(|told| told["podRef"]["name"] == pod).expect("the pod");
    assert!(told["process_stats"]["process_count"].as_u64() >= Some(2), "{told}");
    let volume = told["volume"].as_array().and_then(|volumes| volumes.first()).expect("its token's volume");
    let number = |name: &str| volume[name].as_u64().unwrap_or_else(|| panic!("no {name} in {volume}"));
    assert!(volume["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")), "{volume}");
    assert!(number("usedBytes") > 0 && number("inodesUsed") > 3, "{volume}");
    assert!(number("availableBytes") < number("capacityBytes") && number("inodesFree") < number("inodes"), "{volume}");
}

#[test]
fn a_containerd_runs_the_pods() {
    let mut containerd = Containerd::start();
    let flags = containerd.flags();
    let mut server = Server::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let kubectl = server.kubectl();
    let id = left::id(server.data_dir()).expect("the machine knows it");
    let data = server.data_dir().to_owned();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    let version = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.containerRuntimeVersion}"]);
    assert!(version.starts_with("containerd://"), "{version}");

    kubectl.apply(WEB);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let names = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]);
    let (first, second) = names.split_once(' ').expect("two pods");
    assert_eq!(kubectl.ok(&["exec", first, "--", "wget", "-qO-", "http://web"]), "served\n", "by the cluster's DNS and its Service");
    streams(&kubectl, first);
    ends(&kubectl);
    handlers(&kubectl);
    image_filesystem(&kubectl);
    figures(&kubectl, first);
    pulls(&kubectl, &containerd);

    // The probe notices, and the container is made anew.
    kubectl.ok(&["exec", second, "--", "rm", "/tmp/live"]);
    kubectl.wait(&format!("pod/{second}"), "jsonpath={.status.containerStatuses[0].restartCount}=1");
    kubectl.wait(&format!("pod/{second}"), "condition=Ready");

    // Its name is the runtime's own, as its tools have it.
    let before = ids(&kubectl);
    let known = containerd.ctr(&["containers", "list", "--quiet"]);
    for line in before.lines() {
        let theirs = line.split([' ', '/']).nth(2).expect("containerd://ID COUNT");
        assert!(known.lines().any(|id| id == theirs), "{line} in {known}");
    }

    // Killed and started again, the node goes on with what runs, and hears how a pod ended meanwhile.
    kubectl.apply(&ENDS.replace("NAME", "meanwhile").replace("COMMAND", r#"[sh, -c, "until test -e /go; do sleep 0.1; done; exit 9"]"#));
    kubectl.wait("pod/meanwhile", "condition=Ready");
    let meanwhile = kubectl.ok(&["get", "pod", "meanwhile", "-o", "jsonpath={.status.containerStatuses[0].containerID}"]);
    server.end(Signal::SIGKILL);
    let task = meanwhile.strip_prefix("containerd://").expect("the runtime's");
    containerd.ctr(&["tasks", "exec", "--exec-id", "go", task, "touch", "/go"]);
    server.up();
    kubectl.wait("pod/meanwhile", "jsonpath={.status.phase}=Failed");
    assert_eq!(ended(&kubectl, "meanwhile"), "9 Error");
    kubectl.ok(&["delete", "pod", "meanwhile"]);
    assert_eq!(ids(&kubectl), before, "no container was made anew");
    assert_eq!(kubectl.ok(&["exec", first, "--", "wget", "-qO-", "http://web"]), "served\n");

    // A runtime that is killed and started again is found again.
    containerd.end(Signal::SIGKILL);
    containerd.up();
    kubectl.ok(&["delete", "pod", first]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let after = ids(&kubectl);
    assert!(after.lines().any(|line| before.lines().any(|old| old == line)), "the other pod runs as it did: {before} is now {after}");

    kubectl.ok(&["delete", "deployment", "web", "--cascade=foreground"]);
    assert_eq!(containerd.ctr(&["containers", "list", "--quiet"]), "", "the runtime has nothing of ours");
    drop(server);
    left::assert_nothing(&id, &data);
    for directory in ["net.d", "bin"] {
        let found = std::fs::read_dir(containerd.path(directory)).expect("it is there").count();
        assert_eq!(found, 0, "nothing is left in {directory}");
    }
}
