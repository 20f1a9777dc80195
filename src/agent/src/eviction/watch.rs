//! Looks from time to time at what pods have on disk and at what is left of the node: the kernel tells nobody when a directory grows.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_client::EventType;
use coracle_runtime::{ContainerState, RuntimeError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Eviction, NO_GRACE,
    disk::{self, Parts},
    images::{self, Uses},
    pressure::{Memory, Pressure, Resource, Shortage, Signal},
    rank::{self, Candidate},
    storage::{self, Usage},
    usage::{self, Taken},
};
use crate::{
    context::Context,
    node::object,
    pod::{
        clock::{Clock, shifted},
        life::Life,
        worker::Facts,
    },
    pods::Pods,
    stats::meters::{EVICTIONS, IMAGES_COLLECTED},
    volume,
};

/// Between two looks: upstream's figure.
const PERIOD: Duration = Duration::from_secs(10);
/// How long what an ended pod took may take to come back before the next one is ended.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// Between two looks at what images are used for.
const IMAGES: Duration = Duration::from_secs(300);

/// The task.
#[derive(Debug)]
pub struct Watch {
    /// The agent.
    pub ctx: Context,
    /// Its pods.
    pub pods: Pods,
    /// For the node's conditions.
    pub told: watch::Sender<Pressure>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What a pod has on disks, each thing by its name.
#[derive(Debug, Default)]
struct Measured {
    roots: BTreeMap<String, Taken>,
    logs: BTreeMap<String, Taken>,
    volumes: BTreeMap<String, Taken>,
}

impl Measured {
    /// As its limits count it.
    fn together(self) -> Usage {
        let mut containers: BTreeMap<String, u64> = BTreeMap::new();
        for (name, taken) in self.roots.into_iter().chain(self.logs) {
            *containers.entry(name).or_default() += taken.bytes;
        }
        Usage { containers, volumes: self.volumes.into_iter().map(|(name, taken)| (name, taken.bytes)).collect() }
    }
}

impl Watch {
    /// Runs until the agent stops.
    pub async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.look()).await;
    }

    async fn look(self) {
        let (mut memory, mut uses, mut images_at) = (Memory::default(), Uses::default(), None);
        let mut clock = Clock::new(Timestamp::now(), Instant::now());
        loop {
            self.limits().await;
            let now = Timestamp::now();
            if let Some(by) = clock.jump(now, Instant::now()) {
                memory.shift(by);
                uses.shift(by);
                images_at = images_at.map(|at| shifted(at, by));
            }
            let settings = &self.ctx.config.eviction;
            let signals = self.ctx.signals().await;
            let mut sight = memory.see(&signals, settings, now);
            self.tell(sight.pressure);
            let disk_short = sight.shortages.iter().any(|s| s.signal.is_of_images(&signals));
            let due = images_at.is_none_or(|at: Timestamp| now.duration_since(at).unsigned_abs() >= IMAGES);
            if disk_short || due {
                images_at = Some(now);
                if disk_short {
                    self.collect_dead().await;
                }
                let bytes =
                    if disk_short { Some(u64::MAX) } else { images::excess(signals.image_disk, &self.ctx.config.images.collection) };
                self.collect_images(&mut uses, bytes.unwrap_or(0), disk_short, now).await;
                sight = memory.see(&self.ctx.signals().await, settings, now);
            }
            if let Some(shortage) = sight.shortages.first() {
                self.relieve(shortage, signals.images_apart).await;
            }
            let soonest = sight.look_again.and_then(|at| Duration::try_from(at.duration_since(Timestamp::now())).ok());
            tokio::time::sleep(soonest.map_or(PERIOD, |s| s.min(PERIOD))).await;
        }
    }

    /// Ends pods that have crossed a limit of their own.
    async fn limits(&self) {
        for (pod, facts) in self.running().into_iter().filter(|(pod, _)| storage::is_limited(pod)) {
            let usage = self.measure(&pod, &facts).await.together();
            if let Some((limit, message)) = storage::verdict(&pod, &usage) {
                self.ctx.meters.count(&EVICTIONS, &[limit]);
                self.pods.evict(&pod, Eviction { message, grace: NO_GRACE, for_pressure: false }).await;
            }
        }
    }

    fn running(&self) -> Vec<(Arc<Pod>, Facts)> {
        let over = |pod: &Pod| matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let mut pods = self.pods.list();
        pods.retain(|(pod, facts)| !facts.over && facts.sandbox.is_some() && !over(pod) && pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// The node's task writes the conditions, and the Events of their changes.
    fn tell(&self, pressure: Pressure) {
        self.told.send_if_modified(|told| std::mem::replace(told, pressure) != pressure);
    }

    /// An Event of the node.
    fn note(&self, kind: EventType, reason: &str, message: String) {
        let node = object::reference(&self.ctx.config.node_name);
        self.ctx.recorder.event(&node, kind, reason, message);
    }

    /// Ends one pod, and waits until it has given back what it took. `apart`: images have a disk of their own.
    async fn relieve(&self, shortage: &Shortage, apart: bool) {
        let resource = shortage.signal.resource();
        self.note(EventType::Warning, "EvictionThresholdMet", format!("Attempting to reclaim {resource}"));
        let running = self.running();
        let mut candidates = Vec::with_capacity(running.len());
        for (pod, facts) in &running {
            candidates.push(Candidate { pod, usage: self.usage(pod, facts, shortage.signal, apart).await });
        }
        let Some(chosen) = rank::first(&candidates, resource) else {
            return tracing::warn!(%resource, "the node is short of it, and there is no pod to end");
        };
        let message = rank::message(&candidates[chosen], shortage);
        let pod = &running[chosen].0;
        let grace = if shortage.soft { self.grace(pod) } else { NO_GRACE };
        self.ctx.meters.count(&EVICTIONS, &[shortage.signal.name()]);
        let facts = self.pods.evict(pod, Eviction { message, grace, for_pressure: true }).await;
        if let Some(mut facts) = facts {
            let _ = tokio::time::timeout(grace + GIVEN_BACK, facts.wait_for(|f| f.over || f.sandbox.is_none())).await;
        }
    }

    /// What a pod has that is ended for a soft threshold: its own grace, within bounds.
    fn grace(&self, pod: &Pod) -> Duration {
        let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).and_then(|s| u64::try_from(s).ok());
        let most = self.ctx.config.eviction.most_grace;
        own.map_or(most, |own| Duration::from_secs(own).min(most)).max(NO_GRACE)
    }

    async fn usage(&self, pod: &Arc<Pod>, facts: &Facts, signal: Signal, apart: bool) -> BTreeMap<String, u64> {
        let resource = signal.resource();
        if matches!(resource, Resource::Disk | Resource::Inodes) {
            let Measured { roots, logs, volumes } = self.measure(pod, facts).await;
            let volumes =
                volumes.values().fold(Taken::default(), |sum, v| Taken { bytes: sum.bytes + v.bytes, inodes: sum.inodes + v.inodes });
            return disk::counted(&Parts { roots, logs, volumes }, signal, apart);
        }
        let mut out = BTreeMap::new();
        for (name, (id, ..)) in facts.runs.iter().filter(|(_, (.., alive))| *alive) {
            if let Ok(stats) = self.ctx.runtime.stats(id).await {
                out.insert(name.clone(), if resource == Resource::Memory { stats.memory_working_set } else { stats.pids });
            }
        }
        out
    }

    async fn measure(&self, pod: &Arc<Pod>, facts: &Facts) -> Measured {
        let ctx = &self.ctx;
        let mut measured = Measured::default();
        for (name, (id, ..)) in &facts.runs {
            // A container that went in between has nothing any more.
            let root = ctx.runtime.stats(id).await.map_or(Taken::default(), |s| Taken { bytes: s.rootfs_bytes, inodes: s.rootfs_inodes });
            measured.roots.insert(name.clone(), root);
        }
        let (pod, dir, logs) = (pod.clone(), ctx.pod_dir(pod), ctx.log_dir(pod));
        let walked = tokio::task::spawn_blocking(move || {
            measured.logs = measured.roots.keys().map(|name| (name.clone(), usage::of(&logs.join(name)))).collect();
            let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| storage::takes_disk(v));
            measured.volumes = volumes.map(|v| (v.name.clone(), usage::of(&volume::mount::path(Path::new(&dir), v)))).collect();
            measured
        });
        walked.await.unwrap_or_default()
    }

    /// Removes what is left of runs before the newest, with all that they wrote; their logs and how they ended stay. A pod that is over has no
    /// containers.
    async fn collect_dead(&self) {
        for (pod, facts) in self.pods.list() {
            for (name, (id, attempt, _)) in &facts.runs {
                let Some(before) = attempt.checked_sub(1) else { continue };
                let dead = Life::container_id(&id.sandbox, name, before);
                match self.ctx.runtime.container(&dead).await {
                    Ok(status) if matches!(status.state, ContainerState::Exited { .. }) => {}
                    _ => continue,
                }
                match self.ctx.runtime.remove_container(&dead).await {
                    Ok(()) => tracing::info!(pod = pod.metadata.name, container = name, "a dead container is removed: the disk is short"),
                    Err(error) => {
                        self.note(EventType::Warning, "ContainerGCFailed", format!("container {} is not removed: {error}", dead.id))
                    }
                }
            }
        }
    }

    /// Removes images that nobody uses, to gain so many bytes.
    async fn collect_images(&self, uses: &mut Uses, bytes: u64, short: bool, now: Timestamp) {
        let runtime = &self.ctx.runtime;
        let (Ok(images), Ok(sandboxes)) = (runtime.images().await, runtime.sandboxes().await) else { return };
        let containers = || sandboxes.iter().flat_map(|s| &s.containers);
        let mut used: HashSet<String> = containers().map(|c| c.spec.image.clone()).collect();
        used.extend(containers().flat_map(|c| c.spec.image_mounts.iter().map(|m| m.image.clone())));
        uses.see(images.iter().map(|i| i.id.as_str()), &used, now);
        let mut gained = 0;
        let sizes: Vec<_> = images.iter().map(|i| (i.id.clone(), i.size)).collect();
        let plan = uses.plan(&sizes, &used, bytes, &self.ctx.config.images.collection, now);
        let why = if short { "eviction" } else { "space" };
        let all = plan.too_old.iter().map(|id| (id, "age")).chain(plan.for_room.iter().map(|id| (id, why)));
        for (id, why) in all {
            match runtime.remove_image(id).await {
                Ok(()) => {
                    gained += sizes.iter().find(|(of, _)| of == id).map_or(0, |(_, size)| *size);
                    self.ctx.meters.count(&IMAGES_COLLECTED, &[why]);
                    tracing::info!(image = id, why, "an image that nobody uses is removed");
                }
                // Taken into use meanwhile, or the runtime's own.
                Err(RuntimeError::Invalid(why)) => tracing::debug!(image = id, why, "an image stays"),
                Err(error) => self.note(EventType::Warning, "ImageGCFailed", format!("image {id} is not removed: {error}")),
            }
        }
        if !short && gained < bytes {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found {gained} bytes eligible to free."
            );
            self.note(EventType::Warning, "FreeDiskSpaceFailed", message);
        }
        if let Ok(here) = runtime.images().await {
            self.ctx.images.forget(&here.iter().map(|image| &*image.id).collect());
        }
    }
}
