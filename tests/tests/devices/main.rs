//! Device plugins: a real plugin's devices are given to pods and fare as it says, whatever is restarted.

mod plugin;

use std::{
    env,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use coracle_agent::devices::podresources::{
    AllocatableResourcesResponse, ContainerDevices, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesResponse,
};
use coracle_agent::devices::v1beta1::Empty;
use coracle_runtime::grpc::{Channel, Code};
use coracle_tests::{Kubectl, Server, screen::Screen};
use nix::sys::signal::Signal;

const RESOURCE: &str = "test.example/thing";
/// Tell the plugin's process where it is, and what it has.
const DIRECTORY: &str = "TEST_PLUGIN_DIRECTORY";
const DEVICES: &str = "TEST_PLUGIN_DEVICES";

#[tokio::test]
#[ignore = "no test: the program of the plugin, which the test starts"]
async fn the_plugins_process() {
    let directory = env::var_os(DIRECTORY).expect("a directory");
    plugin::live(directory.into(), RESOURCE.to_owned(), &env::var(DEVICES).expect("devices")).await;
}

/// The plugin's process; it ends with the test.
struct Plugin {
    child: Child,
    screen: Screen,
}

impl Plugin {
    fn start(root: &Path, devices: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "--nocapture", "the_plugins_process"])
            .env(DIRECTORY, root.join("device-plugins"))
            .env(DEVICES, devices.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin can be started");
        let screen = Screen::of(child.stdout.take().expect("piped"));
        Self { child, screen }
    }

    fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it listens");
        self.screen.see(&format!("done {line}\n"));
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pod(name: &str, init: usize, main: usize, line: &str) -> String {
    let container = |name: &str, count: usize, line: &str| {
        let limits = format!("{{{RESOURCE}: {count}}}");
        format!(
            "  - name: {name}\n    image: busybox:test\n    imagePullPolicy: Never\n    command: [sh, -c, {line:?}]\n    \
             env: [{{name: SAID_TWICE, value: by the pod}}]\n    resources: {{limits: {limits}}}\n"
        )
    };
    let init = if init > 0 { format!("  initContainers:\n{}", container("before", init, "echo $TEST_DEVICES")) } else { String::new() };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  restartPolicy: {}\n{init}  containers:\n{}",
        if line.contains("sleep") { "Always" } else { "Never" },
        container("main", main, line)
    )
}

fn node_has(kubectl: &Kubectl, what: &str, count: usize) {
    let name = RESOURCE.replace('.', "\\.");
    kubectl.ok(&["wait", "node", "--all", &format!("--for=jsonpath={{.status.{what}.{name}}}={count}"), "--timeout=60s"]);
}

fn health(kubectl: &Kubectl, pod: &str, wanted: &str) {
    let path = "{.status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health}";
    kubectl.ok(&["wait", &format!("pod/{pod}"), &format!("--for=jsonpath={path}={wanted}"), "--timeout=60s"]);
}

fn one(id: &str) -> Vec<String> {
    vec![id.to_owned()]
}

async fn listed(root: &Path) -> Vec<(String, Vec<ContainerDevices>)> {
    let channel = Channel::new(root.join("pod-resources/kubelet.sock"));
    let list: ListPodResourcesResponse = channel.unary("/v1.PodResourcesLister/List", Empty {}, None).await.expect("a list");
    let pods = list.pod_resources.into_iter().filter(|p| p.namespace == "default");
    pods.map(|p| (p.name, p.containers.into_iter().flat_map(|c| c.devices).collect())).collect()
}

