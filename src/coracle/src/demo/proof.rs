//! The proof, step by step: each waits for what a user would see, and its time is told.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    future::ready,
    path::Path,
    time::{Duration, Instant},
};

use coracle_client::{Scope, Step, watch};
use futures::{Stream, StreamExt as _, pin_mut};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, LogParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    kill,
    objects::{CONFIG, REPLICAS, asker, objects},
    serve::{CHANGED, PORT},
};
use crate::{cli::DemoFlags, commands::images, failure::Failure};

/// No step may take longer.
const LIMIT: Duration = Duration::from_secs(60);
/// The image, made of this binary.
const IMAGE: &str = concat!("coracle.local/demo:", env!("CARGO_PKG_VERSION"));

/// Proves the cluster; whatever happens, the namespace is deleted at the end.
pub async fn demo(flags: &DemoFlags) -> Result<(), Failure> {
    let client = coracle_client::from_kubeconfig(&flags.kubeconfig).await.map_err(Failure::of)?;
    make_image(&flags.data_dir)?;
    let namespace = format!("demo-{:x}", std::process::id());
    let mut proof = Proof { table: Vec::new(), client, namespace };
    let outcome = proof.all().await;
    let cleaned = proof.clean_up().await;
    proof.print();
    outcome.and(cleaned)
}

fn make_image(data_dir: &Path) -> Result<(), Failure> {
    let store = images::open(data_dir)?;
    if store.get(IMAGE).map_err(Failure::of)?.is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|e| Failure::new("cannot find this program").because(e))?;
    let defaults = coracle_runtime::images::Defaults::default();
    coracle_runtime::images::from_binary(&store, IMAGE, &program, &defaults).map_err(Failure::of)?;
    Ok(())
}

struct Proof {
    table: Vec<(&'static str, Duration)>,
    client: Client,
    namespace: String,
}

impl Proof {
    async fn all(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        self.create().await?;
        self.wait("the Deployment has 3 ready pods", began, self.pods_ready(&BTreeSet::new())).await?;

        let began = Instant::now();
        self.ask("all three answer a pod by the Service's short name", began).await?;

        let (old, began) = (self.ready_pods().await?, Instant::now());
        let victim = first(&old)?;
        self.pods().delete(&victim.name_any(), &DeleteParams::default()).await.map_err(failed("delete a pod"))?;
        self.wait("a deleted pod left the Service's endpoints", began, self.endpoint_gone(victim)).await?;
        self.wait("and is replaced by a ready one", began, self.pods_ready(&uids(std::slice::from_ref(victim)))).await?;

        let (now, began) = (self.ready_pods().await?, Instant::now());
        let victim = first(&now)?;
        let killed =
            kill::kill_pod(&victim.uid().unwrap_or_default()).map_err(|e| Failure::new("cannot kill a pod's process").because(e))?;
        if !killed {
            return Err(Failure::new("the pods do not run on this machine: run the demo on the node"));
        }
        self.wait("a killed process is started again", began, self.restarted(victim)).await?;

        self.change_the_config("hello", "good-day").await
    }

    async fn create(&self) -> Result<(), Failure> {
        let objects = objects(&self.namespace, IMAGE);
        let (post, namespaces) = (PostParams::default(), Api::<Namespace>::all(self.client.clone()));
        namespaces.create(&post, &objects.namespace).await.map_err(failed("create the namespace"))?;
        self.api().create(&post, &objects.config).await.map_err(failed("create the ConfigMap"))?;
        self.api::<Service>().create(&post, &objects.service).await.map_err(failed("create the Service"))?;
        self.api::<Deployment>().create(&post, &objects.deployment).await.map_err(failed("create the Deployment"))?;
        Ok(())
    }

