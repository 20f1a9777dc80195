//! Another runtime: whatever serves CRI v1 at a unix socket (containerd, CRI-O) runs the pods, driven by the same agent.
//!
//! Our ids of sandboxes and containers are labels there, by which the next agent finds them again. Pod cgroups are ours, as the kubelet's are
//! its own; what a container gets below is the runtime's. How the pod network comes in is told in `cni` and in docs/adr.

mod api;
mod ask;
mod client;
pub mod cni;
mod events;
mod images;
mod names;
mod streams;
mod told;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use self::{
    api::{
        container::{ContainerFilter, ContainerState as CriState, CreateContainerRequest, UpdateContainerResourcesRequest},
        node::CgroupDriver,
        sandbox::{PodSandboxFilter, PodSandboxState, RunPodSandboxRequest},
        stream::{AttachRequest as CriAttach, ExecRequest as CriExec},
    },
    client::{Client, failed},
    names::{Container, Names},
    streams::Wanted,
};
use crate::{
    AttachRequest, ContainerId, ContainerSpec, ContainerStats, ContainerStatus, Credentials, ExecRequest, ExecResult, Handler, Image,
    ImageFilesystem, Naming, PodRuntime, PullError, Resources, RuntimeError, RuntimeEvent, SandboxSpec, SandboxStatus, Streams,
    cgroup::{Cgroup, Hierarchies},
    grpc::{Code, Status},
};

pub use client::{EndpointError, socket};

/// Events that a slow listener may be behind; beyond, it is told to look at everything.
const EVENTS: usize = 1024;
/// How long the runtime waits for a container that was asked to end. The agent kills it when its grace is over, or the next agent does.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of an exec's output that are given back.
const OUTPUT_BYTES: usize = 16 << 10;
/// Containers that are asked for at a time.
const ASKED_AT_ONCE: usize = 8;

/// How a runtime is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// `unix:///run/containerd/containerd.sock`.
    pub endpoint: String,
    /// Tells this cluster's containers from others'.
    pub cluster: String,
    /// Which network namespace is which pod's, for the network plugin: gone with a reboot.
    pub state_dir: PathBuf,
}

/// Why the runtime is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// no endpoint
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// nobody answers
    #[error("the container runtime at {endpoint} does not answer")]
    Call {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// cgroups
    #[error("{0} makes cgroups by systemd, which Coracle does not: set its cgroup driver to cgroupfs (containerd: SystemdCgroup = false)")]
    Driver(String),
    /// a directory or file
    #[error("could not {what}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Inner {
    options: Options,
    client: Client,
    hierarchies: Hierarchies,
    /// Of the sandboxes' own process, where the runtime says it.
    sandbox_image: Option<String>,
    /// What a sandbox may name, as the runtime told last.
    handlers: Mutex<Vec<Handler>>,
    names: Mutex<Names>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Something has begun whose end is to be told.
    begun: Arc<Notify>,
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: RuntimeEvent) {
        // Without a listener there is nobody to be told.
        let _ = self.events.send(event);
    }
}

/// Runs pods with a runtime at a socket.
#[derive(Debug)]
pub struct CriRuntime {
    inner: Arc<Inner>,
    /// `containerd`.
    name: String,
    version: String,
}

fn system<'a>(what: impl Into<String> + 'a) -> impl FnOnce(io::Error) -> RuntimeError + 'a {
    move |source| RuntimeError::System { what: what.into(), source }
}

