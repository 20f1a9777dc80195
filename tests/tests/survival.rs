//! Pods of all shapes through kills of the server at random moments, the end of a shim, and a reboot.
//!
//! `CORACLE_SURVIVAL_KILLS` kills (4 when it is not set) at moments that `CORACLE_SURVIVAL_SEED` decides.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::Path, time::Duration};

use coracle_tests::{Kubectl, Server, left, reboot::reboot};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest as _, Sha256};

const KILLS: u64 = 4;
const SEED: u64 = 1;
/// A server that is killed on its way up lives so long at most.
const YOUNG_MS: u64 = 1200;
/// What the main process may use with twenty pods after a reboot, built without optimisation.
const MEMORY_KIB: u64 = 200 << 10;
/// Pods that end while the server comes and goes.
const ENDS: usize = 6;

const IMAGE: &str = "image: busybox:test, imagePullPolicy: Never";

/// Chance that can be repeated (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pass(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.below(most_ms)));
    }
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Twenty pods: six that end, and fourteen that go on.
fn pods(hold: &Path) -> String {
    let mut out = String::from("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: told}\ndata: {word: hello}\n");
    let mut pod = |name: &str, spec: &str| {
        let _ = write!(
            out,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{shape: {}}}}}\n",
            name.split('-').next().unwrap_or_default()
        );
        let _ = writeln!(out, "spec:\n  terminationGracePeriodSeconds: 1\n{spec}");
    };
    for n in 0..ENDS {
        let line = format!("until [ -e /hold/end-{n} ]; do sleep 0.1; done; echo the last word of {n}; exit {}", n + 3);
        pod(
            &format!("ends-{n}"),
            &format!(
                "  restartPolicy: Never\n  containers: [{{name: c, {IMAGE}, command: [sh, -c, {line:?}], volumeMounts: [{{name: h, mountPath: /hold}}]}}]\n  \
                 volumes: [{{name: h, hostPath: {{path: {}}}}}]",
                hold.display()
            ),
        );
    }
    for n in 0..4 {
        let line = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done";
        pod(&format!("talk-{n}"), &format!("  containers: [{{name: c, {IMAGE}, command: [sh, -c, {line:?}]}}]"));
    }
    for n in 0..3 {
        pod(
            &format!("init-{n}"),
            &format!(
                "  initContainers: [{{name: i, {IMAGE}, command: [sh, -c, 'echo done >> /v/i'], volumeMounts: [{{name: v, mountPath: /v}}]}}]\n  \
                 containers: [{{name: c, {IMAGE}, command: [sleep, '100000'], volumeMounts: [{{name: v, mountPath: /v}}]}}]\n  \
                 volumes: [{{name: v, emptyDir: {{}}}}]"
            ),
        );
    }
    for n in 0..3 {
        pod(
            &format!("side-{n}"),
            &format!(
                "  initContainers: [{{name: s, {IMAGE}, restartPolicy: Always, command: [sleep, '100000'], startupProbe: {{exec: {{command: ['true']}}}}}}]\n  \
                 containers: [{{name: c, {IMAGE}, command: [sleep, '100000']}}]"
            ),
        );
    }
    for n in 0..2 {
        let probe = "{httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 20}";
        let line = "echo well > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
        pod(
            &format!("probe-{n}"),
            &format!("  containers: [{{name: c, {IMAGE}, command: [sh, -c, {line:?}], readinessProbe: {probe}, livenessProbe: {probe}}}]"),
        );
    }
    for n in 0..2 {
        pod(
            &format!("volume-{n}"),
            &format!(
                "  containers: [{{name: c, {IMAGE}, command: [sleep, '100000'], volumeMounts: [{{name: m, mountPath: /m}}, {{name: p, mountPath: /p}}]}}]\n  \
                 volumes: [{{name: m, configMap: {{name: told}}}}, {{name: p, projected: {{sources: [{{downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}}}]}}}}]"
            ),
        );
    }
    out
}