    /// Runs the asking pod to its end and prints what it saw.
    async fn ask(&mut self, what: &'static str, began: Instant) -> Result<(), Failure> {
        let pod = asker("ask", IMAGE, REPLICAS);
        // The namespace's ServiceAccount is there by now: the Deployment's pods run with it.
        self.pods().create(&PostParams::default(), &pod).await.map_err(failed("create the asking pod"))?;
        let ended = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone()).filter(|p| p == "Succeeded" || p == "Failed");
        let stream = self.watch::<Pod>(Scope::fields("metadata.name=ask"));
        let phase = self.until(what, stream, |pods| pods.iter().find_map(&ended)).await?;
        let log = self.pods().logs("ask", &LogParams::default()).await.map_err(failed("read the asking pod's log"))?;
        print!("{log}");
        if phase != "Succeeded" {
            return Err(Failure::new(format!("{what}: the asking pod failed")));
        }
        self.table.push((what, began.elapsed()));
        Ok(())
    }

    /// Every ready pod is asked for the news before there are any, and answers with the new greeting.
    async fn change_the_config(&mut self, old: &str, new: &str) -> Result<(), Failure> {
        let what = "a changed ConfigMap is seen in all pods";
        let addresses: Vec<String> = self.ready_pods().await?.iter().filter_map(|p| p.status.as_ref()?.pod_ip.clone()).collect();
        let asks = addresses.iter().map(|address| ask_for_news(address, old));
        let asked = futures::future::try_join_all(asks).await.map_err(|e| Failure::new(what).because(e))?;

        let began = Instant::now();
        let (patch, configs) = (Patch::Merge(json!({"data": {"greeting": new}})), self.api::<ConfigMap>());
        configs.patch(CONFIG, &PatchParams::default(), &patch).await.map_err(failed("change the ConfigMap"))?;
        let answers = futures::future::try_join_all(asked.into_iter().map(answer));
        let news = async {
            let answers = answers.await.map_err(|e| Failure::new("a pod did not answer").because(e))?;
            match answers.iter().find(|answer| !answer.ends_with(new)) {
                Some(other) => Err(Failure::new(format!("a pod says {other:?}"))),
                None => Ok(()),
            }
        };
        self.wait(what, began, news).await
    }

    async fn clean_up(&mut self) -> Result<(), Failure> {
        let (began, name, client) = (Instant::now(), self.namespace.clone(), self.client.clone());
        let namespaces = Api::<Namespace>::all(client.clone());
        let Some(namespace) = namespaces.get_opt(&name).await.map_err(failed("read the namespace"))? else { return Ok(()) };
        namespaces.delete(&name, &DeleteParams::default()).await.map_err(failed("delete the namespace"))?;
        let gone = async {
            let uid = namespace.uid().unwrap_or_default();
            let is_gone = |now: Option<&Namespace>| now.and_then(kube::ResourceExt::uid).is_none_or(|now| now != uid);
            let deleted = watch::until(&client, None, &name, is_gone).await;
            deleted.map(drop).map_err(|e| Failure::new("watching failed").because(e))
        };
        self.wait("the namespace is gone with all it held", began, gone).await
    }