impl CriRuntime {
    /// Connects, and finds what an earlier process left there.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let client = Client::new(client::socket(&options.endpoint)?);
        let endpoint = options.endpoint.clone();
        let call = |status: Status| OpenError::Call { endpoint: endpoint.clone(), source: io::Error::other(status.message().to_owned()) };
        let version = client.version().await.map_err(call)?;
        let told = client.runtime_config().await.map_err(call)?;
        if told.and_then(|config| config.linux).is_some_and(|linux| linux.cgroup_driver() == CgroupDriver::Systemd) {
            return Err(OpenError::Driver(version.runtime_name));
        }
        let status = client.status().await.map_err(call)?;
        let sandbox_image = status.info.get("config").and_then(|config| told::sandbox_image(config));
        for condition in status.status.unwrap_or_default().conditions.iter().filter(|c| !c.status) {
            tracing::warn!(
                condition = condition.kind,
                reason = condition.reason,
                "the container runtime is not ready: {}",
                condition.message
            );
        }
        let made = fs::create_dir_all(&options.state_dir);
        made.map_err(|source| OpenError::Io { what: format!("make {}", options.state_dir.display()), source })?;
        let hierarchies = Hierarchies::detect().map_err(|source| OpenError::Io { what: "read the cgroup mounts".to_owned(), source })?;
        let inner = Arc::new(Inner {
            options,
            client,
            hierarchies,
            sandbox_image,
            handlers: Mutex::new(told::handlers(&status.runtime_handlers)),
            names: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            begun: Arc::default(),
        });
        find(&inner).await.map_err(call)?;
        tokio::spawn(events::follow(Arc::downgrade(&inner)));
        Ok(Self { inner, version: format!("{}://{}", version.runtime_name, version.runtime_version), name: version.runtime_name })
    }

    fn known(&self, id: &ContainerId) -> Result<Container, RuntimeError> {
        self.inner.names().container(&id.id).cloned().ok_or(RuntimeError::NotFound("container"))
    }

    fn pod_cgroup(&self, spec: &SandboxSpec) -> Result<Cgroup, RuntimeError> {
        Cgroup::new(&self.inner.hierarchies, &spec.cgroup).map_err(|error| RuntimeError::Invalid(error.to_string()))
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        let cgroup = self.pod_cgroup(spec)?;
        cgroup.create().and_then(|()| cgroup.limit(&spec.resources, false)).map_err(system("could not make the pod's cgroup"))?;
        if let Some(netns) = &spec.netns {
            cni::offer(&self.inner.options.state_dir, &spec.uid, netns).map_err(system("could not write down the pod's network"))?;
        }
        let config = Some(ask::sandbox(&self.inner.options.cluster, spec));
        let request = RunPodSandboxRequest { config, runtime_handler: spec.handler.clone() };
        match self.inner.client.run_sandbox(request).await {
            Ok(_) if spec.netns.is_some() && !cni::is_taken(&self.inner.options.state_dir, &spec.uid) => {
                // Another's network has no policy of ours: better no pod than one outside.
                self.remove_halves(&spec.id).await;
                let why = "it did not ask Coracle's network plugin: another configuration stands before 10-coracle.conflist, or its directories are not those of --cni-conf-dir and --cni-bin-dir";
                Err(system("the container runtime gave the pod a network of its own")(io::Error::other(why)))
            }
            Ok(theirs) => Ok(theirs),
            Err(status) => {
                // Whatever of it came to be holds its name.
                self.remove_halves(&spec.id).await;
                Err(failed("could not make a sandbox")(status))
            }
        }
    }

    /// Removes sandboxes that the runtime has under an id of ours though it did not say so.
    async fn remove_halves(&self, id: &str) {
        let mut label_selector = events::ours(&self.inner.options.cluster);
        label_selector.insert(ask::ID.to_owned(), id.to_owned());
        let Ok(list) = self.inner.client.sandboxes(PodSandboxFilter { label_selector, ..PodSandboxFilter::default() }).await else {
            return;
        };
        for sandbox in list.items {
            if let Err(status) = self.inner.client.remove_sandbox(&sandbox.id).await {
                tracing::warn!(error = status.message(), sandbox = sandbox.id, "half a sandbox is left");
            }
        }
    }

    fn stop(&self, container: &Container, grace: Duration) {
        let (client, theirs) = (self.inner.client.clone(), container.theirs.clone());
        // The answer comes when the container has ended, of which the agent hears by an event.
        tokio::spawn(async move {
            if let Err(status) = client.stop(&theirs, grace).await {
                tracing::debug!(error = status.message(), container = theirs, "a container was not stopped");
            }
        });
    }

    async fn status(&self, container: &Container, verbose: bool) -> Result<ContainerStatus, RuntimeError> {
        status(&self.inner, container, verbose).await.map_err(failed("could not ask for a container"))
    }
}

