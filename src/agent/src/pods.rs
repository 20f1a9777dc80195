//! All pods of the node: the watch that brings them, their tasks, the runtime's events, what is left over from before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_client::{Scope, Step, watch::watch as follow};
use coracle_runtime::{ContainerState, RuntimeEvent, SandboxStatus};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

mod preempt;
mod statics;

use crate::{
    context::{Context, chain},
    eviction::{Eviction, rank},
    logs::{attempts, files_of, rotate},
    node::object,
    pod::{
        admit::NodeFacts,
        adopt::{self, Found},
        life::{Life, Refusal, SandboxFacts, Stage, Termination},
        message,
        plan::Event,
        resize, sandbox, shown, spec,
        worker::{Facts, INBOX_MESSAGES, Message, Worker},
    },
    shutdown::{self, SHUTDOWN},
    statics::{directory::Directory, is_mirror},
    stats::meters::ADMISSION_REJECTIONS,
    volume::mount,
};

/// How often logs are looked at for rotation: a fast writer makes some 100 MiB in that time at most.
const ROTATION: Duration = Duration::from_secs(10);

/// A pod that has a task.
#[derive(Clone)]
struct Entry {
    pod: Arc<Pod>,
    inbox: mpsc::Sender<Message>,
    facts: watch::Receiver<Facts>,
    /// Of a pod that comes from a file.
    from_file: Option<statics::FromFile>,
}

impl Entry {
    /// By the uid that it has here, or in the API.
    fn is(&self, uid: &str) -> bool {
        spec::uid(&self.pod) == uid || self.from_file.as_ref().is_some_and(|file| file.mirror.as_deref() == Some(uid))
    }
}

/// All pods; cheap to clone.
#[derive(Clone)]
pub struct Pods {
    ctx: Context,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    /// Pods that the manifests ask for, by namespace and name.
    wanted: Arc<Mutex<BTreeMap<String, Arc<Pod>>>>,
    /// Critical pods that wait until others have made room, by uid.
    preempting: Arc<Mutex<HashMap<String, Arc<Pod>>>>,
    /// Told when a static pod is over, whose successor may wait.
    over: Arc<Notify>,
    node: watch::Receiver<NodeFacts>,
    stop: CancellationToken,
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pods").finish_non_exhaustive()
    }
}

/// Whether the node takes a pod.
enum Admission {
    Taken,
    Refused(Refusal),
    /// When these pods have ended, whose place it takes on a node with these facts; and what is lacking.
    Preempts(Vec<Arc<Pod>>, NodeFacts, String),
}

/// What a restarted agent finds, by uid.
#[derive(Debug, Default)]
pub struct Remains {
    sandboxes: HashMap<String, Vec<SandboxStatus>>,
    attached: HashMap<String, (String, Vec<IpAddr>)>,
}

impl Remains {
    /// Sorts what the runtime and the network have.
    pub fn new(sandboxes: Vec<SandboxStatus>, attachments: Vec<coracle_network::Attachment>) -> Self {
        let mut out = Self::default();
        for sandbox in sandboxes {
            out.sandboxes.entry(sandbox.spec.uid.clone()).or_default().push(sandbox);
        }
        for list in out.sandboxes.values_mut() {
            list.sort_by_key(|s| (s.spec.attempt, s.created_at));
        }
        out.attached = attachments.into_iter().map(|a| (a.sandbox, (a.uid, a.addresses))).collect();
        out
    }
}

impl Pods {
    /// No pods yet.
    pub fn new(ctx: Context, node: watch::Receiver<NodeFacts>, stop: CancellationToken) -> Self {
        Self { ctx, entries: Arc::default(), wanted: Arc::default(), preempting: Arc::default(), over: Arc::default(), node, stop }
    }

