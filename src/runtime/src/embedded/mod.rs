//! The runtime in this very binary: images and containers by a shim per pod.

mod client;
mod program;
mod sandbox;
mod streams;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use self::sandbox::Sandbox;
use crate::{
    AttachRequest, ContainerId, ContainerSpec, ContainerState, ContainerStats, ContainerStatus, Credentials, ExecRequest, ExecResult,
    Handler, Image, PodRuntime, PullError, Resources, RuntimeError, RuntimeEvent, SandboxSpec, SandboxStatus, Seccomp, Security, Streams,
    apparmor::Confinement,
    causes::causes,
    cdi,
    cgroup::{Cgroup, Hierarchies},
    handlers::{self, Handlers},
    images::{
        ImageStore, PullOptions, Registries, StoreError,
        arrivals::{self, Arrivals},
    },
    process::{capability, execute, seccomp},
    shim::{
        protocol::{Reply, Request},
        state,
    },
};

/// Events that a slow listener may be behind; beyond, it is told to look at everything.
const EVENTS: usize = 1024;
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// How long a shim may take to end.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Compiled filters that are kept: one per set of capabilities in use.
const FILTERS: usize = 64;

/// Where the runtime keeps what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images and writable layers; survives a reboot.
    pub data_dir: PathBuf,
    /// Sandboxes; empty after a reboot: `/run/coracle/<cluster>`.
    pub state_dir: PathBuf,
    /// Cgroup of this cluster, relative to the hierarchies' roots: `/coracle`. The shims live below it.
    pub cgroup_prefix: String,
    /// The program that is also the shim.
    pub program: PathBuf,
    /// Other runtimes, which RuntimeClasses name.
    pub handlers: Handlers,
}

/// Runs pods with what is in this binary.
#[derive(Debug)]
pub struct EmbeddedRuntime {
    options: Options,
    program: PathBuf,
    images: Arc<ImageStore>,
    hierarchies: Hierarchies,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    /// One change of the set of sandboxes at a time per sandbox.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    filters: Mutex<HashMap<u64, Vec<Vec<u8>>>>,
    confinement: Confinement,
    events: broadcast::Sender<RuntimeEvent>,
    registries: Registries,
    arrivals: Option<Arrivals>,
}

/// Why the runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// a directory or file
    #[error("could not {what}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// the images
    #[error("could not open the image store")]
    Images(#[from] StoreError),
}