async fn status(inner: &Inner, container: &Container, verbose: bool) -> Result<ContainerStatus, Status> {
    let told = inner.client.container(&container.theirs, verbose).await?;
    let status = told.status.ok_or_else(|| Status::not_found("the container has no status"))?;
    Ok(told::container(&container.spec, &status, told.info.get("info").map(String::as_str), Timestamp::now()))
}

/// Takes in what the runtime has of this cluster.
async fn find(inner: &Inner) -> Result<(), Status> {
    let label_selector = events::ours(&inner.options.cluster);
    let filter = PodSandboxFilter { label_selector: label_selector.clone(), ..PodSandboxFilter::default() };
    let sandboxes = inner.client.sandboxes(filter).await?.items;
    let containers = inner.client.containers(ContainerFilter { label_selector }).await?.containers;
    let mut names = inner.names();
    for sandbox in sandboxes {
        match told::spec::<SandboxSpec>(&sandbox.annotations) {
            Some(spec) => names.put_sandbox(Arc::new(spec), Some(sandbox.id.clone()), sandbox.state() == PodSandboxState::Ready),
            None => tracing::warn!(sandbox = sandbox.id, "a sandbox of this cluster does not say what it is"),
        }
    }
    for container in containers {
        match told::spec::<ContainerSpec>(&container.annotations) {
            Some(spec) => names.put_container(Arc::new(spec), container.id.clone(), container.state() == CriState::Running),
            None => tracing::warn!(container = container.id, "a container of this cluster does not say what it is"),
        }
    }
    Ok(())
}

impl Naming for CriRuntime {
    fn shown(&self, id: &str) -> String {
        format!("{}://{}", self.name, self.inner.names().theirs(id).unwrap_or(id))
    }

    fn known(&self, shown: &str) -> Option<String> {
        let theirs = shown.strip_prefix(&self.name)?.strip_prefix("://")?;
        Some(self.inner.names().called(theirs).map_or_else(|| theirs.to_owned(), |container| container.spec.id.id.clone()))
    }
}

#[async_trait]
impl PodRuntime for CriRuntime {
    fn version(&self) -> String {
        self.version.clone()
    }

    fn naming(&self) -> Option<&dyn Naming> {
        Some(self)
    }

    fn handlers(&self) -> Vec<Handler> {
        self.inner.handlers().clone()
    }

    async fn trouble(&self) -> Result<Option<String>, RuntimeError> {
        let answer = self.inner.client.conditions().await.map_err(failed("could not ask for its conditions"))?;
        // A runtime that was started anew may have others.
        *self.inner.handlers() = told::handlers(&answer.runtime_handlers);
        Ok(told::trouble(&answer.status.unwrap_or_default()))
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let made = self.inner.names().sandbox(&spec.id).is_some_and(|known| known.theirs.is_some());
        if made {
            return Ok(());
        }
        if let Some(why) = told::refusal(&self.inner.handlers(), spec) {
            return Err(RuntimeError::Invalid(why));
        }
        let shared = Arc::new(spec.clone());
        // Known from here on: one that does not come up is removed as one that did.
        self.inner.names().put_sandbox(shared.clone(), None, false);
        let theirs = self.run_sandbox(spec).await?;
        self.inner.names().put_sandbox(shared, Some(theirs), true);
        self.inner.begun.notify_one();
        Ok(())
    }