    /// Follows the manifests, the API and the runtime until the agent stops.
    pub async fn run(self, mut remains: Remains, mut manifests: Option<Directory>) {
        // What needs no API does not wait for it.
        self.take_manifests(manifests.as_mut(), &mut remains).await;
        let mut pods = follow::<Pod>(&self.ctx.client, None, Scope::fields(format!("spec.nodeName={}", self.ctx.config.node_name)));
        let mut events = self.ctx.runtime.events();
        let mut rotation = tokio::time::interval(ROTATION);
        rotation.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut listed = HashSet::new();
        let mut first = true;
        loop {
            tokio::select! {
                step = pods.next() => match step {
                    Some(Ok(Step::Begin)) => listed.clear(),
                    Some(Ok(Step::Listed(pod))) => {
                        listed.insert(spec::uid(&pod).to_owned());
                        self.see(pod, &mut remains).await;
                    }
                    Some(Ok(Step::Put(pod))) => self.see(pod, &mut remains).await,
                    Some(Ok(Step::Deleted(pod))) if is_mirror(&pod) => self.mirror_gone(&pod).await,
                    Some(Ok(Step::Deleted(pod))) if self.see_preempting(spec::uid(&pod), None) => {}
                    Some(Ok(Step::Deleted(pod))) => self.tell(spec::uid(&pod), Message::Event(Event::Gone)).await,
                    Some(Ok(Step::Complete)) => {
                        self.forget_missing(&listed).await;
                        if std::mem::take(&mut first) {
                            self.remove_orphans(std::mem::take(&mut remains));
                        }
                    }
                    Some(Err(error)) => tracing::debug!(error = chain(&error), "the watch of pods begins anew"),
                    None => return,
                },
                event = events.next() => match event {
                    Some(RuntimeEvent::Exited(id)) => self.tell_sandbox(&id.sandbox.clone(), || Message::Exited(id.clone())).await,
                    Some(RuntimeEvent::SandboxLost(id)) => self.tell_sandbox(&id.clone(), || Message::Event(Event::SandboxLost(id.clone()))).await,
                    Some(RuntimeEvent::ImagesChanged) => self.tell_all(|| Message::ImagesChanged).await,
                    Some(RuntimeEvent::Resync) => self.tell_all(|| Message::Resync).await,
                    None => return,
                },
                () = statics::changed(manifests.as_mut()) => self.take_manifests(manifests.as_mut(), &mut remains).await,
                () = self.over.notified() => self.begin_statics(&mut remains).await,
                _ = rotation.tick() => self.rotate_logs().await,
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn see(&self, pod: Pod, remains: &mut Remains) {
        let pod = Arc::new(pod);
        if is_mirror(&pod) {
            return self.see_mirror(pod).await;
        }
        let uid = spec::uid(&pod).to_owned();
        if self.see_preempting(&uid, Some(&pod)) {
            return;
        }
        let known = {
            let mut entries = self.lock();
            entries.retain(|_, e| !e.facts.borrow().over);
            entries.get_mut(&uid).map(|entry| {
                entry.pod = pod.clone();
                entry.inbox.clone()
            })
        };
        match known {
            Some(inbox) => drop(inbox.send(Message::Pod(pod)).await),
            None => self.begin(pod, uid, remains).await,
        }
    }

    /// Whether the node takes a pod. A refusal is judged by the newest sight of the node: what the pod was bound by may be younger than ours.
    async fn admit(&self, pod: &Arc<Pod>) -> Admission {
        if self.ctx.health.is(SHUTDOWN) {
            return Admission::Refused(shutdown::refusal());
        }
        let mut sight = self.node.borrow().clone();
        sight.allocatable = self.ctx.devices.without_devices(sight.allocatable);
        let Some(mut refusal) = self.ctx.ledger.admit(pod, &sight) else { return Admission::Taken };
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        if let Ok(node) = nodes.get(&self.ctx.config.node_name).await {
            sight = object::facts(&node, &self.ctx.allocatable, &sight);
            sight.allocatable = self.ctx.devices.without_devices(sight.allocatable);
            match self.ctx.ledger.admit(pod, &sight) {
                Some(newer) => refusal = newer,
                None => return Admission::Taken,
            }
        }
        if !rank::is_critical(pod) || !refusal.is_shortage() {
            return Admission::Refused(refusal);
        }
        match self.ctx.ledger.victims(pod, &sight) {
            Ok(victims) => Admission::Preempts(victims, sight, refusal.lacking().to_owned()),
            Err(error) => Admission::Refused(Refusal { reason: "UnexpectedAdmissionError".to_owned(), message: error.to_string() }),
        }
    }

    async fn begin(&self, pod: Arc<Pod>, uid: String, remains: &mut Remains) {
        let mut found = remains.sandboxes.remove(&uid).unwrap_or_default();
        let newest = found.pop();
        for old in found {
            self.remove_sandbox(old.spec.id);
        }
        let ran = newest.is_some() || pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p != "Pending");
        let stays = ran || pod.metadata.deletion_timestamp.is_some();
        let refused = match if stays { Admission::Taken } else { self.admit(&pod).await } {
            Admission::Taken => None,
            Admission::Refused(refusal) => Some(refusal),
            Admission::Preempts(victims, node, lacking) => return self.preempt(pod, victims, node, &lacking).await,
        };
        let found = newest.map(|s| self.found(&pod, s, remains));
        self.start(pod, uid, refused, found);
    }

    /// Makes the task of a pod that was admitted, or refused, or runs already.
    fn start(&self, pod: Arc<Pod>, uid: String, refused: Option<Refusal>, found: Option<Found>) {
        let now = Timestamp::now();
        if let Some(refusal) = &refused {
            self.ctx.meters.count(&ADMISSION_REJECTIONS, &[&refusal.reason]);
            self.ctx.tell(&pod, None, true, &refusal.reason, refusal.message.clone());
        }
        let mut life = Life::new(&pod, refused, now);
        life.longest_backoff = self.ctx.config.longest_backoff;
        let from_file = crate::statics::is_static(&pod);
        let lost = from_file && found.is_none();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let new = found.is_none() && phase.is_none_or(|p| p == "Pending") && pod.metadata.deletion_timestamp.is_none();
        if new && life.refused.is_none() && self.ctx.devices.wanted_by(&pod) {
            life.devices = Stage::Todo;
        }
        adopt::adopt(&mut life, &shown::from_api(&*self.ctx.runtime, &pod), found, now);
        if lost {
            adopt::remember(&mut life, &attempts(&self.ctx.log_dir(&pod)), now);
        }
        if life.refused.is_none() && life.ending.is_none() {
            self.ctx.ledger.keep(Arc::new(resize::granted(&pod, &life)));
        }
        let (sender, inbox) = mpsc::channel(INBOX_MESSAGES);
        let (told, facts) = watch::channel(Facts::default());
        let worker = Worker::new(self.ctx.clone(), pod.clone(), life, (sender.clone(), inbox), told, self.stop.clone());
        let from_file = from_file.then(statics::FromFile::default);
        self.lock().insert(uid, Entry { pod, inbox: sender, facts, from_file });
        tokio::spawn(worker.run());
    }

    fn found(&self, pod: &Pod, status: SandboxStatus, remains: &Remains) -> Found {
        let attached = remains.attached.get(&status.spec.id).map(|(_, a)| a.clone());
        let facts = SandboxFacts {
            id: status.spec.id,
            attempt: status.spec.attempt,
            addresses: adopt::addresses(pod, attached, &self.ctx.config.node_ips),
            recursive_read_only: sandbox::recursive_read_only(&self.ctx, &status.spec.handler),
        };
        let parts = spec::parts(pod);
        let mut runs: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut containers = status.containers;
        containers.sort_by_key(|c| c.spec.attempt);
        for container in containers.iter().filter(|c| c.state != ContainerState::Created) {
            let Some(part) = spec::part(&parts, &container.spec.name) else { continue };
            runs.entry(container.spec.name.clone()).or_default().push(message::run_of(&self.ctx, pod, part, container));
        }
        Found { facts, ready: status.ready, runs }
    }

    async fn tell(&self, uid: &str, message: Message) {
        let inbox = self.lock().get(uid).map(|e| e.inbox.clone());
        if let Some(inbox) = inbox {
            let _ = inbox.send(message).await;
        }
    }

    /// Containers of a sandbox belong to one pod, but only its task knows which: few pods, one short message each.
    async fn tell_sandbox(&self, sandbox: &str, message: impl Fn() -> Message) {
        let inboxes: Vec<_> = {
            let entries = self.lock();
            let own =
                entries.values().find(|e| e.facts.borrow().sandbox.as_ref().is_some_and(|s| s.id == sandbox)).map(|e| e.inbox.clone());
            own.into_iter().collect()
        };
        for inbox in inboxes {
            let _ = inbox.send(message()).await;
        }
    }

    async fn tell_all(&self, message: impl Fn() -> Message) {
        let inboxes: Vec<_> = self.lock().values().map(|e| e.inbox.clone()).collect();
        for inbox in inboxes {
            let _ = inbox.send(message()).await;
        }
    }

    async fn forget_missing(&self, listed: &HashSet<String>) {
        let missing = |(uid, entry): (&String, &Entry)| match &entry.from_file {
            None => (!listed.contains(uid)).then(|| (entry.inbox.clone(), Message::Event(Event::Gone))),
            Some(file) => {
                let gone = file.mirror.as_ref().filter(|mirror| !listed.contains(*mirror))?;
                Some((entry.inbox.clone(), Message::MirrorGone(gone.clone())))
            }
        };
        let missing: Vec<_> = self.lock().iter().filter_map(missing).collect();
        for (inbox, message) in missing {
            let _ = inbox.send(message).await;
        }
    }

    /// What no pod of the API owns: sandboxes, attachments, directories. The API has just confirmed it.
    fn remove_orphans(&self, remains: Remains) {
        let owned: HashSet<String> = self.lock().keys().cloned().collect();
        self.ctx.devices.retain(|uid| owned.contains(uid));
        let kept: HashSet<String> = self.lock().values().filter_map(|e| e.facts.borrow().sandbox.as_ref().map(|s| s.id.clone())).collect();
        let mut sandboxes: HashSet<String> = remains.sandboxes.into_values().flatten().map(|s| s.spec.id).collect();
        sandboxes.extend(remains.attached.into_iter().filter(|(_, (uid, _))| !owned.contains(uid)).map(|(id, _)| id));
        for id in sandboxes.into_iter().filter(|id| !kept.contains(id)) {
            self.remove_sandbox(id);
        }
        let pods_dir = self.ctx.config.data_dir.join("agent/pods");
        let log_root = self.ctx.config.log_root.clone();
        tokio::task::spawn_blocking(move || {
            let unowned = |root: &std::path::Path, uid: fn(&str) -> &str| {
                let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
                entries.filter(|e| e.file_name().to_str().is_some_and(|n| !owned.contains(uid(n)))).map(|e| e.path()).collect::<Vec<_>>()
            };
            for dir in unowned(&pods_dir, |n| n) {
                if let Err(error) = mount::remove_all(&dir) {
                    tracing::warn!(%error, dir = %dir.display(), "what a pod left is not removed");
                }
            }
            for dir in unowned(&log_root, |n| n.rsplit('_').next().unwrap_or(n)) {
                let _ = std::fs::remove_dir_all(dir);
            }
        });
    }

    fn remove_sandbox(&self, id: String) {
        let ctx = self.ctx.clone();
        tokio::spawn(async move {
            if let Err(error) = sandbox::remove(&ctx, &id).await {
                tracing::warn!(error, sandbox = id, "a sandbox that no pod owns is not removed");
            }
        });
    }

    async fn rotate_logs(&self) {
        let running: Vec<_> = {
            let entries = self.lock();
            let runs = |e: &Entry| {
                e.facts.borrow().runs.iter().filter(|(_, r)| r.2).map(|(n, r)| (n.clone(), r.0.clone(), r.1)).collect::<Vec<_>>()
            };
            entries.values().flat_map(|e| runs(e).into_iter().map(|r| (self.ctx.log_dir(&e.pod), r)).collect::<Vec<_>>()).collect()
        };
        let config = &self.ctx.config;
        for (dir, (name, id, attempt)) in running {
            let current = dir.join(name).join(format!("{attempt}.log"));
            let Ok(meta) = std::fs::metadata(&current) else { continue };
            if meta.len() < config.log_max_bytes {
                continue;
            }
            let plan = rotate::plan(&files_of(&current), meta.len(), config.log_max_bytes, config.log_max_files as usize, Timestamp::now());
            let Some(plan) = plan else { continue };
            let done = match rotate::carry_out(&current, &plan) {
                Ok(()) => self.ctx.runtime.reopen_log(&id).await.map_err(|e| chain(&e)),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = done {
                tracing::warn!(error, log = %current.display(), "the log is not rotated");
            }
        }
    }

    /// The pod of this name with what is known of it.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<(Arc<Pod>, watch::Receiver<Facts>)> {
        let entries = self.lock();
        let fits = |e: &&Entry| spec::namespace(&e.pod) == namespace && spec::name(&e.pod) == name && uid.is_none_or(|u| e.is(u));
        // A pod that ends may have a successor of the same name: the newest counts.
        let found = entries.values().filter(fits).max_by_key(|e| e.pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
        found.map(|e| (e.pod.clone(), e.facts.clone()))
    }

    /// Ends a pod that the node cannot keep; what is known of it from then on.
    pub async fn evict(&self, pod: &Pod, eviction: Eviction) -> Option<watch::Receiver<Facts>> {
        let uid = spec::uid(pod);
        self.tell(uid, Message::Event(Event::Evict(eviction))).await;
        self.lock().get(uid).map(|e| e.facts.clone())
    }

    /// Ends a pod for a reason of the node's; what is known of it from then on.
    pub async fn terminate(&self, pod: &Pod, termination: Termination) -> Option<watch::Receiver<Facts>> {
        let uid = spec::uid(pod);
        self.tell(uid, Message::Event(Event::Terminate(termination))).await;
        self.lock().get(uid).map(|e| e.facts.clone())
    }

    /// All pods.
    pub fn list(&self) -> Vec<(Arc<Pod>, Facts)> {
        self.lock().values().map(|e| (e.pod.clone(), e.facts.borrow().clone())).collect()
    }
}
