//! The task of one pod: feeds the state machine, carries its actions out, shows its status to the API. No decisions on Kubernetes here.

mod act;
mod arrivals;
mod exits;
pub mod mirror;
mod probes;
mod report;
mod resize;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use coracle_runtime::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{exits::EarlyExits, mirror::Mirror, probes::Probes, report::Report};
use super::{
    backoff::later,
    clock::{self, Clock},
    life::{Life, RunState, Sandbox, SandboxFacts, Stage},
    plan::{self, Event},
    spec,
    start::ServiceVariables,
    startup::{self, Pulls},
    volumes,
};
use crate::{
    context::Context,
    devices,
    objects::{Seen, Used},
    statics,
    stats::meters::{POD_START_DURATION, POD_START_SLI, POD_START_TOTAL, POD_WORKER, seconds_since},
    volume::references,
};

/// Messages that wait for a pod's task. Its own actions send one each, so this is far more than there can be.
pub const INBOX_MESSAGES: usize = 64;

/// What a pod's task is told.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes in a short queue, and moved, not copied")]
pub enum Message {
    /// The object changed.
    Pod(Arc<Pod>),
    /// Something happened.
    Event(Event),
    /// The runtime says that this container exited.
    Exited(ContainerId),
    /// Look at all containers: events were lost.
    Resync,
    /// An image that is waited for may have come.
    ImagesChanged,
    /// The status was written, or not.
    Written {
        /// Done.
        ok: bool,
        /// It said that all containers have ended.
        ended: bool,
    },
    /// The volumes were brought up to date; look again then.
    Refreshed(Option<Timestamp>),
    /// The API has this mirror of the static pod.
    Mirror(Arc<Pod>),
    /// The mirror of this uid is no more.
    MirrorGone(String),
    /// A mirror was made or removed, or not.
    Reflected(bool),
}

/// What others may know of a pod.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its sandbox.
    pub sandbox: Option<SandboxFacts>,
    /// Its containers' newest runs: id, attempt, alive.
    pub runs: BTreeMap<String, (ContainerId, u32, bool)>,
    /// The life is over and the task ends.
    pub over: bool,
}

/// One pod's task.
pub struct Worker {
    ctx: Context,
    pod: Arc<Pod>,
    life: Life,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    facts: watch::Sender<Facts>,
    report: Report,
    probes: Probes,
    cancels: HashMap<String, CancellationToken>,
    used: Arc<Used>,
    references: references::References,
    seen: Seen,
    tokens: volumes::Tokens,
    services: ServiceVariables,
    pulls: Pulls,
    refresh_at: Option<Timestamp>,
    early: EarlyExits,
    images_came: bool,
    clock: Clock,
    mirror: Option<Mirror>,
    /// When the pod was seen first, until its containers have started.
    unstarted: Option<Timestamp>,
    room: watch::Receiver<()>,
    /// Tells when devices fare otherwise than before, if the pod may have any.
    devices: Option<watch::Receiver<()>>,
    stop: CancellationToken,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("pod", &spec::full_name(&self.pod)).finish_non_exhaustive()
    }
}

impl Worker {
    /// The task of `pod` with this life. `adopted`: its volumes stand already and may be out of date.
    pub fn new(
        ctx: Context,
        pod: Arc<Pod>,
        life: Life,
        channel: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
        facts: watch::Sender<Facts>,
        stop: CancellationToken,
    ) -> Self {
        let references = references::references(&pod);
        let used = Arc::new(ctx.objects.using(spec::namespace(&pod), &references));
        let adopted = life.volumes == Stage::Done;
        Self {
            report: Report::new(pod.status.clone().unwrap_or_default()),
            room: ctx.ledger.freed(),
            devices: devices::asks(&pod).then(|| ctx.devices.changes()),
            outbox: channel.0,
            inbox: channel.1,
            ctx,
            life,
            facts,
            probes: Probes::default(),
            cancels: HashMap::new(),
            used,
            references,
            seen: Seen::default(),
            tokens: Arc::default(),
            services: Arc::new(Mutex::default()),
            pulls: Pulls::default(),
            refresh_at: adopted.then(Timestamp::now),
            early: EarlyExits::default(),
            images_came: false,
            clock: Clock::new(Timestamp::now(), Instant::now()),
            mirror: statics::is_static(&pod).then(Mirror::default),
            unstarted: (!adopted).then(Timestamp::now),
            pod,
            stop,
        }
    }

