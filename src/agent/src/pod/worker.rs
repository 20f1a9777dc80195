//! The task of one pod: feeds the state machine, carries its actions out, shows its status to the API. No decisions on Kubernetes here.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use coracle_runtime::{ContainerId, ContainerState, RuntimeError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    adopt,
    backoff::later,
    hooks,
    life::{Life, RunState, Sandbox, SandboxFacts, Stage, pause},
    message,
    plan::{self, Action, Event, Probe},
    sandbox,
    spec::{self, Part},
    start::{self, ServiceVariables, Start},
    status, volumes, write,
};
use crate::{
    context::{Context, chain},
    objects::{Seen, Used},
    probe::{
        ask::{self, Target},
        verdict::{Schedule, Streak},
    },
    volume::{mount, references},
};

/// Messages that wait for a pod's task. Its own actions send one each, so this is far more than there can be.
pub const INBOX_MESSAGES: usize = 64;
/// Exits that are told before their starts; a pod has few containers that start at once.
const EARLY_EXITS: usize = 32;
/// The API does not answer a status patch for so long: it is sent anew.
const PATCH_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// The status was written, or not.
    Written {
        /// Done.
        ok: bool,
        /// It said that all containers have ended.
        ended: bool,
    },
    /// The volumes were brought up to date; look again then.
    Refreshed(Option<Timestamp>),
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
    shown: PodStatus,
    writing: bool,
    write_failures: u32,
    write_at: Option<Timestamp>,
    probes: HashMap<(ContainerId, Probe), DropGuard>,
    cancels: HashMap<String, CancellationToken>,
    used: Arc<Used>,
    references: references::References,
    seen: Seen,
    tokens: volumes::Tokens,
    services: ServiceVariables,
    refresh_at: Option<Timestamp>,
    early: Vec<ContainerId>,
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
            shown: pod.status.clone().unwrap_or_default(),
            outbox: channel.0,
            inbox: channel.1,
            ctx,
            pod,
            life,
            facts,
            writing: false,
            write_failures: 0,
            write_at: None,
            probes: HashMap::new(),
            cancels: HashMap::new(),
            used,
            references,
            seen: Seen::default(),
            tokens: Arc::default(),
            services: Arc::new(Mutex::default()),
            refresh_at: adopted.then(Timestamp::now),
            early: Vec::new(),
            stop,
        }
    }

    /// Runs until the pod's life is over or the agent stops.
    pub async fn run(mut self) {
        let mut wake_at = self.take(Event::Look);
        while !self.life.over() {
            let now = Timestamp::now();
            let soonest = [wake_at, self.write_at, self.refresh_at].into_iter().flatten().min();
            let rest = soonest.map_or(Duration::from_secs(86_400), |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            let used = self.used.clone();
            let message = tokio::select! {
                message = self.inbox.recv() => message,
                () = tokio::time::sleep(rest) => Some(Message::Event(Event::Look)),
                () = used.changed(&mut self.seen) => {
                    self.refresh_at = Some(now);
                    Some(Message::Event(Event::ObjectsChanged))
                }
                () = self.stop.cancelled() => None,
            };
            let Some(message) = message else { return };
            if let Some(event) = self.read(message) {
                wake_at = self.take(event);
            }
            self.refresh();
        }
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
                None
            }
            Message::Written { ok, ended } => {
                self.writing = false;
                self.write_failures = if ok { 0 } else { self.write_failures + 1 };
                self.write_at = (!ok).then(|| later(Timestamp::now(), pause(self.write_failures)));
                if !ok {
                    // What was not written is not shown.
                    self.shown.observed_generation = None;
                }
                Some(if ok && ended { Event::Reported } else { Event::Look })
            }
            Message::Refreshed(at) => {
                self.refresh_at = at;
                None
            }
        }
    }

    /// One step of the state machine, and all that follows from it.
    fn take(&mut self, event: Event) -> Option<Timestamp> {
        let now = Timestamp::now();
        tracing::trace!(pod = spec::full_name(&self.pod), ?event, "step");
        let step = plan::step(&self.pod, &mut self.life, event, now);
        for action in step.actions {
            tracing::debug!(pod = spec::full_name(&self.pod), ?action, "action");
            self.act(action);
        }
        let (now_known, early): (Vec<_>, Vec<_>) = std::mem::take(&mut self.early)
            .into_iter()
            .partition(|id| self.life.members.values().any(|m| m.running().is_some_and(|r| r.id == *id)));
        self.early = early;
        now_known.into_iter().for_each(|id| self.inspect(id));
        self.watch_probes();
        self.show(now);
        self.tell_facts();
        step.wake_at
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

    /// Sends the status if it is another than the one shown.
    fn show(&mut self, now: Timestamp) {
        if self.writing || self.life.gone || self.write_at.is_some_and(|at| at > now) {
            return;
        }
        let want = status::status(&self.pod, &self.life, &self.shown, &self.ctx.config.node_ips, now);
        let ended = self.life.all_ended() || self.life.refused.is_some();
        if want == self.shown {
            if ended && !self.life.reported {
                let outbox = self.outbox.clone();
                tokio::spawn(async move { outbox.send(Message::Event(Event::Reported)).await });
            }
            return;
        }
        self.writing = true;
        self.write_at = None;
        let (ctx, pod, outbox) = (self.ctx.clone(), self.pod.clone(), self.outbox.clone());
        self.shown = want.clone();
        tokio::spawn(async move {
            let ok = match tokio::time::timeout(PATCH_TIMEOUT, patch(&ctx, &pod, &want)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(pod = spec::full_name(&pod), error = chain(&error), "the status is not written");
                    false
                }
                Err(_) => false,
            };
            outbox.send(Message::Written { ok, ended }).await
        });
    }

    /// Begins an action; its answer comes as a message.
    fn act(&mut self, action: Action) {
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        match action {
            Action::Note { name, warning, reason, message } => ctx.tell(&pod, name.as_deref(), warning, reason, message),
            Action::Cancel { name } => {
                if let Some(cancel) = self.cancels.remove(&name) {
                    cancel.cancel();
                }
            }
            Action::Signal { name, kill } => self.signal(&name, kill),
            Action::MountVolumes => {
                let (used, tokens, outbox) = (self.used.clone(), self.tokens.clone(), self.outbox.clone());
                let addresses = self.addresses();
                tokio::spawn(async move {
                    let made = volumes::mount(&ctx, &pod, &used, &tokens, &addresses).await;
                    if let Err(message) = &made {
                        ctx.tell(&pod, None, true, "FailedMount", format!("MountVolume.SetUp failed: {message}"));
                    }
                    let _ = outbox.send(Message::Refreshed(made.as_ref().ok().copied().flatten())).await;
                    outbox.send(Message::Event(Event::VolumesMounted(made.is_ok()))).await
                });
            }
            Action::MakeSandbox { attempt } => self.answer(async move {
                let made = sandbox::make(&ctx, &pod, attempt).await;
                if let Err(message) = &made {
                    ctx.tell(&pod, None, true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
                }
                Event::SandboxMade(made.ok())
            }),
            Action::RemoveSandbox { id } => self.answer(async move {
                let removed = sandbox::remove(&ctx, &id).await;
                if let Err(message) = &removed {
                    ctx.tell(&pod, None, true, "FailedKillPod", format!("error killing pod: {message}"));
                }
                Event::SandboxRemoved(removed.is_ok())
            }),
            Action::Start { name, attempt } => self.start(name, attempt),
            Action::PostStart { name } => self.post_start(name),
            Action::PreStop { name, timeout } => self.pre_stop(name, timeout),
            Action::Clean => self.answer(async move {
                let dir = ctx.pod_dir(&pod);
                let removed = tokio::task::spawn_blocking(move || mount::remove_all(&dir)).await;
                let ok = matches!(removed, Ok(Ok(())));
                if !ok {
                    tracing::warn!(pod = spec::full_name(&pod), ?removed, "the pod's directory is not removed");
                }
                Event::Cleaned(ok)
            }),
            Action::Delete => self.answer(async move { Event::Deleted(delete(&ctx, &pod).await) }),
        }
    }

    fn answer(&self, work: impl Future<Output = Event> + Send + 'static) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let event = work.await;
            outbox.send(Message::Event(event)).await
        });
    }

    fn addresses(&self) -> Vec<std::net::IpAddr> {
        match &self.life.sandbox {
            Sandbox::Ready(facts) => facts.addresses.clone(),
            _ => Vec::new(),
        }
    }

    fn part(&self, name: &str) -> Option<Part> {
        spec::part(&spec::parts(&self.pod), name).cloned()
    }

    fn start(&mut self, name: String, attempt: u32) {
        let (Some(part), Sandbox::Ready(sandbox)) = (self.part(&name), &self.life.sandbox) else { return };
        let cancel = CancellationToken::new();
        self.cancels.insert(name, cancel.clone());
        let start = Start {
            ctx: self.ctx.clone(),
            pod: self.pod.clone(),
            sandbox: sandbox.clone(),
            part,
            attempt,
            cancel,
            used: self.used.clone(),
            services: self.services.clone(),
        };
        self.answer(start::start(start));
    }

    fn target(&self, name: &str) -> Option<(Target, Part)> {
        let part = self.part(name)?;
        let id = self.life.members.get(name)?.running()?.id.clone();
        Some((Target { id, address: self.addresses().first().copied(), container: part.spec.clone() }, part))
    }

    fn post_start(&self, name: String) {
        let Some((target, part)) = self.target(&name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let Some(hook) = part.spec.lifecycle.and_then(|l| l.post_start) else { return };
        self.answer(async move {
            let result = hooks::run(&ctx, &target, &hook, hooks::POST_START).await;
            if let Err(error) = &result {
                ctx.tell(&pod, Some(&name), true, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
            }
            Event::PostStarted { name, id: target.id.id, ok: result.is_ok() }
        });
    }

    fn pre_stop(&self, name: String, timeout: Duration) {
        let Some((target, part)) = self.target(&name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let Some(hook) = part.spec.lifecycle.and_then(|l| l.pre_stop) else { return };
        self.answer(async move {
            if let Err(error) = hooks::run(&ctx, &target, &hook, timeout).await {
                ctx.tell(&pod, Some(&name), true, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
            }
            Event::PreStopped { name, id: target.id.id }
        });
    }

    fn signal(&self, name: &str, kill: bool) {
        let Some((target, part)) = self.target(name) else { return };
        let signal = if kill { libc::SIGKILL } else { start::stop_signal(&part.spec).unwrap_or(libc::SIGTERM) };
        let (ctx, outbox) = (self.ctx.clone(), self.outbox.clone());
        tokio::spawn(async move {
            if let Err(error) = ctx.runtime.signal_container(&target.id, signal).await {
                tracing::debug!(%error, container = target.id.id, signal, "the signal did not arrive");
                // It may be gone already.
                let _ = outbox.send(Message::Exited(target.id)).await;
            }
        });
    }

    /// Asks the runtime how a container fares that is said to be over.
    fn inspect(&mut self, id: ContainerId) {
        let found = self.life.members.iter().find(|(_, m)| m.run.as_ref().is_some_and(|r| r.id == id));
        let Some((name, _)) = found else {
            // Its start is not told yet: it is looked at when it is.
            if self.early.len() == EARLY_EXITS {
                self.early.remove(0);
            }
            return self.early.push(id);
        };
        let (name, ctx, pod, outbox) = (name.clone(), self.ctx.clone(), self.pod.clone(), self.outbox.clone());
        let Some(part) = self.part(&name) else { return };
        tokio::spawn(async move {
            let ended = match ctx.runtime.container(&id).await {
                Ok(status) if matches!(status.state, ContainerState::Exited { .. }) => {
                    match message::run_of(&ctx, &pod, &part, &status).state {
                        RunState::Ended(ended) => ended,
                        RunState::Running { .. } => return,
                    }
                }
                Ok(_) => return,
                Err(RuntimeError::NotFound(_)) => adopt::unknown(&id.id, Timestamp::now()),
                Err(error) => {
                    tracing::warn!(%error, container = id.id, "how the container ended is not known yet");
                    tokio::time::sleep(pause(1)).await;
                    let _ = outbox.send(Message::Exited(id)).await;
                    return;
                }
            };
            let _ = outbox.send(Message::Event(Event::Exited { name, ended })).await;
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

    /// Starts and stops probes, so that those run that a running container is to have now.
    fn watch_probes(&mut self) {
        let mut wanted = HashMap::new();
        for part in spec::parts(&self.pod) {
            let Some(member) = self.life.members.get(&part.spec.name) else { continue };
            let Some(run) = member.running().filter(|_| member.doing == super::life::Doing::Nothing && part.kind != spec::Kind::Init)
            else {
                continue;
            };
            let kinds = [
                (Probe::Startup, &part.spec.startup_probe, !member.started),
                (Probe::Readiness, &part.spec.readiness_probe, member.started),
                (Probe::Liveness, &part.spec.liveness_probe, member.started),
            ];
            for (kind, probe, due) in kinds {
                if let (Some(probe), true) = (probe, due) {
                    wanted.insert((run.id.clone(), kind), (part.spec.name.clone(), probe.clone()));
                }
            }
        }
        if self.life.ending.is_some() {
            // Readiness goes on while the pod ends: endpoints may still serve. The others would only disturb.
            wanted.retain(|(_, kind), _| *kind == Probe::Readiness);
        }
        self.probes.retain(|key, _| wanted.contains_key(key));
        for ((id, kind), (name, probe)) in wanted {
            let key = (id, kind);
            if self.probes.contains_key(&key) {
                continue;
            }
            let Some((target, _)) = self.target(&name) else { continue };
            let stop = self.stop.child_token();
            let work =
                watch_probe(self.ctx.clone(), self.pod.clone(), target, name, kind, probe, self.outbox.clone(), self.started_at(&key.0));
            tokio::spawn(stop.clone().run_until_cancelled_owned(work));
            self.probes.insert(key, stop.drop_guard());
        }
    }

    fn started_at(&self, id: &ContainerId) -> Timestamp {
        let run = self.life.members.values().filter_map(|m| m.running()).find(|r| r.id == *id);
        match run.map(|r| &r.state) {
            Some(RunState::Running { started_at }) => *started_at,
            _ => Timestamp::now(),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one probe's task")]
async fn watch_probe(
    ctx: Context,
    pod: Arc<Pod>,
    target: Target,
    name: String,
    kind: Probe,
    probe: k8s_openapi::api::core::v1::Probe,
    outbox: mpsc::Sender<Message>,
    started_at: Timestamp,
) {
    let schedule = Schedule::of(&probe);
    let mut streak = Streak::default();
    let age = Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default();
    tokio::time::sleep(schedule.first_wait(age)).await;
    let mut ticks = tokio::time::interval(schedule.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = ask::ask(&ctx.runtime, &target, &probe, schedule.timeout).await;
        if let Err(why) = &result {
            let which = match kind {
                Probe::Startup => "Startup",
                Probe::Readiness => "Readiness",
                Probe::Liveness => "Liveness",
            };
            ctx.tell(&pod, Some(&name), true, "Unhealthy", format!("{which} probe failed: {why}"));
        }
        if let Some(ok) = streak.result(&schedule, result.is_ok(), kind != Probe::Readiness) {
            let event = Event::Probed { name: name.clone(), id: target.id.id.clone(), probe: kind, ok };
            if outbox.send(Message::Event(event)).await.is_err() {
                return;
            }
        }
    }
}

async fn patch(ctx: &Context, pod: &Pod, want: &PodStatus) -> Result<(), kube::Error> {
    let body = write::patch(pod, want).map_err(kube::Error::SerdeError)?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    match pods.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(&body)).await {
        Ok(_) => Ok(()),
        // It is gone, or its name is another's now: the watch will tell.
        Err(kube::Error::Api(status)) if status.code == 404 || (status.code == 409 && status.message.contains("uid")) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn delete(ctx: &Context, pod: &Pod) -> bool {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    match pods.delete(spec::name(pod), &params).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(pod = spec::full_name(pod), error = chain(&error), "the pod's object is not removed");
            false
        }
    }
}