/// Name, then what is asked of it, of the pods that go on.
fn standing(kubectl: &Kubectl, fields: &str) -> BTreeMap<String, String> {
    let path = format!("jsonpath={{range .items[*]}}{{.metadata.name}} {fields}{{\"\\n\"}}{{end}}");
    let text = kubectl.ok(&["get", "pods", "-l=shape,shape!=ends", "-o", &path]);
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

const RUNS: &str = "{.status.initContainerStatuses[*].containerID} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount} {.status.podIP}";

fn wait_all(kubectl: &Kubectl) {
    kubectl.ok(&["wait", "pods", "-l=shape,shape!=ends", "--for=condition=Ready", "--timeout=90s"]);
}

/// Cgroups of pods, and what else a pod has on the machine; the cluster's own things are there before and after.
fn of_pods(id: &str, data_dir: &Path) -> BTreeMap<String, usize> {
    let all = left::of(id, data_dir);
    let mut out: BTreeMap<String, usize> =
        all.iter().filter(|(kind, _)| **kind != "cgroups").map(|(kind, list)| ((*kind).to_owned(), list.len())).collect();
    let groups = all.get("cgroups").into_iter().flatten().map(|group| pod_groups(Path::new(group))).sum();
    out.insert("cgroups of pods".to_owned(), groups);
    let directories = fs::read_dir(data_dir.join("agent/pods")).map_or(0, Iterator::count);
    out.insert("directories of pods".to_owned(), directories);
    out.retain(|_, count| *count > 0);
    out
}

fn pod_groups(group: &Path) -> usize {
    let entries = fs::read_dir(group).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
    entries.map(|e| usize::from(e.file_name().to_string_lossy().starts_with("pod")) + pod_groups(&e.path())).sum()
}

/// The lines of a counter's log: none is missing, none is there twice.
fn check_log(kubectl: &Kubectl, pod: &str) -> usize {
    let log = kubectl.ok(&["logs", pod]);
    let gap = log.lines().enumerate().find(|(n, line)| n.to_string() != *line);
    assert_eq!(gap, None, "{pod}: the log has every line once");
    log.lines().count()
}

#[test]
fn pods_outlive_what_befalls_the_server_and_come_back_after_a_reboot() {
    let (server, kubectl) = Server::with_image();
    let mut server = server.may_use(MEMORY_KIB);
    let id = left::id(server.data_dir()).expect("the machine knows it");
    let before = of_pods(&id, server.data_dir());
    let hold = tempfile::tempdir().expect("a directory");
    kubectl.apply(&pods(hold.path()));
    wait_all(&kubectl);
    let runs = standing(&kubectl, RUNS);
    assert_eq!(runs.len(), 14);

    let mut chance = Chance(number("CORACLE_SURVIVAL_SEED", SEED).max(1));
    let mut ends = 0..ENDS;
    let mut end = |chance: &mut Chance| {
        if let Some(n) = ends.next() {
            fs::write(hold.path().join(format!("end-{n}")), "").expect("written");
            chance.pass(300);
        }
    };
    for _ in 0..number("CORACLE_SURVIVAL_KILLS", KILLS) {
        chance.pass(800);
        server.end(Signal::SIGKILL);
        if chance.below(2) == 0 {
            end(&mut chance);
        }
        if chance.below(2) == 0 {
            server.up_briefly(Duration::from_millis(chance.below(YOUNG_MS)));
        }
        server.up();
        if chance.below(2) == 0 {
            end(&mut chance);
        }
    }
    (0..ENDS).for_each(|_| end(&mut chance));
    for n in 0..ENDS {
        let pod = format!("pod/ends-{n}");
        kubectl.wait(&pod, "jsonpath={.status.phase}=Failed");
        let code = kubectl.ok(&["get", &pod, "-o", "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"]);
        assert_eq!(code, (n + 3).to_string(), "an exit code is not lost");
        assert_eq!(kubectl.ok(&["logs", &format!("ends-{n}")]), format!("the last word of {n}\n"));
    }
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    wait_all(&kubectl);
    assert_eq!(standing(&kubectl, RUNS), runs, "the same containers run, and none was started anew");
    for n in 0..4 {
        assert!(check_log(&kubectl, &format!("talk-{n}")) > 10);
    }

    // The end of a shim is the end of its containers, and is told.
    let uid = kubectl.ok(&["get", "pod", "side-0", "-o", "jsonpath={.metadata.uid}"]);
    let shim = left::of(&id, server.data_dir())["processes"].iter().find(|p| is_shim(p, &uid)).cloned().expect("a shim");
    let pid = shim.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let last = "{.status.containerStatuses[0].lastState.terminated.exitCode}/{.status.containerStatuses[0].restartCount}";
    kubectl.wait("pod/side-0", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    wait_all(&kubectl);
    assert_eq!(kubectl.ok(&["get", "pod", "side-0", "-o", &format!("jsonpath={last}")]), "137/1");

    // A reboot: everything is gone but the disk.
    server.end(Signal::SIGKILL);
    reboot(server.data_dir());
    server.up();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
    kubectl.ok(&[
        "wait",
        "pods",
        "-l=shape,shape!=ends",
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
        "--timeout=90s",
        "--field-selector=metadata.name!=side-0",
    ]);
    kubectl.wait("pod/side-0", "jsonpath={.status.containerStatuses[0].restartCount}=2");
    wait_all(&kubectl);
    assert_eq!(
        kubectl.ok(&["exec", "init-0", "--", "cat", "/v/i"]),
        "done\ndone\n",
        "init containers did their work again, the volume stayed"
    );
    assert_eq!(kubectl.ok(&["exec", "volume-1", "--", "cat", "/m/word", "/p/name"]), "hellovolume-1");
    assert_eq!(kubectl.ok(&["get", "pods", "-l=shape=ends", "-o", "jsonpath={.items[*].status.phase}"]), ["Failed"; ENDS].join(" "));

    kubectl.ok(&["delete", "pods", "--all", "--timeout=90s"]);
    let id = left::id(server.data_dir()).expect("the machine knows it");
    // What a pod had goes a moment after its object.
    for _ in 0..100 {
        if of_pods(&id, server.data_dir()) == before {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(of_pods(&id, server.data_dir()), before, "{:#?}", left::of(&id, server.data_dir()));
}

/// The process that keeps a pod's first sandbox: its directory has the sandbox's name.
fn is_shim(process: &str, uid: &str) -> bool {
    let hash = Sha256::digest(format!("sandbox\0{uid}\x000\0"));
    let sandbox: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    process.contains(" __shim") && process.contains(&sandbox)
}