#[tokio::test]
async fn devices_of_a_plugin_are_given_away_and_kept() {
    let (mut server, kubectl) = Server::with_image();
    let root = server.data_dir().join("kubelet");
    let mut plugin = Plugin::start(&root, &["a", "b", "c"]);
    plugin.screen.see("registered\n");
    node_has(&kubectl, "capacity", 3);
    node_has(&kubectl, "allocatable", 3);

    // The one that the plugin prefers, made ready before the start, with all that the plugin says of its use.
    kubectl.apply(&pod("keeps", 0, 1, "echo $TEST_DEVICES $SAID_TWICE; until [ -e /tmp/end ]; do sleep 0.1; done; exit 1"));
    kubectl.wait("pod/keeps", "condition=Ready");
    plugin.screen.see("prefer 1 of a,b,c\n");
    plugin.screen.see("allocate c\n");
    plugin.screen.see("start c\n");
    assert_eq!(kubectl.ok(&["logs", "keeps"]), "c by the pod\n");
    let use_it = "(: < /dev/test) && echo open; (: >> /dev/test) 2>/dev/null || echo closed; grep -c ^ID= /plugin";
    assert_eq!(kubectl.ok(&["exec", "keeps", "--", "sh", "-c", use_it]), "open\nclosed\n1\n");
    health(&kubectl, "keeps", "Healthy");
    let devices = listed(&root).await;
    let (name, has) = devices.iter().find(|(name, _)| name == "keeps").expect("it is listed");
    assert_eq!((has[0].resource_name.as_str(), &has[0].device_ids, has.len()), (RESOURCE, &one("c"), 1), "{name}");
    assert_eq!(has[0].topology.as_ref().expect("it is somewhere").nodes[0].id, 0);

    // What an init container had its pod's main container has after it.
    kubectl.apply(&pod("hands-on", 2, 1, "echo $TEST_DEVICES"));
    kubectl.wait("pod/hands-on", "jsonpath={.status.phase}=Succeeded");
    assert_eq!(kubectl.ok(&["logs", "hands-on", "-c", "before"]), "a,b\n");
    assert_eq!(kubectl.ok(&["logs", "hands-on", "-c", "main"]), "a\n");

    // Nothing ill is given away, and who has it is told.
    plugin.tell("ill c");
    node_has(&kubectl, "allocatable", 2);
    node_has(&kubectl, "capacity", 3);
    health(&kubectl, "keeps", "Unhealthy");
    plugin.tell("well c");
    health(&kubectl, "keeps", "Healthy");
    node_has(&kubectl, "allocatable", 3);

    // A plugin that says no: the pod is not taken.
    plugin.tell("refuse");
    kubectl.apply(&pod("unlucky", 0, 1, "true"));
    kubectl.wait("pod/unlucky", "jsonpath={.status.phase}=Failed");
    let why = kubectl.ok(&["get", "pod", "unlucky", "-o", "jsonpath={.status.reason}: {.status.message}"]);
    let wanted = "Allocate failed due to rpc error: code = FailedPrecondition desc = not today, which is unexpected";
    assert!(why.starts_with("UnexpectedAdmissionError: ") && why.ends_with(wanted), "{why}");
    kubectl.event("unlucky", "UnexpectedAdmissionError");
    plugin.tell("obey");

    // We die: the plugin comes again, and who has what is known.
    server.end(Signal::SIGKILL);
    server.up();
    plugin.screen.see("registered\n");
    node_has(&kubectl, "allocatable", 3);
    kubectl.ok(&["delete", "pod", "hands-on", "unlucky"]);
    kubectl.apply(&pod("takes-the-rest", 0, 2, "echo $TEST_DEVICES; exec sleep 3600"));
    kubectl.wait("pod/takes-the-rest", "condition=Ready");
    plugin.screen.see("prefer 2 of a,b\n");
    assert_eq!(kubectl.ok(&["logs", "takes-the-rest"]), "a,b\n");
    assert_eq!(kubectl.ok(&["get", "pod", "keeps", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]), "0");
    // A container that ends and comes again has the same one.
    kubectl.ok(&["exec", "keeps", "--", "touch", "/tmp/end"]);
    plugin.screen.see("start c\n");
    kubectl.wait("pod/keeps", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    kubectl.wait("pod/keeps", "condition=Ready");
    assert_eq!(kubectl.ok(&["logs", "keeps"]), "c by the pod\n");
    let channel = Channel::new(root.join("pod-resources/kubelet.sock"));
    let request = GetPodResourcesRequest { pod_name: "keeps".into(), pod_namespace: "default".into() };
    let answer: GetPodResourcesResponse = channel.unary("/v1.PodResourcesLister/Get", request, None).await.expect("it is there");
    assert_eq!(answer.pod_resources.expect("a pod").containers[0].devices[0].device_ids, one("c"));
    let all: AllocatableResourcesResponse =
        channel.unary("/v1.PodResourcesLister/GetAllocatableResources", Empty {}, None).await.expect("an answer");
    assert_eq!(all.devices.iter().flat_map(|d| &d.device_ids).collect::<Vec<_>>(), ["a", "b", "c"]);
    let unknown = GetPodResourcesRequest { pod_name: "nobody".into(), pod_namespace: "default".into() };
    let refused = channel.unary::<_, GetPodResourcesResponse>("/v1.PodResourcesLister/Get", unknown, None).await.expect_err("nobody");
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "pod nobody in namespace default not found"));

    // The plugin dies: its devices stay with those who have them, and are nobody else's.
    plugin.child.kill().expect("it lives");
    node_has(&kubectl, "allocatable", 0);
    node_has(&kubectl, "capacity", 3);
    kubectl.ok(&["exec", "takes-the-rest", "--", "sh", "-c", "head -c 1 /dev/test > /dev/null"]);
    let mut plugin = Plugin::start(&root, &["a", "b", "c", "d"]);
    plugin.screen.see("registered\n");
    node_has(&kubectl, "allocatable", 4);
    kubectl.ok(&["delete", "pod", "takes-the-rest"]);
    kubectl.apply(&pod("last", 0, 3, "echo $TEST_DEVICES"));
    kubectl.wait("pod/last", "jsonpath={.status.phase}=Succeeded");
    plugin.screen.see("prefer 3 of a,b,d\n");
    assert_eq!(kubectl.ok(&["logs", "last"]), "a,b,d\n");
}
