//! Devices that plugins bring to the node (device plugins, `v1beta1`): who has which, and what a container needs to use them.
//!
//! A plugin registers at our socket and is asked through its own from then on. Devices are given to a pod when the node takes it, before
//! anything of it is made, and stay its own until its containers have ended; a restarted agent reads from disk who has what.

pub mod additions;
pub mod allocate;
pub mod book;
pub mod checkpoint;
pub mod podresources;
pub mod register;
mod socket;
pub mod v1beta1;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use coracle_api::quantity::Quantity;
use coracle_runtime::grpc::Channel;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tokio::sync::watch;

use crate::{
    context::chain,
    pod::spec,
    resources::{self, Amounts},
    stats::meters::Meters,
};

use book::Book;
use v1beta1::DevicePluginOptions;

/// Where the sockets of plugins are, below the node's directory for such things.
pub const DIRECTORY: &str = "device-plugins";

/// A connected plugin.
#[derive(Clone, Debug)]
struct Plugin {
    channel: Channel,
    options: DevicePluginOptions,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    /// By resource.
    plugins: HashMap<String, Plugin>,
}

/// The devices of a node.
#[derive(Debug)]
pub struct Devices {
    dir: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// One writes the checkpoint at a time, so that the newest is the last.
    writes: tokio::sync::Mutex<()>,
    meters: Arc<Meters>,
    /// Somebody is about to write all that changed until then.
    saves: AtomicBool,
}

impl Devices {
    /// Reads what the agent before has left in `root`, the node's directory for sockets.
    pub fn open(root: &Path, now: Timestamp) -> Self {
        let dir = root.join(DIRECTORY);
        let book = match checkpoint::read(&dir) {
            Ok((grants, registered)) => Book::restored(grants, registered.into_iter(), now),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), error = chain(&error), "who has which device is not known: the checkpoint is left alone");
                Book::default()
            }
        };
        let state = Mutex::new(State { book, plugins: HashMap::new() });
        Self {
            dir,
            state,
            changed: watch::Sender::new(()),
            meters: Arc::default(),
            writes: tokio::sync::Mutex::default(),
            saves: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what plugins do counted.
    pub fn counted(self, meters: Arc<Meters>) -> Self {
        Self { meters, ..self }
    }

    /// Tells when there are other devices, or others are healthy.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What plugins have: capacity and allocatable of the node.
    pub fn amounts(&self) -> (Amounts, Amounts) {
        let count = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX));
        let state = self.lock();
        state.book.amounts().map(|(name, all, healthy)| ((name.to_owned(), count(all)), (name.to_owned(), count(healthy)))).unzip()
    }

    /// Takes out of what admission counts what is given away here.
    pub fn without_devices(&self, mut amounts: Amounts) -> Amounts {
        let state = self.lock();
        amounts.retain(|name, _| !resources::is_extended(name) || !state.book.manages(name));
        amounts
    }

    /// Whether the pod asks for devices that plugins bring, or have brought.
    pub fn wanted_by(&self, pod: &Pod) -> bool {
        asks(pod) && {
            let state = self.lock();
            let parts = spec::parts(pod);
            parts.iter().flat_map(|p| wishes(&p.spec)).any(|(name, _)| state.book.manages(&name))
        }
    }

    /// A pod lives, and may be given devices from now on.
    pub fn live(&self, uid: &str) {
        self.lock().book.open(uid);
    }

    /// A pod takes nothing any more.
    pub fn release(self: &Arc<Self>, uid: &str) {
        if self.lock().book.release(uid) {
            tracing::debug!(pod = uid, "its devices are free");
            self.save_soon();
        }
    }

    /// Takes from pods that are no more what they had.
    pub fn retain(self: &Arc<Self>, lives: impl Fn(&str) -> bool) {
        if self.lock().book.retain(lives) {
            self.save_soon();
        }
    }

    /// Writes into a pod's status how its devices fare: of its main containers, as upstream. Of a pod that has none any more the word
    /// of `before` stays.
    pub fn show_health(&self, uid: &str, status: &mut PodStatus, before: &PodStatus) {
        let state = self.lock();
        let has = state.book.has(uid);
        for container in status.container_statuses.iter_mut().flatten() {
            container.allocated_resources_status = if has {
                Some(state.book.health(uid, &container.name)).filter(|list| !list.is_empty())
            } else {
                let old = before.container_statuses.iter().flatten().find(|c| c.name == container.name);
                old.and_then(|c| c.allocated_resources_status.clone())
            };
        }
    }

    /// Who has what on disk, so that a crash forgets nothing.
    async fn save(&self) -> io::Result<()> {
        let _turn = self.writes.lock().await;
        self.saves.store(false, Ordering::Release);
        let bytes = checkpoint::encode(&self.lock().book)?;
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || checkpoint::write(&dir, &bytes)).await.map_err(io::Error::other)?
    }

    /// The same when nobody waits for it: what is on disk still names more than there is.
    fn save_soon(self: &Arc<Self>) {
        if self.saves.swap(true, Ordering::AcqRel) {
            return;
        }
        let devices = self.clone();
        tokio::spawn(async move {
            if let Err(error) = devices.save().await {
                tracing::warn!(%error, dir = %devices.dir.display(), "who has which device is not written");
            }
        });
    }
}

/// Whether a pod asks for anything that a plugin could bring.
pub fn asks(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let containers = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let limits = containers.filter_map(|c| c.resources.as_ref()?.limits.as_ref());
    limits.flat_map(|l| l.keys()).any(|name| resources::is_extended(name))
}

/// Extended resources of a container, and how many of each. Requests are equal to limits.
fn wishes(container: &Container) -> Vec<(String, usize)> {
    let limits = resources::limits_of(container).into_iter().filter(|(name, _)| resources::is_extended(name));
    limits.filter_map(|(name, amount)| Some((name, usize::try_from(amount.units()).ok().filter(|n| *n > 0)?))).collect()
}
