//! A sandbox as the main process sees it: what is known of its containers, whether its shim lives, and the task that watches it.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::{
    io::unix::AsyncFd,
    sync::{broadcast, watch},
};

use super::client;
use crate::{
    ContainerId, ContainerState, ContainerStatus, RuntimeEvent, SandboxStatus,
    shim::{
        protocol::{Reply, Request},
        state::{self, Container, Life, Who},
    },
};

/// Exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 137;

/// A sandbox that is there.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) record: state::Sandbox,
    pub(super) dir: PathBuf,
    containers: Mutex<BTreeMap<String, (Container, Life)>>,
    /// Whether the shim lives; sent anew after every change of a container as well.
    alive: watch::Sender<bool>,
}

impl Sandbox {
    pub(super) fn new(record: state::Sandbox, dir: PathBuf) -> Self {
        Self { record, dir, containers: Mutex::default(), alive: watch::Sender::new(false) }
    }

    /// Reads a sandbox back that an earlier process left.
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        let sandbox = Self::new(state::read(&dir.join(state::SANDBOX))?, dir.to_owned());
        for entry in std::fs::read_dir(dir)?.flatten() {
            let path = entry.path();
            if let Ok(container) = state::read::<Container>(&path.join(state::CONTAINER)) {
                sandbox.lock().insert(container.spec.id.id.clone(), (container, read_life(&path)));
            }
        }
        Ok(sandbox)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Container, Life)>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    pub(super) fn get(&self, id: &str) -> Option<(Container, Life)> {
        self.lock().get(id).cloned()
    }

    pub(super) fn insert(&self, container: Container) {
        let id = container.spec.id.id.clone();
        self.lock().entry(id).or_insert_with(|| (container, unborn()));
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
        self.alive.send_modify(|_| ());
    }

    pub(super) fn change(&self, id: &str, how: impl FnOnce(&mut Container, &mut Life)) {
        if let Some((container, life)) = self.lock().get_mut(id) {
            how(container, life);
        }
        self.alive.send_modify(|_| ());
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn images(&self) -> Vec<String> {
        let of = |container: &Container| {
            let mounted = container.image_layers.iter().map(|image| image.image_id.clone());
            mounted.chain([container.image_id.clone()]).collect::<Vec<_>>()
        };
        self.lock().values().flat_map(|(container, _)| of(container)).collect()
    }

    pub(super) fn status(&self) -> SandboxStatus {
        SandboxStatus {
            spec: self.record.spec.clone(),
            ready: self.is_alive(),
            created_at: self.record.created_at,
            containers: self.lock().values().map(|(container, life)| status_of(container, life)).collect(),
        }
    }

    /// Waits until none of these containers has a process, or the shim is gone.
    pub(super) async fn ended(&self, ids: &[String]) {
        let ended = |alive: &bool| {
            let containers = self.lock();
            !*alive || ids.iter().all(|id| containers.get(id).is_none_or(|(_, life)| life.pid.is_none()))
        };
        let _ = self.alive.subscribe().wait_for(ended).await;
    }

    /// Waits until the shim is gone.
    pub(super) async fn lost(&self) {
        let _ = self.alive.subscribe().wait_for(|alive| !alive).await;
    }

    /// The shim's process, if the one that is written down is the one that runs.
    pub(super) fn shim(&self) -> Option<Who> {
        let who: Who = state::read(&self.dir.join(state::SHIM)).ok()?;
        (state::start_time(who.pid) == Some(who.start_time)).then_some(who)
    }

    /// Connects to the shim and follows it until it is gone. Returns when the connection stands (or the shim is found dead).
    pub(super) async fn follow(self: &Arc<Self>, events: broadcast::Sender<RuntimeEvent>) {
        let Some((who, pidfd)) = self.shim().and_then(|who| Some((who, pidfd(who).ok()?))) else {
            return self.lose();
        };
        match client::open(&self.dir, Request::Watch, Vec::new()).await {
            Err(error) => {
                tracing::warn!(sandbox = self.record.spec.id, error = %error, "shim does not answer");
                self.lose();
            }
            Ok((_, open)) => {
                self.refresh(&events);
                self.alive.send_replace(true);
                let sandbox = Arc::clone(self);
                tokio::spawn(async move { sandbox.watch(who, pidfd, open.socket, events).await });
            }
        }
    }

    async fn watch(
        self: Arc<Self>,
        who: Who,
        pidfd: AsyncFd<OwnedFd>,
        mut socket: tokio::net::UnixStream,
        events: broadcast::Sender<RuntimeEvent>,
    ) {
        loop {
            match client::next::<Reply>(&mut socket).await {
                Ok(Some(Reply::Exit { id, life })) => {
                    self.change(&id, |_, known| *known = life);
                    let _ = events.send(RuntimeEvent::Exited(ContainerId { sandbox: self.record.spec.id.clone(), id }));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    // A shim that is well was only too slow with us; one that is not, does not answer.
                    match client::open(&self.dir, Request::Watch, Vec::new()).await {
                        Ok((_, open)) => {
                            socket = open.socket;
                            self.refresh(&events);
                        }
                        Err(_) => break,
                    }
                }
            }
        }
        let _ = pidfd.readable().await;
        // If it was our own child, nobody else takes it from the process table.
        if let Some(pid) = i32::try_from(who.pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        }
        self.lose();
        let _ = events.send(RuntimeEvent::SandboxLost(self.record.spec.id.clone()));
    }

    /// What the shim wrote down while nobody listened.
    fn refresh(&self, events: &broadcast::Sender<RuntimeEvent>) {
        let mut exited = Vec::new();
        for (id, (_, life)) in self.lock().iter_mut() {
            let now = read_life(&self.dir.join(id));
            if life.pid.is_some() && now.pid.is_none() {
                exited.push(ContainerId { sandbox: self.record.spec.id.clone(), id: id.clone() });
            }
            *life = now;
        }
        for id in exited {
            let _ = events.send(RuntimeEvent::Exited(id));
        }
    }

    fn lose(&self) {
        for (_, life) in self.lock().values_mut() {
            if !matches!(life.state, ContainerState::Exited { .. }) {
                let started_at = match life.state {
                    ContainerState::Running { started_at } => Some(started_at),
                    _ => None,
                };
                life.state = ContainerState::Exited {
                    started_at,
                    finished_at: Timestamp::now(),
                    exit_code: UNKNOWN,
                    signal: None,
                    reason: "ContainerStatusUnknown".to_owned(),
                    message: "The container could not be located: its pod's shim is gone".to_owned(),
                };
            }
            life.pid = None;
        }
        self.alive.send_replace(false);
    }
}

fn unborn() -> Life {
    Life { pid: None, user: (0, 0, Vec::new()), state: ContainerState::Created }
}

fn read_life(dir: &Path) -> Life {
    state::read(&dir.join(state::LIFE)).unwrap_or_else(|_| unborn())
}

fn pidfd(who: Who) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(who.pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    // The number may have found another owner between the look and the grasp.
    if state::start_time(who.pid) != Some(who.start_time) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: an owned descriptor keeps its number until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?)
}

pub(super) fn status_of(container: &Container, life: &Life) -> ContainerStatus {
    ContainerStatus {
        spec: container.spec.clone(),
        image_id: container.image_id.clone(),
        pid: life.pid,
        created_at: container.created_at,
        state: life.state.clone(),
        user: Some(life.user.clone()),
    }
}