    async fn wait(&mut self, what: &'static str, began: Instant, done: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        match tokio::time::timeout(LIMIT, done).await {
            Ok(Ok(())) => self.table.push((what, began.elapsed())),
            Ok(Err(error)) => return Err(Failure::new(what).because(std::io::Error::other(error.to_string()))),
            Err(_) => return Err(Failure::new(format!("{what}: not after {} s", LIMIT.as_secs()))),
        }
        Ok(())
    }

    /// Three pods are ready, none of them one of `without`.
    fn pods_ready(&self, without: &BTreeSet<String>) -> impl Future<Output = Result<(), Failure>> + use<> {
        let (stream, without) = (self.watch::<Pod>(Scope::labels("app=web")), without.clone());
        settle(stream, move |pods: &[Pod]| {
            let good = pods.iter().filter(|p| is_ready(p) && !without.contains(&p.uid().unwrap_or_default())).count();
            (good == REPLICAS).then_some(())
        })
    }

    fn restarted(&self, pod: &Pod) -> impl Future<Output = Result<(), Failure>> + use<> {
        let (uid, before) = (pod.uid(), restarts(pod));
        let stream = self.watch::<Pod>(Scope::labels("app=web"));
        settle(stream, move |pods: &[Pod]| pods.iter().any(|p| p.uid() == uid && restarts(p) > before && is_ready(p)).then_some(()))
    }

    fn endpoint_gone(&self, pod: &Pod) -> impl Future<Output = Result<(), Failure>> + use<> {
        let uid = pod.uid();
        let stream = self.watch::<EndpointSlice>(Scope::labels("kubernetes.io/service-name=web"));
        settle(stream, move |slices: &[EndpointSlice]| {
            let mut endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
            let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready) != Some(false);
            (!endpoints.any(|e| ready(e) && e.target_ref.as_ref().and_then(|t| t.uid.clone()) == uid)).then_some(())
        })
    }

    async fn ready_pods(&self) -> Result<Vec<Pod>, Failure> {
        let list = self.pods().list(&kube::api::ListParams::default().labels("app=web")).await.map_err(failed("list the pods"))?;
        Ok(list.items.into_iter().filter(is_ready).collect())
    }

    async fn until<K, T>(
        &self,
        what: &str,
        stream: impl Stream<Item = Result<Vec<K>, Failure>>,
        good: impl Fn(&[K]) -> Option<T>,
    ) -> Result<T, Failure> {
        let settled = tokio::time::timeout(LIMIT, settle(stream, good)).await;
        settled.map_err(|_| Failure::new(format!("{what}: not after {} s", LIMIT.as_secs())))?
    }

    /// All objects that the watch means, after each change.
    fn watch<K>(&self, scope: Scope) -> impl Stream<Item = Result<Vec<K>, Failure>> + use<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        watch::watch::<K>(&self.client, Some(&self.namespace), scope)
            .scan(Vec::<K>::new(), |known, step| {
                let step = match step {
                    Ok(step) => step,
                    Err(error) => return ready(Some(Some(Err(Failure::new("watching failed").because(error))))),
                };
                let told = matches!(step, Step::Complete | Step::Put(_) | Step::Deleted(_));
                match step {
                    Step::Begin => known.clear(),
                    Step::Complete => {}
                    Step::Listed(object) => known.push(object),
                    Step::Put(object) => {
                        known.retain(|k| k.uid() != object.uid());
                        known.push(object);
                    }
                    Step::Deleted(object) => known.retain(|k| k.uid() != object.uid()),
                }
                ready(Some(told.then(|| Ok(known.clone()))))
            })
            .filter_map(ready)
    }

    fn pods(&self) -> Api<Pod> {
        self.api()
    }

    fn api<K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn print(&self) {
        println!();
        for (what, took) in &self.table {
            println!("{what:<58} {:>7} ms", took.as_millis());
        }
    }
}

/// The first answer that `good` takes.
async fn settle<K, T>(stream: impl Stream<Item = Result<Vec<K>, Failure>>, good: impl Fn(&[K]) -> Option<T>) -> Result<T, Failure> {
    pin_mut!(stream);
    let mut last = None;
    while let Some(seen) = stream.next().await {
        match seen {
            Ok(objects) => match good(&objects) {
                Some(value) => return Ok(value),
                None => last = None,
            },
            // The watch tries again by itself; what it said counts when nothing better comes.
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Failure::new("the watch ended")))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none() && conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|s| s.restart_count).sum()
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(kube::ResourceExt::uid).collect()
}

fn first(pods: &[Pod]) -> Result<&Pod, Failure> {
    pods.first().ok_or_else(|| Failure::new("no pod is ready any more"))
}

fn failed(what: &'static str) -> impl Fn(kube::Error) -> Failure {
    move |error| Failure::new(format!("cannot {what}")).because(error)
}

/// A request that the demo's server holds until its greeting is no longer `old`.
async fn ask_for_news(address: &str, old: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((address, PORT)).await?;
    stream.write_all(format!("GET {CHANGED}{old} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    Ok(stream)
}

async fn answer(mut stream: TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.trim().to_owned())
}
