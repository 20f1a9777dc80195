//! The API server and the controllers in one process, over the in-process client: a Deployment becomes pods and endpoints, follows changes,
//! and goes with all that it owns. Pods become ready by this test's hand: there is no node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_apiserver::{
    request::User,
    server::{ApiServer, Config},
};
use coracle_client::{Informers, Key, informer::Watched};
use coracle_pki::authority::Authority;
use coracle_store::embedded::{EmbeddedStore, Options};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    storage::v1::VolumeAttributesClass,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Nothing in here takes longer on a machine that does its work.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    client: Client,
    informers: Informers,
    shutdown: CancellationToken,
    controllers: tokio::task::JoinHandle<()>,
    server: ApiServer,
    records: coracle_controllers::record::Records,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(&dir.path().join("tls")).unwrap());
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("db"), Options::default()).unwrap());
        let config = Config {
            authority,
            bind_address: [127, 0, 0, 1].into(),
            port: 0,
            advertise_address: [192, 0, 2, 10].into(),
            service_cidr: "10.43.0.0/16".into(),
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".into(),
            tls_sans: Vec::new(),
            bootstrap_token: None,
            authentication: Default::default(),
            audit: Default::default(),
            admission: None,
            further_metrics: Vec::new(),
        };
        let server = ApiServer::start(config, store).await.unwrap();
        let user = User { name: "test".into(), groups: vec!["system:masters".into()], ..User::default() };
        let client = coracle_client::in_process(server.local(user));
        let informers = Informers::new(client.clone());
        let shutdown = CancellationToken::new();
        let config = coracle_controllers::Config {
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            ca_bundle: "PEM".into(),
            ..Default::default()
        };
        let records = config.records.clone();
        let run = coracle_controllers::run(client.clone(), informers.clone(), config, shutdown.clone());
        let controllers = tokio::spawn(async { run.await.unwrap() });
        Self { client, informers, shutdown, controllers, server, records, _dir: dir }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.controllers.await.unwrap();
        self.server.shutdown().await;
    }

    fn api<K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn create<K: Watched + serde::Serialize>(&self, namespace: &str, object: Value) {
        let path = K::url_path(&(), Some(namespace).filter(|n| !n.is_empty()));
        let request = kube::core::Request::new(path).create(&PostParams::default(), object.to_string().into_bytes()).unwrap();
        self.client.request::<Value>(request).await.unwrap();
    }

    /// Waits until all objects of a kind together are as `good` wants them.
    async fn until<K: Watched>(&self, what: &str, good: impl Fn(&[Arc<K>]) -> bool) {
        let begin = Instant::now();
        let informer = self.informers.of::<K>();
        let mut changes = informer.changes();
        informer.synced().await;
        while !good(&informer.lister().list()) {
            if tokio::time::timeout(PATIENCE.saturating_sub(begin.elapsed()), changes.next()).await.is_err() {
                let list: Vec<Value> = informer.lister().list().iter().map(|o| serde_json::json!({"name": o.meta().name, "deletion": o.meta().deletion_timestamp.is_some(), "owners": o.meta().owner_references, "finalizers": o.meta().finalizers})).collect();
                panic!(
                    "{what}: still {} after {PATIENCE:?}\nrecords: {:#?}",
                    json!(list),
                    self.records.all().iter().rev().take(30).collect::<Vec<_>>()
                );
            }
        }
        println!("{what}: {} ms", begin.elapsed().as_millis());
    }

    /// The node's part: every pod without an address gets one and becomes ready.
    async fn bring_up_pods(&self, namespace: &str) {
        let pods: Api<Pod> = self.api(namespace);
        for (n, pod) in pods.list(&Default::default()).await.unwrap().items.into_iter().enumerate() {
            if pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some()) {
                continue;
            }
            let name = pod.metadata.name.unwrap();
            let ip = format!("10.42.0.{}", 10 + n);
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        }
    }
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn active(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).count()
}

