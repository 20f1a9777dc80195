//! The PodResources API, `v1`: tells monitors of the node which container has which devices.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use coracle_runtime::grpc::{Code, Router, Status};
use k8s_openapi::api::core::v1::Pod;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::{
    Devices, socket,
    v1beta1::{Empty, NumaNode, TopologyInfo},
};
use crate::{
    pod::spec::{self, Kind},
    pods::Pods,
};

/// Where the socket is, below the node's directory for such things.
pub const DIRECTORY: &str = "pod-resources";
/// Requests a second that are answered: upstream's figure.
const RATE: f64 = 100.0;
/// Requests at once: upstream's figure.
const BURST: f64 = 10.0;

const LIST: &str = "/v1.PodResourcesLister/List";
const ALLOCATABLE: &str = "/v1.PodResourcesLister/GetAllocatableResources";
const GET: &str = "/v1.PodResourcesLister/Get";

/// What can be given away.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocatableResourcesResponse {
    /// Healthy devices.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<ContainerDevices>,
}

/// All pods.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListPodResourcesResponse {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub pod_resources: Vec<PodResources>,
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PodResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Those that live as long as it.
    #[prost(message, repeated, tag = "3")]
    pub containers: Vec<ContainerResources>,
}

/// A container. CPUs and memory of its own it has none: the node pins nothing.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerResources {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One entry a device.
    #[prost(message, repeated, tag = "2")]
    pub devices: Vec<ContainerDevices>,
}

/// Devices of a resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerDevices {
    /// The resource.
    #[prost(string, tag = "1")]
    pub resource_name: String,
    /// Which.
    #[prost(string, repeated, tag = "2")]
    pub device_ids: Vec<String>,
    /// Near which memory they are.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// Asks for one pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetPodResourcesRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub pod_name: String,
    /// Its namespace.
    #[prost(string, tag = "2")]
    pub pod_namespace: String,
}

/// One pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GetPodResourcesResponse {
    /// It.
    #[prost(message, optional, tag = "1")]
    pub pod_resources: Option<PodResources>,
}

/// Serves `root`'s socket until `stop`.
pub async fn serve(root: PathBuf, devices: Arc<Devices>, pods: Pods, stop: CancellationToken) {
    let dir = root.join(DIRECTORY);
    let listener = match socket::listen(&dir) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, dir = %dir.display(), "this node tells no monitor who has which device"),
    };
    let bucket = Arc::new(Mutex::new(Bucket::full(Instant::now())));
    let may = move || {
        let granted = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if granted { Ok(()) } else { Err(Status::new(Code::ResourceExhausted, "rejected by rate limit")) }
    };
    let router = Router::default()
        .unary(LIST, {
            let (devices, pods, may) = (devices.clone(), pods.clone(), may.clone());
            move |_: Empty| {
                let answer = may().map(|()| list(&devices, &pods));
                async move { answer }
            }
        })
        .unary(GET, {
            let (devices, may) = (devices.clone(), may.clone());
            move |request: GetPodResourcesRequest| {
                let answer = may().and_then(|()| get(&devices, &pods, &request));
                async move { answer }
            }
        })
        .unary(ALLOCATABLE, move |_: Empty| {
            let answer = may().map(|()| allocatable(&devices));
            async move { answer }
        });
    router.serve(listener, stop).await;
    let _ = socket::remove(&dir.join(socket::NAME));
}

fn list(devices: &Devices, pods: &Pods) -> ListPodResourcesResponse {
    let over = |pod: &Pod| matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let active = pods.list().into_iter().filter(|(pod, facts)| !facts.over && !over(pod));
    ListPodResourcesResponse { pod_resources: active.map(|(pod, _)| of(devices, &pod)).collect() }
}

fn get(devices: &Devices, pods: &Pods, request: &GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
    let GetPodResourcesRequest { pod_name, pod_namespace } = request;
    let Some((pod, _)) = pods.find(pod_namespace, pod_name, None) else {
        return Err(Status::new(Code::Unknown, format!("pod {pod_name} in namespace {pod_namespace} not found")));
    };
    Ok(GetPodResourcesResponse { pod_resources: Some(of(devices, &pod)) })
}

fn of(devices: &Devices, pod: &Pod) -> PodResources {
    let state = devices.lock();
    let parts = spec::parts(pod);
    let containers = parts.iter().filter(|p| matches!(p.kind, Kind::Main | Kind::Sidecar)).map(|part| {
        let grants = state.book.grants(spec::uid(pod), &part.spec.name).into_iter().flatten();
        let devices = grants.flat_map(|(name, grant)| grant.devices.iter().map(|(id, nodes)| one(name, id, nodes)));
        ContainerResources { name: part.spec.name.clone(), devices: devices.collect() }
    });
    PodResources { name: spec::name(pod).to_owned(), namespace: spec::namespace(pod).to_owned(), containers: containers.collect() }
}

fn allocatable(devices: &Devices) -> AllocatableResourcesResponse {
    let state = devices.lock();
    let all = state.book.allocatable().flat_map(|(name, list)| list.into_iter().map(move |(id, nodes)| one(name, id, nodes)));
    AllocatableResourcesResponse { devices: all.collect() }
}

fn one(resource: &str, id: &str, nodes: &[i64]) -> ContainerDevices {
    let topology = || TopologyInfo { nodes: nodes.iter().map(|id| NumaNode { id: *id }).collect() };
    ContainerDevices { resource_name: resource.to_owned(), device_ids: vec![id.to_owned()], topology: (!nodes.is_empty()).then(topology) }
}

/// So many requests a second, and a few at once.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        (self.tokens, self.at) = ((self.tokens + grown).min(BURST), now);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let taken = |bucket: &mut Bucket, at: u64| (0..100).filter(|_| bucket.take(start + Duration::from_millis(at))).count();
        assert_eq!(taken(&mut bucket, 0), 10);
        assert_eq!(taken(&mut bucket, 55), 5);
        assert_eq!(taken(&mut bucket, 10_000), 10);
    }

    #[test]
    fn on_the_wire() {
        let device = one("e.com/d", "x", &[1]);
        assert_eq!(device.encode_to_vec(), b"\x0a\x07e.com/d\x12\x01x\x1a\x04\x0a\x02\x08\x01");
        assert_eq!(one("r", "x", &[]).topology, None);
    }
}
