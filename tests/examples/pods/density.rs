//! What many pods cost: thirty at once, then a hundred that idle, without and with a probe each second.

use std::{collections::HashSet, fs, path::Path, time::Duration, time::Instant};

use coracle_client::{Scope, Step, watch::watch};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{Failure, PATIENCE, is_running, row};

/// Pods that are created at once.
const BURST: usize = 30;
/// Pods that idle.
const IDLE: usize = 100;
/// For so long their cost is looked at, after as long a time to settle.
const LOOK: Duration = Duration::from_secs(20);
/// In a second: USER_HZ is 100 on every Linux.
const TICKS: f64 = 100.0;

/// Creates pods all at once; how long until the last one runs.
async fn create(client: &Client, namespace: &str, name: &str, count: usize, spec: &Value) -> Result<Duration, Failure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut changes = watch::<Pod>(client, Some(namespace), Scope::labels(format!("set={name}")));
    let began = Instant::now();
    let pods: Vec<Pod> = (0..count)
        .map(|n| serde_json::from_value(json!({"metadata": {"name": format!("{name}-{n}"), "labels": {"set": name}}, "spec": spec})))
        .collect::<Result<_, _>>()?;
    futures::future::try_join_all(pods.iter().map(|pod| api.create(&PostParams { dry_run: false, field_manager: None }, pod))).await?;
    let mut running = HashSet::new();
    let all = async {
        while running.len() < count {
            match changes.next().await.ok_or("the watch has ended")?? {
                Step::Put(pod) | Step::Listed(pod) if is_running(&pod) => drop(running.insert(pod.metadata.name)),
                _ => {}
            }
        }
        Ok::<_, Failure>(began.elapsed())
    };
    tokio::time::timeout(PATIENCE, all).await?
}

async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mine = ListParams::default().labels(&format!("set={name}"));
    let mut changes = watch::<Pod>(client, Some(namespace), Scope::labels(format!("set={name}")));
    super::next(&mut changes, |e| matches!(e, Step::Complete)).await?;
    let mut left: HashSet<_> = api.list(&mine).await?.items.into_iter().map(|pod| pod.metadata.name).collect();
    api.delete_collection(&DeleteParams::default(), &mine).await?;
    let gone = async {
        while !left.is_empty() {
            if let Step::Deleted(pod) = changes.next().await.ok_or("the watch has ended")?? {
                left.remove(&pod.metadata.name);
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await?
}

fn spec(script: &str, probe: Value) -> Value {
    let mut container = json!({ "name": "main", "image": "busybox:test", "imagePullPolicy": "Never", "command": ["sh", "-c", script] });
    if !probe.is_null() {
        container["livenessProbe"] = probe;
    }
    // By the node, which has room again when they are gone: a pod that is forced away still counts there.
    json!({ "terminationGracePeriodSeconds": 1, "containers": [container] })
}

/// All rows of this file. The server is this process's parent.
pub async fn density(client: &Client, namespace: &str) -> Result<(), Failure> {
    let sleeping = spec("exec sleep 3600", Value::Null);
    row(
        &format!("{BURST} pods created at once, the last Running, ms"),
        create(client, namespace, "burst", BURST, &sleeping).await?,
        "< 6000",
        "3000",
    );
    delete(client, namespace, "burst").await?;
    create(client, namespace, "idle", IDLE, &sleeping).await?;
    tokio::time::sleep(LOOK).await;
    let cost = cost().await?;
    figure(&format!("{IDLE} idle pods: RSS of the server, MiB"), cost.rss, "< 120", "90");
    figure(&format!("{IDLE} idle pods: private memory of a shim, MiB"), cost.shim, "< 1", "0.5");
    figure(&format!("{IDLE} idle pods, no probes: CPU, % of a core"), cost.cpu, "< 1", "0.5");
    delete(client, namespace, "idle").await?;
    let probe = json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    create(client, namespace, "probed", IDLE, &spec("mkdir /www; echo ok > /www/index.html; exec httpd -f -p 8080 -h /www", probe)).await?;
    tokio::time::sleep(LOOK).await;
    figure(&format!("{IDLE} pods with an http probe each second: CPU, % of a core"), self::cost().await?.cpu, "< 8", "4");
    delete(client, namespace, "probed").await
}

fn figure(what: &str, figure: f64, must: &str, goal: &str) {
    println!("{what:<64} {figure:>14.2} {must:>12} {goal:>12}");
}

struct Cost {
    /// Of the server, MiB.
    rss: f64,
    /// Private memory of a shim, the mean of all, MiB.
    shim: f64,
    /// Of the server, its residents and the shims, percent of a core.
    cpu: f64,
}

/// What the cluster of this process's parent takes: the server itself, and whatever runs its program in its cgroups. Told by the command line: a shim
/// has left the mount namespace that its program's path is in.
async fn cost() -> Result<Cost, Failure> {
    let server = std::os::unix::process::parent_id();
    let own = |pid: u32| {
        let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(program.split(|byte| *byte == 0).next().unwrap_or_default()).contains("coracle")
    };
    let cluster = cluster()?;
    let mut pids = vec![server];
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if pid != server && own(pid) && groups.contains(&format!("/coracle-{cluster}")) {
            pids.push(pid);
        }
    }
    let shims: Vec<f64> = pids.iter().filter(|pid| is_shim(**pid)).map(|pid| private(*pid)).collect();
    if shims.len() < IDLE {
        return Err(format!("{} shims of {IDLE} pods are found", shims.len()).into());
    }
    let before: u64 = pids.iter().map(|pid| ticks(*pid)).sum();
    tokio::time::sleep(LOOK).await;
    let after: u64 = pids.iter().map(|pid| ticks(*pid)).sum();
    let status = fs::read_to_string(format!("/proc/{server}/status"))?;
    Ok(Cost {
        rss: kib(&status, "VmRSS:") / 1024.0,
        shim: shims.iter().sum::<f64>() / shims.len() as f64,
        cpu: (after - before) as f64 / TICKS / LOOK.as_secs_f64() * 100.0,
    })
}

/// The cluster's id: the directory in /run/coracle that names the data directory of our kubeconfig.
fn cluster() -> Result<String, Failure> {
    let kubeconfig = std::env::var("KUBECONFIG")?;
    let data = Path::new(&kubeconfig).parent().ok_or("KUBECONFIG has no directory")?.to_string_lossy().into_owned();
    for entry in fs::read_dir("/run/coracle")?.flatten() {
        if fs::read_to_string(entry.path().join("cluster.json")).is_ok_and(|text| text.contains(&format!("\"{data}\""))) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Err(format!("no cluster of {data} in /run/coracle").into())
}

fn is_shim(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().lines().any(|line| line.ends_with("/shims"))
}

fn private(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    (kib(&rollup, "Private_Clean:") + kib(&rollup, "Private_Dirty:")) / 1024.0
}

fn kib(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Of a process, user and system (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).into_iter().flatten();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