    /// Runs until the pod's life is over or the agent stops.
    pub async fn run(mut self) {
        let mut wake_at = self.take(Event::Look);
        while !self.life.over() {
            let now = Timestamp::now();
            let mirror_at = self.mirror.as_ref().and_then(Mirror::retry_at);
            let soonest = [wake_at, self.report.retry_at(), self.refresh_at, mirror_at].into_iter().flatten().min();
            let rest = soonest.map_or(Duration::from_secs(86_400), |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            let used = self.used.clone();
            let waits_for_room = self.life.resize.is_deferred();
            let message = tokio::select! {
                message = self.inbox.recv() => message,
                () = tokio::time::sleep(rest) => Some(Message::Event(Event::Look)),
                () = used.changed(&mut self.seen) => {
                    self.refresh_at = Some(now);
                    Some(Message::Event(Event::ObjectsChanged))
                }
                freed = self.room.changed(), if waits_for_room => freed.ok().map(|()| Message::Event(Event::RoomFreed)),
                () = changed(&mut self.devices) => Some(Message::Event(Event::Look)),
                () = self.stop.cancelled() => None,
            };
            let Some(message) = message else { return };
            let not_started = matches!(message, Message::Event(Event::NotStarted { .. }));
            if let Some(event) = self.read(message) {
                wake_at = self.take(event);
            }
            // What came while it was tried came too late for it, and is not told again.
            if not_started && std::mem::take(&mut self.images_came) {
                self.look_for_images();
            }
            self.refresh();
        }
        self.remove_mirror();
        self.ctx.ledger.release(spec::uid(&self.pod));
        self.ctx.devices.release(spec::uid(&self.pod));
        self.ctx.probes.forget(spec::uid(&self.pod));
        if let Err(error) = std::fs::remove_dir_all(self.ctx.log_dir(&self.pod)) {
            tracing::debug!(%error, pod = spec::full_name(&self.pod), "no logs are removed");
        }
        self.facts.send_modify(|f| f.over = true);
    }

    /// A message as an event of the state machine.
    fn read(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Event(event) => Some(event),
            Message::Pod(pod) => {
                let moved = pod.metadata.labels != self.pod.metadata.labels || pod.metadata.annotations != self.pod.metadata.annotations;
                if moved && self.life.volumes == Stage::Done {
                    self.refresh_at = Some(Timestamp::now());
                }
                let references = references::references(&pod);
                if references != self.references {
                    self.used = Arc::new(self.ctx.objects.using(spec::namespace(&pod), &references));
                    (self.references, self.seen) = (references, Seen::default());
                }
                self.pod = pod;
                Some(Event::Look)
            }
            Message::Exited(id) => {
                self.inspect(id);
                None
            }
            Message::Resync => {
                let alive: Vec<_> = self.life.members.values().filter_map(|m| m.running().map(|r| r.id.clone())).collect();
                alive.into_iter().for_each(|id| self.inspect(id));
                self.look_for_images();
                None
            }
            Message::ImagesChanged => {
                self.images_came = true;
                self.look_for_images();
                None
            }
            Message::Written { ok, ended } => {
                self.report.written(ok, Timestamp::now());
                Some(if ok && ended { Event::Reported } else { Event::Look })
            }
            Message::Refreshed(at) => {
                self.refresh_at = at;
                None
            }
            Message::Mirror(object) => {
                self.mirrored(object);
                Some(Event::Look)
            }
            Message::MirrorGone(uid) => {
                self.mirror_gone(&uid);
                Some(Event::Look)
            }
            Message::Reflected(ok) => {
                self.reflected(ok, Timestamp::now());
                Some(Event::Look)
            }
        }
    }

