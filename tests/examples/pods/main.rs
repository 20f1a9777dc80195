//! How fast pods come and go in a cluster of its own: rows of `sh tests/bench.sh` with figure, must, goal. The argument: how many pods.
//! It calls itself again as the command of `coracle run`, from which Services can be asked by their address.
//! It follows a watch; only what answers connections and look-ups is asked again and again.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use coracle_client::{
    Scope, Step, WatchError,
    watch::{until, watch},
};
use coracle_tests::image;
use futures::{Stream, StreamExt as _};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Pods of one measurement.
const PODS: usize = 50;
/// Deletions of the second measurement.
const ROUNDS: usize = 5;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set in the process that measures.
const INSIDE: &str = "CORACLE_BENCH_INSIDE";
/// A pod that has not answered for so long is gone from the Service.
const QUIET: Duration = Duration::from_millis(500);

mod density;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let pods = std::env::args().nth(1).map_or(Ok(PODS), |n| n.parse())?;
    let Some(kubeconfig) = std::env::var_os(INSIDE).and_then(|_| std::env::var_os("KUBECONFIG")) else {
        let directory = tempfile::tempdir()?;
        let mut run = Command::new(coracle_tests::server::program());
        run.arg("run").arg("--import").arg(image::busybox(directory.path())).arg("--").arg(std::env::current_exe()?).arg(pods.to_string());
        let status = run.env(INSIDE, "1").status()?;
        return if status.success() { Ok(()) } else { Err(format!("the cluster's run: {status}").into()) };
    };
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let namespace = "bench".to_owned();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": namespace } }))?).await?;
    tokio::time::timeout(PATIENCE, until::<ServiceAccount>(&client, Some(&namespace), "default", |account| account.is_some())).await??;
    starts(&client, &namespace, pods).await?;
    deletions(&client, &namespace).await?;
    density::density(&client, &namespace).await
}

fn row(what: &str, figure: Duration, must: &str, goal: &str) {
    println!("{what:<64} {:>14.1} {must:>12} {goal:>12}", figure.as_secs_f64() * 1e3);
}

fn pod(name: &str, script: &str, labels: &serde_json::Value) -> Result<Pod, serde_json::Error> {
    let env = json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
    let container =
        json!({ "name": "main", "image": "busybox:test", "imagePullPolicy": "Never", "command": ["sh", "-c", script], "env": env });
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "spec": { "containers": [container] } }))
}