    async fn update_sandbox(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let spec = self.inner.names().sandbox(id).map(|known| known.spec.clone()).ok_or(RuntimeError::NotFound("sandbox"))?;
        self.pod_cgroup(&spec)?.limit(resources, false).map_err(system("could not change the pod's limits"))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(known) = self.inner.names().sandbox(id).cloned() else { return Ok(()) };
        if let Some(theirs) = &known.theirs {
            self.inner.client.remove_sandbox(theirs).await.map_err(failed("could not remove a sandbox"))?;
        } else {
            self.remove_halves(id).await;
        }
        let cgroup = self.pod_cgroup(&known.spec)?;
        cgroup.kill();
        cgroup.remove().await.map_err(system("could not remove the pod's cgroup"))?;
        cni::withdraw(&self.inner.options.state_dir, &known.spec.uid).map_err(system("could not remove what the pod's network was"))?;
        self.inner.names().forget_sandbox(id);
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let filter = |label_selector| PodSandboxFilter { label_selector, ..PodSandboxFilter::default() };
        let ours = || events::ours(&self.inner.options.cluster);
        let sandboxes = self.inner.client.sandboxes(filter(ours())).await.map_err(failed("could not list the sandboxes"))?;
        let listed = self.inner.client.containers(ContainerFilter { label_selector: ours() }).await;
        let listed = listed.map_err(failed("could not list the containers"))?;
        let known: Vec<Container> = {
            let names = self.inner.names();
            listed.containers.iter().filter_map(|container| names.called(&container.id).cloned()).collect()
        };
        let statuses = futures::stream::iter(known).map(|container| {
            let inner = self.inner.clone();
            async move { status(&inner, &container, false).await }
        });
        let told: Vec<Result<ContainerStatus, Status>> = statuses.buffer_unordered(ASKED_AT_ONCE).collect().await;
        let mut containers = Vec::with_capacity(told.len());
        for status in told {
            match status {
                Ok(status) => containers.push(status),
                // Removed since it was listed.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(failed("could not ask for a container")(status)),
            }
        }
        let mut out = Vec::with_capacity(sandboxes.items.len());
        for sandbox in sandboxes.items {
            let Some(spec) = told::spec::<SandboxSpec>(&sandbox.annotations) else { continue };
            let (own, others) = containers.into_iter().partition(|c| c.spec.id.sandbox == spec.id);
            containers = others;
            let ready = sandbox.state() == PodSandboxState::Ready;
            out.push(SandboxStatus {
                spec,
                ready,
                created_at: told::moment(sandbox.created_at).unwrap_or_else(Timestamp::now),
                containers: own,
            });
        }
        Ok(out)
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let (request, kept) = {
            let names = self.inner.names();
            if names.container(&spec.id.id).is_some() {
                return Ok(());
            }
            let sandbox = names.sandbox(&spec.id.sandbox).ok_or(RuntimeError::NotFound("sandbox"))?;
            let theirs = sandbox.theirs.clone().ok_or(RuntimeError::NotFound("sandbox"))?;
            let target = match &spec.pid_target {
                Some(target) => Some(names.theirs(target).ok_or(RuntimeError::NotFound("container"))?),
                None => None,
            };
            let cluster = &self.inner.options.cluster;
            let request = CreateContainerRequest {
                pod_sandbox_id: theirs,
                config: Some(ask::container(cluster, &sandbox.spec, spec, target)),
                sandbox_config: Some(ask::sandbox(cluster, &sandbox.spec)),
            };
            (request, Arc::new(ContainerSpec { env: Vec::new(), ..spec.clone() }))
        };
        make_log_dir(&request, &spec.log_path).map_err(system("could not make the directory of a container's log"))?;
        let theirs = self.inner.client.create(request).await.map_err(failed("could not make a container"))?;
        self.inner.names().put_container(kept, theirs, false);
        Ok(())
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.known(id)?;
        // Before it runs, so that no end is missed.
        self.inner.names().begin(&id.id);
        self.inner.begun.notify_one();
        self.inner.client.start(&container.theirs).await.map_err(|status| match status.code() {
            Code::NotFound => RuntimeError::NotFound("container"),
            _ => RuntimeError::Start(status.message().to_owned()),
        })
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let container = self.known(id)?;
        // The protocol knows two ways: the container's own signal to stop, and SIGKILL.
        self.stop(&container, if signal == libc::SIGKILL { Duration::ZERO } else { PATIENCE });
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(container) = self.known(id) else { return Ok(()) };
        self.inner.client.stop(&container.theirs, Duration::ZERO).await.map_err(failed("could not stop a container"))?;
        self.inner.client.remove(&container.theirs).await.map_err(failed("could not remove a container"))?;
        self.inner.names().forget_container(&id.id);
        Ok(())
    }

    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.status(&self.known(id)?, true).await
    }

    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError> {
        let container = self.known(id)?;
        let request = UpdateContainerResourcesRequest { container_id: container.theirs, linux: Some(ask::resources(resources)) };
        self.inner.client.update(request).await.map_err(failed("could not change the container's limits"))?;
        let spec = ContainerSpec { resources: resources.clone(), ..(*container.spec).clone() };
        self.inner.names().respecify(Arc::new(spec));
        Ok(())
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.client.reopen_log(&self.known(id)?.theirs).await.map_err(failed("could not reopen a log"))
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, RuntimeError> {
        let container = self.known(id)?;
        match self.inner.client.exec_sync(&container.theirs, command, timeout).await {
            Ok(mut done) => {
                done.stdout.truncate(OUTPUT_BYTES);
                done.stderr.truncate(OUTPUT_BYTES);
                Ok(ExecResult { exit_code: done.exit_code, stdout: done.stdout, stderr: done.stderr, timed_out: false })
            }
            Err(status) if timeout.is_some() && status.code() == Code::DeadlineExceeded => {
                Ok(ExecResult { timed_out: true, ..ExecResult::default() })
            }
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => Err(failed("could not run a command")(status)),
            Err(status) => Err(RuntimeError::Start(status.message().to_owned())),
        }
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Streams, RuntimeError> {
        let container = self.known(id)?;
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr && !request.tty, tty: request.tty };
        let asked = CriExec {
            container_id: container.theirs,
            cmd: request.command.clone(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let prepared = self.inner.client.exec(asked).await.map_err(failed("could not prepare an exec"))?;
        streams::open(&prepared.url, wanted).await.map_err(|error| system("could not open an exec's streams")(io::Error::other(error)))
    }

    async fn attach(&self, id: &ContainerId, request: &AttachRequest) -> Result<Streams, RuntimeError> {
        let container = self.known(id)?;
        let tty = container.spec.tty;
        let wanted = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr && !tty, tty };
        let asked = CriAttach { container_id: container.theirs, stdin: wanted.stdin, tty, stdout: wanted.stdout, stderr: wanted.stderr };
        let prepared = self.inner.client.attach(asked).await.map_err(failed("could not prepare an attach"))?;
        streams::open(&prepared.url, wanted).await.map_err(|error| system("could not open an attach's streams")(io::Error::other(error)))
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        // Behind by more than EVENTS is the one error of this stream.
        BroadcastStream::new(self.inner.events.subscribe()).map(|event| event.unwrap_or(RuntimeEvent::Resync)).boxed()
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        let container = self.known(id)?;
        let figures = self.inner.client.stats(&container.theirs).await.map_err(failed("could not ask for a container's figures"))?;
        let told = told::stats(&figures);
        let sandbox = self.inner.names().sandbox(&container.spec.id.sandbox).map(|known| known.spec.clone());
        let Some(pod) = sandbox.and_then(|spec| self.pod_cgroup(&spec).ok()) else { return Ok(told) };
        // CRI tells little; the rest is in the container's cgroup, which runtimes name by its id.
        let names = [container.theirs.clone(), format!("crio-{}", container.theirs)];
        let ours = names.iter().find_map(|name| pod.child(name).stats().ok());
        Ok(ours.map_or(told, |ours| ContainerStats { rootfs_bytes: told.rootfs_bytes, ..ours }))
    }

    async fn sandbox_stats(&self, id: &str) -> Result<Option<ContainerStats>, RuntimeError> {
        let spec = self.inner.names().sandbox(id).map(|known| known.spec.clone()).ok_or(RuntimeError::NotFound("sandbox"))?;
        // The pod's cgroup is ours, whoever made what is in it.
        self.pod_cgroup(&spec)?.stats().map(Some).map_err(system("could not read the pod's use of resources"))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        images::get(&self.inner, reference).await
    }

    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<Image, PullError> {
        images::pull(&self.inner, reference, credentials).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        images::list(&self.inner).await
    }

    async fn image_filesystem(&self) -> Result<Option<ImageFilesystem>, RuntimeError> {
        images::filesystem(&self.inner).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        images::remove(&self.inner, reference).await
    }
}

/// The runtime makes the log's file and not its directory.
fn make_log_dir(request: &CreateContainerRequest, log: &Path) -> io::Result<()> {
    let directory = request.sandbox_config.as_ref().map(|sandbox| Path::new(&sandbox.log_directory)).unwrap_or(Path::new(""));
    match directory.join(log).parent() {
        Some(parent) if parent.is_absolute() => fs::create_dir_all(parent),
        _ => Ok(()),
    }
}