    /// One step of the state machine, and all that follows from it.
    fn take(&mut self, event: Event) -> Option<Timestamp> {
        let now = Timestamp::now();
        if let Some(by) = self.clock.jump(now, Instant::now()) {
            tracing::info!(pod = spec::full_name(&self.pod), ?by, "the machine's clock has jumped");
            clock::shift(&mut self.life, by);
            self.refresh_at = self.refresh_at.map(|at| clock::shifted(at, by));
            self.report.hurry();
        }
        tracing::trace!(pod = spec::full_name(&self.pod), ?event, "step");
        let began = Instant::now();
        let step = plan::step(&self.pod, &mut self.life, event, now);
        for action in step.actions {
            tracing::debug!(pod = spec::full_name(&self.pod), ?action, "action");
            self.act(action);
        }
        self.early.known(&self.life).into_iter().for_each(|id| self.inspect(id));
        self.watch_probes();
        if self.life.all_ended() || self.life.refused.is_some() {
            self.ctx.ledger.release(spec::uid(&self.pod));
            if self.devices.is_some() {
                self.ctx.devices.release(spec::uid(&self.pod));
            }
        }
        self.reflect(now);
        self.show(now);
        self.tell_facts();
        self.measure(began, now);
        step.wake_at
    }

    /// How long the step took, and once all containers run, how long that took.
    fn measure(&mut self, began: Instant, now: Timestamp) {
        let meters = &self.ctx.meters;
        let ends = self.life.ending.is_some();
        meters.took(&POD_WORKER, &[if ends { "terminating" } else { "sync" }], began);
        let Some(seen_at) = self.unstarted else { return };
        if ends || self.life.refused.is_some() {
            self.unstarted = None;
            return;
        }
        let parts = spec::parts(&self.pod);
        let runs = |part: &spec::Part| self.life.members.get(&part.spec.name).is_some_and(|m| m.run.is_some());
        if parts.iter().filter(|part| part.kind == spec::Kind::Main).all(runs) {
            self.unstarted = None;
            meters.observe(&POD_START_DURATION, &[], seconds_since(seen_at, now));
            if let Some(created) = &self.pod.metadata.creation_timestamp {
                meters.observe(&POD_START_TOTAL, &[], seconds_since(created.0, now));
            }
            if let Some(seconds) = startup::seconds(&self.pod, &self.life, &self.pulls, now) {
                meters.observe(&POD_START_SLI, &[], seconds);
            }
        }
    }

    fn tell_facts(&self) {
        let sandbox = match &self.life.sandbox {
            Sandbox::Ready(facts) => Some(facts.clone()),
            _ => None,
        };
        let alive = |r: &super::life::Run| matches!(r.state, RunState::Running { .. });
        let runs = self.life.members.iter().filter_map(|(n, m)| m.run.as_ref().map(|r| (n.clone(), (r.id.clone(), r.attempt, alive(r)))));
        let runs = runs.collect();
        self.facts.send_if_modified(|facts| {
            let changed = facts.sandbox != sandbox || facts.runs != runs;
            (facts.sandbox, facts.runs) = (sandbox, runs);
            changed
        });
    }

    /// Brings volumes up to date when something they show has changed.
    fn refresh(&mut self) {
        if self.life.volumes != Stage::Done || self.life.ending.is_some() || self.refresh_at.is_none_or(|at| at > Timestamp::now()) {
            if self.life.volumes != Stage::Done {
                self.refresh_at = None;
            }
            return;
        }
        self.refresh_at = None;
        let (ctx, pod, used, tokens, outbox) =
            (self.ctx.clone(), self.pod.clone(), self.used.clone(), self.tokens.clone(), self.outbox.clone());
        let addresses = self.addresses();
        tokio::spawn(async move {
            let next = match volumes::mount(&ctx, &pod, &used, &tokens, &addresses).await {
                Ok(next) => next,
                Err(message) => {
                    ctx.tell(&pod, None, true, "FailedMount", format!("MountVolume.SetUp failed: {message}"));
                    Some(later(Timestamp::now(), super::backoff::FIRST))
                }
            };
            outbox.send(Message::Refreshed(next)).await
        });
    }
}

/// Ends when devices have changed; never for a pod that has none.
async fn changed(devices: &mut Option<watch::Receiver<()>>) {
    let ended = match devices {
        Some(devices) => devices.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending().await
    }
}