/// The next change of the watch that `is` picks.
async fn next(
    changes: &mut (impl Stream<Item = Result<Step<Pod>, WatchError>> + Unpin),
    is: impl Fn(&Step<Pod>) -> bool,
) -> Result<Step<Pod>, Failure> {
    let found = async {
        loop {
            match changes.next().await {
                Some(Ok(event)) if is(&event) => return Ok(event),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the watch has ended".into()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await?
}

fn named<'a>(event: &'a Step<Pod>, name: &str) -> Option<&'a Pod> {
    match event {
        Step::Put(pod) | Step::Listed(pod) => Some(pod).filter(|p| p.metadata.name.as_deref() == Some(name)),
        _ => None,
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
}

/// One pod at a time, from the request to the watch that shows it Running.
async fn starts(client: &Client, namespace: &str, pods: usize) -> Result<(), Failure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut changes = watch::<Pod>(client, Some(namespace), Scope::default());
    next(&mut changes, |e| matches!(e, Step::Complete)).await?;
    let mut took = Vec::with_capacity(pods);
    for number in 0..pods {
        let name = format!("one-{number}");
        let mut one = pod(&name, "exec sleep 3600", &json!({}))?;
        // The node counts it until its process has ended, and needs the room for the rows that follow.
        one.spec.iter_mut().for_each(|spec| spec.termination_grace_period_seconds = Some(1));
        let began = Instant::now();
        api.create(&PostParams::default(), &one).await?;
        next(&mut changes, |e| named(e, &name).is_some_and(is_running)).await?;
        took.push(began.elapsed());
        api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        next(&mut changes, |e| matches!(e, Step::Deleted(p) if p.metadata.name.as_deref() == Some(&name))).await?;
    }
    took.sort();
    let quantile = |percent: usize| took[(took.len() * percent).div_ceil(100).saturating_sub(1)];
    row(&format!("pod created to Running, image present, p50 of {pods}, ms"), quantile(50), "< 250", "150");
    row("the same, p99, ms", quantile(99), "< 700", "400");
    Ok(())
}

/// A pod of two behind a Service is deleted and goes on serving: when it is named for the last time, by the dataplane and by DNS.
async fn deletions(client: &Client, namespace: &str) -> Result<(), Failure> {
    let labels = json!({ "app": "bench" });
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    for (name, more) in [("web", json!({})), ("names", json!({ "clusterIP": "None" }))] {
        let mut spec = json!({ "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] });
        spec.as_object_mut().into_iter().for_each(|s| s.extend(more.as_object().cloned().unwrap_or_default()));
        services.create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec }))?).await?;
    }
    let address = |service: Service| service.spec.and_then(|s| s.cluster_ip)?.parse::<IpAddr>().ok();
    let web = SocketAddr::new(address(services.get("web").await?).ok_or("the Service has no address")?, 80);
    let dns: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let dns = resolver(address(dns.get("kube-dns").await?).ok_or("the cluster has no DNS")?)?;
    let name = format!("names.{namespace}.svc.cluster.local.");

    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut changes = watch::<Pod>(client, Some(namespace), Scope::labels("app=bench"));
    next(&mut changes, |e| matches!(e, Step::Complete)).await?;
    // It does not end when it is asked to: what keeps requests from it is the Service.
    let script = "trap '' TERM; mkdir -p /www; echo $POD_IP > /www/index.html; exec httpd -f -p 8080 -h /www";
    let mut standing: Vec<(String, IpAddr)> = Vec::new();
    let mut took: Vec<(Duration, Duration)> = Vec::new();
    for number in 0..=ROUNDS {
        let own = format!("web-{number}");
        api.create(&PostParams::default(), &pod(&own, script, &labels)?).await?;
        let event = next(&mut changes, |e| named(e, &own).is_some_and(is_running)).await?;
        let ip = named(&event, &own).and_then(|p| p.status.as_ref()?.pod_ip.as_deref()?.parse().ok()).ok_or("the pod has no address")?;
        standing.push((own, ip));
        if standing.len() < 2 {
            continue;
        }
        all_answer(web, &dns, &name, &standing).await?;
        let (gone, ip) = standing.remove(0);
        let began = Instant::now();
        let asked = (last_answer(began, || answers(web, ip)), last_answer(began, || names(&dns, &name, ip)), async {
            api.delete(&gone, &DeleteParams::default()).await
        });
        let (dataplane, looked_up, deleted) = tokio::join!(asked.0, asked.1, asked.2);
        deleted?;
        took.push((dataplane, looked_up));
        api.delete(&gone, &DeleteParams::default().grace_period(0)).await?;
    }
    let worst = |of: fn(&(Duration, Duration)) -> Duration| took.iter().map(of).max().unwrap_or_default();
    row(&format!("pod deleted to its last answer by ClusterIP, worst of {ROUNDS}, ms"), worst(|t| t.0), "< 100", "50");
    row(&format!("pod deleted to its last answer by DNS, worst of {ROUNDS}, ms"), worst(|t| t.1), "< 100", "50");
    Ok(())
}

fn resolver(server: IpAddr) -> Result<TokioResolver, Failure> {
    let server = NameServerConfig::new(server, true, vec![ConnectionConfig::udp()]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    Ok(builder.build()?)
}

/// Waits until every pod has answered, and every name is told.
async fn all_answer(web: SocketAddr, dns: &TokioResolver, name: &str, pods: &[(String, IpAddr)]) -> Result<(), Failure> {
    let wait = async {
        let mut seen: HashMap<IpAddr, (bool, bool)> = pods.iter().map(|(_, ip)| (*ip, (false, false))).collect();
        while seen.values().any(|(by_address, by_name)| !by_address || !by_name) {
            if let Some(seen) = get(web).await.and_then(|ip| seen.get_mut(&ip)) {
                seen.0 = true;
            }
            for ip in look_up(dns, name).await {
                if let Some(seen) = seen.get_mut(&ip) {
                    seen.1 = true;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, wait).await?)
}

/// Asks until the answer has been no for a while; how long after `began` the last yes was asked for.
async fn last_answer<F: Future<Output = bool>>(began: Instant, ask: impl Fn() -> F) -> Duration {
    let mut last = Duration::ZERO;
    while began.elapsed() < last + QUIET {
        let asked = began.elapsed();
        if ask().await {
            last = asked;
        }
    }
    last
}

async fn answers(web: SocketAddr, ip: IpAddr) -> bool {
    get(web).await == Some(ip)
}

async fn names(dns: &TokioResolver, name: &str, ip: IpAddr) -> bool {
    look_up(dns, name).await.contains(&ip)
}

async fn look_up(dns: &TokioResolver, name: &str) -> Vec<IpAddr> {
    dns.lookup_ip(name).await.map(|found| found.iter().collect()).unwrap_or_default()
}

/// The address of the pod that answers.
async fn get(web: SocketAddr) -> Option<IpAddr> {
    let mut stream = tokio::net::TcpStream::connect(web).await.ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split_once("\r\n\r\n")?.1.trim().parse().ok()
}