fn system<'a>(what: impl Into<String> + 'a) -> impl FnOnce(io::Error) -> RuntimeError + 'a {
    move |source| RuntimeError::System { what: what.into(), source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedRuntime {
    /// Opens the runtime and connects to every shim that an earlier process left.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let failed = |what: String| move |source| OpenError::Io { what, source };
        for dir in [&options.data_dir, &options.state_dir] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(format!("make {}", dir.display())))?;
        }
        let containers = options.data_dir.join("containers");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&containers).map_err(failed(format!("make {}", containers.display())))?;
        let images = Arc::new(ImageStore::open(&options.data_dir)?);
        let program = program::keep(&options.program, &options.data_dir.join("bin"))
            .map_err(failed(format!("keep {}", options.program.display())))?;
        let hierarchies = Hierarchies::detect().map_err(failed("read the cgroup mounts".to_owned()))?;
        Cgroup::new(&hierarchies, &options.cgroup_prefix).map_err(failed("use the cgroup prefix".to_owned()))?;
        let runtime = Self {
            program,
            images,
            hierarchies,
            sandboxes: Mutex::default(),
            busy: Mutex::default(),
            filters: Mutex::default(),
            confinement: Confinement::default(),
            events: broadcast::channel(EVENTS).0,
            registries: Registries::default(),
            arrivals: None,
            options,
        };
        runtime.reconnect().await.map_err(failed(format!("read {}", runtime.options.state_dir.display())))?;
        Ok(runtime)
    }

    /// The images, for those who import or show them.
    pub fn image_store(&self) -> &Arc<ImageStore> {
        &self.images
    }

    /// Lets images come: from these registries by name, and by themselves as archives that are put into a directory. What an earlier process left
    /// half done is taken away first.
    pub async fn supply(&mut self, registries: Registries, archives: PathBuf) -> Result<(), OpenError> {
        self.registries = registries;
        let images = Arc::clone(&self.images);
        match tokio::task::spawn_blocking(move || images.gc()).await {
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "what is left of broken pulls is not removed"),
            Err(error) => tracing::warn!(%error, "what is left of broken pulls is not removed"),
            Ok(Ok(_)) => {}
        }
        let events = self.events.clone();
        let changed = move || {
            // Nobody may listen.
            let _ = events.send(RuntimeEvent::ImagesChanged);
        };
        self.arrivals = Some(arrivals::follow(Arc::clone(&self.images), archives, changed)?);
        Ok(())
    }

    async fn reconnect(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.options.state_dir)?.flatten() {
            match Sandbox::load(&entry.path()) {
                Ok(sandbox) => found.push(Arc::new(sandbox)),
                // Not a sandbox, or one whose creation was cut off before its first file.
                Err(error) => tracing::debug!(path = %entry.path().display(), %error, "not a sandbox"),
            }
        }
        futures::future::join_all(found.iter().map(|sandbox| sandbox.follow(self.events.clone()))).await;
        let known: HashSet<String> = found.iter().flat_map(|sandbox| sandbox.ids()).collect();
        *lock(&self.sandboxes) = found.into_iter().map(|sandbox| (sandbox.record.spec.id.clone(), sandbox)).collect();
        // Writable layers of containers that a reboot ended.
        for entry in fs::read_dir(self.options.data_dir.join("containers"))?.flatten() {
            if !entry.file_name().to_str().is_some_and(|id| known.contains(id)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, RuntimeError> {
        lock(&self.sandboxes).get(id).cloned().ok_or(RuntimeError::NotFound("sandbox"))
    }

    fn known(&self, id: &ContainerId) -> Result<(Arc<Sandbox>, state::Container, state::Life), RuntimeError> {
        let sandbox = self.sandbox(&id.sandbox).map_err(|_| RuntimeError::NotFound("container"))?;
        let (container, life) = sandbox.get(&id.id).ok_or(RuntimeError::NotFound("container"))?;
        Ok((sandbox, container, life))
    }

    async fn alone(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = lock(&self.busy).entry(id.to_owned()).or_default().clone();
        mutex.lock_owned().await
    }

    fn pod_cgroup(&self, sandbox: &SandboxSpec) -> Result<Cgroup, RuntimeError> {
        Cgroup::new(&self.hierarchies, &sandbox.cgroup).map_err(|error| RuntimeError::Invalid(error.to_string()))
    }

    /// The program that makes the sandbox's containers, if it is another one.
    fn runtime_of(&self, spec: &SandboxSpec) -> Result<Option<state::OciRuntime>, RuntimeError> {
        if spec.handler.is_empty() || spec.handler == handlers::OWN {
            return Ok(None);
        }
        let missing = || RuntimeError::Invalid(format!("failed to get sandbox runtime: no runtime for {:?} is configured", spec.handler));
        let program = self.options.handlers.program(&spec.handler).ok_or_else(missing)?;
        if spec.user_namespace.is_some() {
            return Err(RuntimeError::Invalid(format!("RuntimeClass handler {:?} does not support user namespaces", spec.handler)));
        }
        Ok(Some(state::OciRuntime { program }))
    }

    /// The system call filters of a container.
    fn filters(&self, spec: &ContainerSpec) -> Result<Vec<Vec<u8>>, RuntimeError> {
        let security = &spec.security;
        let invalid = |error: &dyn std::error::Error| RuntimeError::Invalid(error.to_string());
        let capabilities =
            capability::set(security.privileged, &security.add_capabilities, &security.drop_capabilities).map_err(|e| invalid(&e))?;
        if security.privileged {
            return Ok(Vec::new());
        }
        let bytes =
            |programs: Vec<seccompiler::BpfProgram>| programs.iter().map(|program| execute::filter_bytes(program)).collect::<Vec<_>>();
        match &security.seccomp {
            Seccomp::Unconfined => Ok(Vec::new()),
            Seccomp::RuntimeDefault => {
                let mut kept = lock(&self.filters);
                if let Some(filters) = kept.get(&capabilities) {
                    return Ok(filters.clone());
                }
                let filters = bytes(seccomp::default_profile().compile(capabilities).map_err(|e| invalid(&e))?);
                if kept.len() < FILTERS {
                    kept.insert(capabilities, filters.clone());
                }
                Ok(filters)
            }
            Seccomp::Localhost(path) => {
                let programs = profile(path)?.compile(capabilities);
                Ok(bytes(programs.map_err(|error| bad_profile(path, &error))?))
            }
        }
    }

    async fn remove(&self, sandbox: &Sandbox, id: &ContainerId) -> Result<(), RuntimeError> {
        let Some((container, life)) = sandbox.get(&id.id) else { return Ok(()) };
        let cgroup = self.pod_cgroup(&sandbox.record.spec)?.child(&id.id);
        if life.pid.is_some() {
            cgroup.kill();
            let ids = [id.id.clone()];
            if tokio::time::timeout(KILLED, sandbox.ended(&ids)).await.is_err() {
                return Err(system(format!("container {} is killed and does not end", id.id))(io::ErrorKind::TimedOut.into()));
            }
        }
        if sandbox.is_alive() {
            match client::ask(&sandbox.dir, Request::Forget { id: id.id.clone() }).await {
                Ok(_) | Err(RuntimeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.clean(&sandbox.dir.join(&id.id), &container.writable, &cgroup).await?;
        sandbox.forget(&id.id);
        Ok(())
    }

    /// Takes away a sandbox with all that it has on the machine; the caller has it [`alone`](Self::alone).
    async fn take_away(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(sandbox) = self.sandbox(id) else {
            lock(&self.busy).remove(id);
            return Ok(());
        };
        let cgroup = self.pod_cgroup(&sandbox.record.spec)?;
        cgroup.kill();
        let ids = sandbox.ids();
        if tokio::time::timeout(KILLED, sandbox.ended(&ids)).await.is_err() {
            return Err(system(format!("containers of sandbox {id} are killed and do not end"))(io::ErrorKind::TimedOut.into()));
        }
        if sandbox.is_alive() {
            let _ = client::ask(&sandbox.dir, Request::Shutdown).await;
            if tokio::time::timeout(SHUTDOWN, sandbox.lost()).await.is_err() {
                tracing::warn!(sandbox = id, "shim does not end, and is killed");
            }
        }
        if let Some(pid) = sandbox.shim().and_then(|who| rustix::process::Pid::from_raw(i32::try_from(who.pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = tokio::time::timeout(SHUTDOWN, sandbox.lost()).await;
        }
        for id in ids {
            if let Some((container, _)) = sandbox.get(&id) {
                self.clean(&sandbox.dir.join(&id), &container.writable, &cgroup.child(&id)).await?;
            }
        }
        unmount(&sandbox.dir.join("shm"));
        cgroup.remove().await.map_err(system("could not remove the pod's cgroup"))?;
        remove_dir(&sandbox.dir).map_err(system("could not remove the sandbox's files"))?;
        lock(&self.sandboxes).remove(id);
        lock(&self.busy).remove(id);
        Ok(())
    }

    /// Starts the shim of a sandbox that is written down, and follows it.
    async fn bring_up(&self, spec: &SandboxSpec, sandbox: &Arc<Sandbox>) -> Result<(), RuntimeError> {
        let (program, dir) = (self.program.clone(), sandbox.dir.clone());
        let ready = tokio::task::spawn_blocking(move || program::start_shim(&program, &dir))
            .await
            .map_err(|e| system("starting a shim")(io::Error::other(e)))?;
        match ready.map_err(system("could not start the pod's shim"))?.as_str() {
            "ready" => sandbox.follow(self.events.clone()).await,
            text => return Err(RuntimeError::Invalid(format!("sandbox of {}/{}: {text}", spec.namespace, spec.name))),
        }
        if sandbox.is_alive() { Ok(()) } else { Err(system("the pod's shim is gone again")(io::ErrorKind::ConnectionAborted.into())) }
    }

    /// Takes away what a container has on the machine.
    async fn clean(&self, dir: &Path, writable: &Path, cgroup: &Cgroup) -> Result<(), RuntimeError> {
        // Shims of before made the root of a container with a shared volume in the node's own namespace.
        unmount(&dir.join("rootfs"));
        cgroup.remove().await.map_err(system("could not remove a cgroup"))?;
        remove_dir(writable).and_then(|()| remove_dir(dir)).map_err(system("could not remove a container's files"))
    }
}

fn bad_profile(path: &Path, error: &dyn std::error::Error) -> RuntimeError {
    RuntimeError::Invalid(format!("cannot load seccomp profile {}: {error}", path.display()))
}

/// A seccomp profile of the node.
fn profile(path: &Path) -> Result<seccomp::Profile, RuntimeError> {
    let mut profile = Vec::new();
    let read = fs::File::open(path).and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, seccomp::PROFILE_BYTES), &mut profile));
    read.map_err(|error| bad_profile(path, &error))?;
    seccomp::Profile::parse(&profile).map_err(|error| bad_profile(path, &error))
}

/// The filter of a container as another runtime takes it.
fn seccomp_of(security: &Security) -> Result<Option<serde_json::Value>, RuntimeError> {
    let capabilities = capability::set(security.privileged, &security.add_capabilities, &security.drop_capabilities)
        .map_err(|error| RuntimeError::Invalid(error.to_string()))?;
    Ok(match &security.seccomp {
        _ if security.privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::RuntimeDefault => Some(seccomp::default_profile().to_oci(capabilities)),
        Seccomp::Localhost(path) => Some(profile(path)?.to_oci(capabilities)),
    })
}

fn unmount(path: &Path) {
    // Nearly never mounted here (`shim::create`); then this is EINVAL.
    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW);
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names of sandboxes and containers become names of files.
fn check_id(id: &str) -> Result<(), RuntimeError> {
    let good = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if good { Ok(()) } else { Err(RuntimeError::Invalid(format!("{id:?} is no id of a sandbox or container"))) }
}

#[async_trait]
impl PodRuntime for EmbeddedRuntime {
    fn version(&self) -> String {
        concat!("coracle://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn handlers(&self) -> Vec<Handler> {
        let own = ["", handlers::OWN].map(|name| Handler { name: name.to_owned(), recursive_read_only: true, user_namespaces: true });
        // What is mounted in their containers is mounted by our hand, read-only parts too.
        let others =
            self.options.handlers.names().into_iter().map(|name| Handler { name, recursive_read_only: true, user_namespaces: false });
        own.into_iter().chain(others).collect()
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        check_id(&spec.id)?;
        let _alone = self.alone(&spec.id).await;
        let known = lock(&self.sandboxes).get(&spec.id).cloned();
        match known {
            Some(known) if known.is_alive() => return Ok(()),
            // It did not come up the last time, and what it left could not be taken away then.
            Some(known) if known.ids().is_empty() => self.take_away(&spec.id).await?,
            Some(_) => return Err(system(format!("sandbox {} has no shim any more", spec.id))(io::ErrorKind::ConnectionAborted.into())),
            None => {}
        }
        self.pod_cgroup(spec)?;
        let dir = self.options.state_dir.join(&spec.id);
        let shim_cgroup = format!("{}/shims", self.options.cgroup_prefix.trim_end_matches('/'));
        let runtime = self.runtime_of(spec)?;
        let record = state::Sandbox { spec: spec.clone(), created_at: Timestamp::now(), shim_cgroup, runtime };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(system("could not make the sandbox's directory"))?;
        state::write(&dir.join(state::SANDBOX), &record).map_err(system("could not write the sandbox's state"))?;
        let sandbox = Arc::new(Sandbox::new(record, dir));
        // Known from here on: one whose remains cannot be taken away is removed as one that was lost.
        lock(&self.sandboxes).insert(spec.id.clone(), Arc::clone(&sandbox));
        let up = self.bring_up(spec, &sandbox).await;
        if up.is_err()
            && let Err(error) = self.take_away(&spec.id).await
        {
            tracing::warn!(sandbox = spec.id, %error, "what a sandbox that did not come up left is not taken away yet");
        }
        up
    }

    async fn update_sandbox(&self, id: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(id)?;
        // What is written down stays as it was created: a shim reads it once, and a pod's next sandbox is made from its spec.
        self.pod_cgroup(&sandbox.record.spec)?.limit(resources, false).map_err(system("could not change the pod's limits"))
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let _alone = self.alone(id).await;
        self.take_away(id).await
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(lock(&self.sandboxes).values().map(|sandbox| sandbox.status()).collect())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        check_id(&spec.id.id)?;
        let sandbox = self.sandbox(&spec.id.sandbox)?;
        let dir = sandbox.dir.join(&spec.id.id);
        if let Some((_, life)) = sandbox.get(&spec.id.id)
            && (life.pid.is_some() || matches!(life.state, ContainerState::Exited { .. }))
        {
            return Ok(());
        }
        let image = self.images.record(&spec.image).map_err(|e| RuntimeError::Invalid(e.to_string()))?;
        let (image_id, image) = image.ok_or_else(|| RuntimeError::Invalid(format!("image {} is not here", spec.image)))?;
        let mut image_layers = Vec::with_capacity(spec.image_mounts.len());
        for mount in &spec.image_mounts {
            let found = self.images.record(&mount.image).map_err(|e| RuntimeError::Invalid(e.to_string()))?;
            let (id, record) = found.ok_or_else(|| RuntimeError::Invalid(format!("image {} is not here", mount.image)))?;
            image_layers.push(state::ImageLayers { image_id: id.to_string(), layers: self.images.layer_dirs(&record) });
        }
        let mut described = spec.clone();
        cdi::inject(&mut described, &cdi::DIRECTORIES.map(PathBuf::from)).map_err(|e| RuntimeError::Invalid(causes(&e)))?;
        let container = state::Container {
            spec: described,
            image_id: image_id.to_string(),
            defaults: image.defaults.clone(),
            created_at: Timestamp::now(),
            layers: self.images.layer_dirs(&image),
            image_layers,
            writable: self.options.data_dir.join("containers").join(&spec.id.id),
            filters: self.filters(spec)?,
            seccomp: if sandbox.record.runtime.is_some() { seccomp_of(&spec.security)? } else { None },
            apparmor: self.confinement.profile(&spec.security).await.map_err(|e| RuntimeError::Invalid(causes(&e)))?,
        };
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&dir).and_then(|()| make(&container.writable)).map_err(system("could not make the container's directories"))?;
        state::write(&dir.join(state::CONTAINER), &container).map_err(system("could not write the container's state"))?;
        let writable = container.writable.clone();
        sandbox.insert(container);
        match client::ask(&sandbox.dir, Request::Create { id: spec.id.id.clone() }).await {
            Ok(Reply::Life(life)) => {
                sandbox.change(&spec.id.id, |_, known| {
                    // Its exit may have been told already.
                    if !matches!(known.state, ContainerState::Exited { .. }) {
                        *known = life;
                    }
                });
                Ok(())
            }
            Ok(other) => Err(system(format!("unexpected answer {other:?}"))(io::ErrorKind::InvalidData.into())),
            Err(error) => {
                let cgroup = self.pod_cgroup(&sandbox.record.spec)?.child(&spec.id.id);
                cgroup.kill();
                if let Err(left) = self.clean(&dir, &writable, &cgroup).await {
                    tracing::warn!(container = spec.id.id, error = %left, "left behind");
                }
                sandbox.forget(&spec.id.id);
                Err(error)
            }
        }
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (sandbox, ..) = self.known(id)?;
        match client::ask(&sandbox.dir, Request::Start { id: id.id.clone() }).await {
            Ok(Reply::Life(life)) => {
                sandbox.change(&id.id, |_, known| {
                    if !matches!(known.state, ContainerState::Exited { .. }) {
                        *known = life;
                    }
                });
                Ok(())
            }
            Ok(other) => Err(system(format!("unexpected answer {other:?}"))(io::ErrorKind::InvalidData.into())),
            Err(error) => {
                // The shim has written down the end that goes with it.
                if let (RuntimeError::Start(_), Ok(life)) =
                    (&error, state::read::<state::Life>(&sandbox.dir.join(&id.id).join(state::LIFE)))
                {
                    sandbox.change(&id.id, |_, known| known.state = life.state);
                }
                Err(error)
            }
        }
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let (sandbox, ..) = self.known(id)?;
        match client::ask(&sandbox.dir, Request::Signal { id: id.id.clone(), signal }).await {
            // It has exited: the event is on its way.
            Ok(_) | Err(RuntimeError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.sandbox(&id.sandbox) {
            Ok(sandbox) => self.remove(&sandbox, id).await,
            Err(_) => Ok(()),
        }
    }

    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let (_, container, life) = self.known(id)?;
        Ok(sandbox::status_of(&container, &life))
    }

    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError> {
        let (sandbox, mut container, _) = self.known(id)?;
        let cgroup = self.pod_cgroup(&sandbox.record.spec)?.child(&id.id);
        cgroup.limit(resources, true).map_err(system("could not change the container's limits"))?;
        container.spec.resources = resources.clone();
        state::write(&sandbox.dir.join(&id.id).join(state::CONTAINER), &container)
            .map_err(system("could not write the container's state"))?;
        sandbox.change(&id.id, |known, _| *known = container);
        Ok(())
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (sandbox, ..) = self.known(id)?;
        client::ask(&sandbox.dir, Request::Reopen { id: id.id.clone() }).await.map(drop)
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, RuntimeError> {
        let (sandbox, ..) = self.known(id)?;
        streams::exec_sync(&sandbox.dir, &id.id, command, timeout).await
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Streams, RuntimeError> {
        let (sandbox, ..) = self.known(id)?;
        streams::exec(&sandbox.dir, &id.id, request).await
    }

    async fn attach(&self, id: &ContainerId, request: &AttachRequest) -> Result<Streams, RuntimeError> {
        let (sandbox, container, _) = self.known(id)?;
        streams::attach(&sandbox.dir, &id.id, container.spec.tty, request).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        // Behind by more than EVENTS is the one error of this stream.
        BroadcastStream::new(self.events.subscribe()).map(|event| event.unwrap_or(RuntimeEvent::Resync)).boxed()
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        let (sandbox, container, _) = self.known(id)?;
        let cgroup = self.pod_cgroup(&sandbox.record.spec)?.child(&id.id);
        let measure = move || -> io::Result<ContainerStats> {
            let (rootfs_bytes, rootfs_inodes) = disk_use(&container.writable.join("upper"));
            Ok(ContainerStats { rootfs_bytes, rootfs_inodes, ..cgroup.stats()? })
        };
        let read = tokio::task::spawn_blocking(measure).await.map_err(io::Error::other).flatten();
        read.map_err(system("could not read the container's use of resources"))
    }

    async fn sandbox_stats(&self, sandbox: &str) -> Result<Option<ContainerStats>, RuntimeError> {
        let cgroup = self.pod_cgroup(&self.sandbox(sandbox)?.record.spec)?;
        let read = tokio::task::spawn_blocking(move || cgroup.stats()).await.map_err(io::Error::other).flatten();
        read.map(Some).map_err(system("could not read the pod's use of resources"))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        self.images.get(reference).map_err(store)
    }

    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<Image, PullError> {
        let options = PullOptions { credentials, registries: self.registries.clone(), progress: None };
        self.images.pull(reference, &options).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.images.list().map_err(store)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        let used: HashSet<String> = lock(&self.sandboxes).values().flat_map(|sandbox| sandbox.images()).collect();
        let (images, reference) = (Arc::clone(&self.images), reference.to_owned());
        let removed = tokio::task::spawn_blocking(move || images.remove(&reference, &used)).await;
        removed.map_err(|e| system("could not remove an image")(io::Error::other(e)))?.map_err(store)
    }
}

fn store(error: StoreError) -> RuntimeError {
    match error {
        StoreError::InUse(_) | StoreError::Name(_) => RuntimeError::Invalid(error.to_string()),
        other => system("the image store failed")(io::Error::other(other)),
    }
}

/// Entries of a container's own files that are counted: one with endless files costs the node a second at most.
const COUNTED_ENTRIES: usize = 1_000_000;

/// Bytes and inodes that are below a directory.
fn disk_use(dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut inodes, mut left) = (0, 0, COUNTED_ENTRIES);
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Some(rest) = left.checked_sub(1) else { return (bytes, inodes) };
            left = rest;
            // What goes while it is counted does not count.
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            inodes += 1;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}
