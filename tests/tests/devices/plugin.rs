//! A device plugin that speaks v1beta1 as real ones do, in a process of its own.
//!
//! It listens in a directory, registers there, and again whenever the node makes its socket anew. What it is asked it says on its standard
//! output; what it is told on its standard input it does: `ill ID`, `well ID`, `refuse`, `obey`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_agent::devices::v1beta1::{self, *};
use coracle_runtime::grpc::{Channel, Code, Router, Status};
use futures::{StreamExt as _, TryStreamExt as _};
use inotify::{Inotify, WatchMask};
use tokio::{net::UnixListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// What it has, and whether it gives it away.
#[derive(Clone, Default)]
struct State {
    devices: BTreeMap<String, bool>,
    refuses: bool,
}

struct Plugin {
    dir: PathBuf,
    resource: String,
    state: watch::Sender<State>,
}

/// Lives until nobody tells it anything any more.
pub async fn live(dir: PathBuf, resource: String, devices: &str) {
    let state = State { devices: devices.split(',').map(|id| (id.to_owned(), true)).collect(), refuses: false };
    let plugin = Arc::new(Plugin { dir, resource, state: watch::Sender::new(state) });
    let obedient = plugin.clone();
    std::thread::spawn(move || obedient.obey());
    plugin.live().await;
}

impl Plugin {
    /// Serves and registers, from the beginning each time that the node's socket is another one.
    async fn live(self: Arc<Self>) {
        let inotify = Inotify::init().expect("inotify");
        inotify.watches().add(&self.dir, WatchMask::CREATE | WatchMask::MOVED_TO).expect("the directory is there");
        let mut created = inotify.into_event_stream([0; 4096]).expect("a stream");
        loop {
            let stop = CancellationToken::new();
            let own = self.dir.join("test-plugin.sock");
            let _ = std::fs::remove_file(&own);
            let served = tokio::spawn(self.clone().router().serve(UnixListener::bind(&own).expect("a socket"), stop.clone()));
            self.register().await;
            loop {
                let event = created.try_next().await.expect("an event").expect("there is always another one");
                if event.name.is_some_and(|name| Path::new(&name) == Path::new("kubelet.sock")) {
                    break;
                }
            }
            stop.cancel();
            served.await.expect("it ends");
        }
    }

    async fn register(&self) {
        let request = RegisterRequest {
            version: v1beta1::VERSION.into(),
            endpoint: "test-plugin.sock".into(),
            resource_name: self.resource.clone(),
            options: None,
        };
        let node = Channel::new(self.dir.join("kubelet.sock"));
        let _: Empty = node.unary(v1beta1::REGISTER, request, None).await.expect("the node takes it");
        println!("registered");
    }

    fn router(self: Arc<Self>) -> Router {
        let (listed, given) = (self.clone(), self.clone());
        Router::default()
            .unary(v1beta1::OPTIONS, |_: Empty| async {
                Ok(DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true })
            })
            .streaming(v1beta1::LIST_AND_WATCH, move |_: Empty| {
                let state = listed.state.subscribe();
                async move { Ok(lists(state)) }
            })
            .unary(v1beta1::PREFER, |request: PreferredAllocationRequest| async move {
                let request = request.container_requests.into_iter().next().unwrap_or_default();
                println!("prefer {} of {}", request.allocation_size, request.available.join(","));
                // The last ones first.
                let rest = request.available.iter().rev().filter(|id| !request.must_include.contains(id));
                let device_ids = request.must_include.iter().chain(rest).take(request.allocation_size as usize).cloned().collect();
                Ok(PreferredAllocationResponse { container_responses: vec![ContainerPreferredAllocationResponse { device_ids }] })
            })
            .unary(v1beta1::ALLOCATE, move |request: AllocateRequest| {
                let answer = given.allocate(&request);
                async move { answer }
            })
            .unary(v1beta1::PRE_START, |request: PreStartContainerRequest| async move {
                println!("start {}", request.devices_ids.join(","));
                Ok(Empty {})
            })
    }

    fn allocate(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status> {
        if self.state.borrow().refuses {
            return Err(Status::new(Code::FailedPrecondition, "not today"));
        }
        let answer = |request: &ContainerAllocateRequest| {
            let ids: BTreeSet<&str> = request.devices_ids.iter().map(String::as_str).collect();
            let ids = ids.into_iter().collect::<Vec<_>>().join(",");
            println!("allocate {ids}");
            ContainerAllocateResponse {
                envs: BTreeMap::from([("TEST_DEVICES".into(), ids), ("SAID_TWICE".into(), "by the plugin".into())]),
                mounts: vec![Mount { container_path: "/plugin".into(), host_path: "/etc/os-release".into(), read_only: true }],
                devices: vec![DeviceSpec {
                    container_path: "/dev/test".into(),
                    host_path: "/dev/cpu_dma_latency".into(),
                    permissions: "r".into(),
                }],
                annotations: BTreeMap::new(),
                cdi_devices: Vec::new(),
            }
        };
        Ok(AllocateResponse { container_responses: request.container_requests.iter().map(answer).collect() })
    }

    /// Does as it is told, and ends with who tells.
    fn obey(&self) {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            self.state.send_modify(|state| match line.split_once(' ') {
                Some(("ill", id)) => drop(state.devices.insert(id.to_owned(), false)),
                Some(("well", id)) => drop(state.devices.insert(id.to_owned(), true)),
                _ => state.refuses = line == "refuse",
            });
            println!("done {line}");
        }
        std::process::exit(0);
    }
}

/// All devices, and all of them again after each change.
fn lists(state: watch::Receiver<State>) -> impl futures::Stream<Item = Result<ListAndWatchResponse, Status>> + Send {
    futures::stream::unfold((state, true), |(mut state, first)| async move {
        if !first {
            state.changed().await.ok()?;
        }
        let device = |(id, well): (&String, &bool)| Device {
            id: id.clone(),
            health: if *well { v1beta1::HEALTHY } else { "Unhealthy" }.into(),
            topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 0 }] }),
        };
        let list = ListAndWatchResponse { devices: state.borrow_and_update().devices.iter().map(device).collect() };
        Some((Ok(list), (state, false)))
    })
    .boxed()
}