fn addresses(slices: &[Arc<EndpointSlice>], service: &str) -> usize {
    let of = |s: &&Arc<EndpointSlice>| {
        s.metadata.labels.as_ref().is_some_and(|l| l.get("kubernetes.io/service-name").is_some_and(|n| n == service))
    };
    slices.iter().filter(of).flat_map(|s| s.endpoints.iter().flatten()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_lives_and_ends() {
    let cluster = Cluster::start().await;
    cluster
        .until::<ConfigMap>("kube-root-ca.crt in four namespaces", |maps| {
            maps.iter().filter(|m| m.metadata.name.as_deref() == Some("kube-root-ca.crt")).count() == 4
        })
        .await;
    cluster.until::<ServiceAccount>("default accounts", |accounts| accounts.len() >= 4).await;

    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    cluster.create::<Service>("default", service).await;
    cluster.create::<Deployment>("default", deployment("web", 3, "a")).await;
    cluster.until::<Pod>("three pods", |pods| active(pods) == 3).await;
    cluster.bring_up_pods("default").await;
    cluster.until::<EndpointSlice>("three endpoints", |slices| addresses(slices, "web") == 3).await;
    cluster
        .until::<Endpoints>("the same in Endpoints", |all| {
            all.iter().any(|e| {
                e.metadata.name.as_deref() == Some("web")
                    && e.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count() == 3
            })
        })
        .await;
    let complete = |all: &[Arc<Deployment>]| {
        all.iter().any(|d| {
            let s = d.status.as_ref();
            s.and_then(|s| s.available_replicas) == Some(3)
                && s.and_then(|s| s.updated_replicas) == Some(3)
                && s.and_then(|s| s.replicas) == Some(3)
                && s.and_then(|s| s.observed_generation) == d.metadata.generation
                && s.and_then(|s| s.conditions.as_ref())
                    .is_some_and(|c| c.iter().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable")))
        })
    };
    cluster.until::<Deployment>("complete", complete).await;
    cluster
        .until::<Event>("events", |events| {
            ["ScalingReplicaSet", "SuccessfulCreate"].iter().all(|r| events.iter().any(|e| e.reason.as_deref() == Some(*r)))
        })
        .await;

    let pods: Api<Pod> = cluster.api("default");
    let victim = pods.list(&Default::default()).await.unwrap().items.remove(0);
    let (name, uid) = (victim.metadata.name.unwrap(), victim.metadata.uid);
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    cluster.until::<Pod>("the pod is replaced", |pods| active(pods) == 3 && pods.iter().all(|p| p.metadata.uid != uid)).await;
    cluster.until::<EndpointSlice>("its endpoint is gone", |slices| addresses(slices, "web") == 2).await;
    cluster.bring_up_pods("default").await;
    cluster.until::<Deployment>("complete again", complete).await;

    let deployments: Api<Deployment> = cluster.api("default");
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    let of_image = |pods: &[Arc<Pod>], image: &str| {
        pods.iter().filter(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)).count()
    };
    for step in 1..=3 {
        cluster.until::<Pod>("a new pod", |pods| of_image(pods, "b") >= step).await;
        cluster.bring_up_pods("default").await;
    }
    cluster.until::<Pod>("only new pods", |pods| of_image(pods, "a") == 0 && active(pods) == 3).await;
    cluster.until::<Deployment>("rolled out", complete).await;
    let web = deployments.get("web").await.unwrap();
    assert_eq!(web.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "2");

    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until::<ReplicaSet>("no sets", <[_]>::is_empty).await;
    cluster.until::<Pod>("no pods", <[_]>::is_empty).await;
    cluster.until::<EndpointSlice>("no endpoints", |slices| addresses(slices, "web") == 0).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_propagate_as_they_are_told() {
    let cluster = Cluster::start().await;
    let deployments: Api<Deployment> = cluster.api("default");
    cluster.create::<Deployment>("default", deployment("front", 1, "a")).await;
    cluster.until::<Pod>("a pod", |pods| pods.len() == 1).await;
    deployments.delete("front", &DeleteParams::foreground()).await.unwrap();
    cluster.until::<Deployment>("foreground: the Deployment goes last", <[_]>::is_empty).await;
    let pods: Api<Pod> = cluster.api("default");
    assert!(pods.list(&Default::default()).await.unwrap().items.is_empty());

    cluster.create::<Deployment>("default", deployment("orphans", 1, "a")).await;
    cluster.until::<Pod>("a pod", |pods| pods.len() == 1).await;
    deployments.delete("orphans", &DeleteParams::orphan()).await.unwrap();
    cluster.until::<Deployment>("orphan: the Deployment goes alone", <[_]>::is_empty).await;
    cluster
        .until::<ReplicaSet>("its set stays, without an owner", |sets| {
            sets.len() == 1 && sets[0].metadata.owner_references.iter().flatten().next().is_none()
        })
        .await;
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    cluster.create::<Namespace>("", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}})).await;
    cluster.until::<ServiceAccount>("its account", |all| all.iter().any(|a| a.metadata.namespace.as_deref() == Some("gone"))).await;
    cluster.create::<Deployment>("gone", deployment("web", 2, "a")).await;
    cluster.until::<Pod>("pods", |pods| pods.len() == 2).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("gone", &DeleteParams::default()).await.unwrap();
    cluster.until::<Namespace>("the namespace is gone", |all| all.iter().all(|n| n.metadata.name.as_deref() != Some("gone"))).await;
    assert!(cluster.informers.of::<Pod>().lister().is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_network_and_taints() {
    let cluster = Cluster::start().await;
    cluster.create::<Node>("", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await;
    cluster
        .until::<Node>("a podCIDR", |nodes| {
            nodes.iter().any(|n| n.spec.as_ref().is_some_and(|s| s.pod_cidr.as_deref() == Some("10.42.0.0/24")))
        })
        .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let ready =
        |state: &str| json!({"status": {"conditions": [{"type": "Ready", "status": state, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(ready("False"))).await.unwrap();
    let taints = |nodes: &[Arc<Node>]| nodes.iter().flat_map(|n| n.spec.iter()).flat_map(|s| s.taints.iter().flatten()).count();
    cluster.until::<Node>("not-ready taints", |nodes| taints(nodes) == 2).await;
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(ready("True"))).await.unwrap();
    cluster.until::<Node>("no taints", |nodes| taints(nodes) == 0).await;
    assert!(cluster.informers.of::<Node>().lister().get(&Key::cluster("n1")).is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_objects_stay_while_they_are_used() {
    let cluster = Cluster::start().await;
    cluster.until::<ServiceAccount>("default accounts", |accounts| accounts.len() >= 4).await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "fast"},
        "driverName": "none.example", "parameters": {"iops": "9"}});
    cluster.create::<VolumeAttributesClass>("", class).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeAttributesClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create::<PersistentVolumeClaim>("default", claim).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": {"nodeName": "nowhere",
        "containers": [{"name": "c", "image": "a"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.create::<Pod>("default", pod).await;
    cluster.until::<Pod>("the pod is seen", |pods| pods.len() == 1).await;

    let (claims, classes) = (cluster.api::<PersistentVolumeClaim>("default"), Api::<VolumeAttributesClass>::all(cluster.client.clone()));
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    classes.delete("fast", &DeleteParams::default()).await.unwrap();
    let waits = |who: &str| cluster.records.all().iter().any(|r| r.waiting.iter().any(|reason| reason == who));
    for (who, kind) in [("pod default/user uses it", "claim"), ("claim default/data uses it", "class")] {
        tokio::time::timeout(PATIENCE, async {
            while !waits(who) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("the {kind} does not wait: {:#?}", cluster.records.all()));
    }
    let pods: Api<Pod> = cluster.api("default");
    pods.delete("user", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.until::<PersistentVolumeClaim>("the claim goes with its pod", <[_]>::is_empty).await;
    cluster.until::<VolumeAttributesClass>("the class goes with its claim", <[_]>::is_empty).await;
    cluster.stop().await;
}
