//! The state of a pod's life: what was done for it so far, what is under way, and how its containers fare.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use coracle_runtime::{ContainerId, Resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use sha2::{Digest, Sha256};

use super::{
    backoff::{self, Backoff, later},
    resize::{Resizing, Whole},
    spec::{self, Kind},
};
use crate::eviction::Eviction;

/// Pause after the first failure of a mount, a sandbox or a clean-up; doubles to `RETRY_LONGEST`.
pub const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest such pause.
pub const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// How the reason of a shortage begins; the name of the resource follows.
const SHORTAGE: &str = "OutOf";

/// All that is known of a pod beside its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Why the node does not take it.
    pub refused: Option<Refusal>,
    /// When the node first saw it.
    pub start_time: Timestamp,
    /// Its devices are given to it; done for one that needs none.
    pub devices: Stage,
    /// Its volumes.
    pub volumes: Stage,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Its containers by name.
    pub members: BTreeMap<String, Member>,
    /// All init containers have done their work in this sandbox.
    pub initialized: bool,
    /// It comes to its end.
    pub ending: Option<Ending>,
    /// The API has seen all containers ended.
    pub reported: bool,
    /// Volumes and directories are taken away.
    pub cleaned: Stage,
    /// The API object is being removed, or was.
    pub deleted: Stage,
    /// The API object is no more.
    pub gone: bool,
    /// Its resize.
    pub resize: Resizing,
    /// What it was granted as a whole.
    pub whole: Whole,
    /// All containers are being ended, to begin anew.
    pub restarting_all: bool,
    /// The longest rest after a crash.
    pub longest_backoff: Duration,
}

/// Why the node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `OutOfcpu`, `NodeAffinity`, ...: status.reason and the event's.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl Refusal {
    /// There is too little of something.
    pub fn is_shortage(&self) -> bool {
        self.reason.starts_with(SHORTAGE)
    }

    /// Of what there is too little; empty where that is not why.
    pub fn lacking(&self) -> &str {
        self.reason.strip_prefix(SHORTAGE).unwrap_or_default()
    }
}

/// A thing that is done once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Stage {
    /// Not begun.
    #[default]
    Todo,
    /// Under way.
    Busy {
        /// Failures before.
        tries: u32,
    },
    /// Did not work.
    Failed {
        /// Failures so far.
        tries: u32,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// Done.
    Done,
}

impl Stage {
    /// Begins if it is time; otherwise tells when it will be.
    pub fn begin(&mut self, now: Timestamp) -> Begin {
        match *self {
            Stage::Todo => *self = Stage::Busy { tries: 0 },
            Stage::Failed { tries, retry_at } if retry_at <= now => *self = Stage::Busy { tries },
            Stage::Failed { retry_at, .. } => return Begin::Later(retry_at),
            Stage::Busy { .. } => return Begin::Wait,
            Stage::Done => return Begin::Done,
        }
        Begin::Now
    }

    /// Takes the outcome in.
    pub fn end(&mut self, ok: bool, now: Timestamp) {
        let tries = if let Stage::Busy { tries } = self { *tries + 1 } else { 1 };
        *self = if ok { Stage::Done } else { Stage::Failed { tries, retry_at: later(now, pause(tries)) } };
    }

    /// A failure is tried again now.
    pub fn hurry(&mut self, now: Timestamp) {
        if let Stage::Failed { retry_at, .. } = self {
            *retry_at = now;
        }
    }
}

/// What `Stage::begin` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Do it.
    Now,
    /// It is under way.
    Wait,
    /// Not before.
    Later(Timestamp),
    /// Nothing to do.
    Done,
}

/// The pause after so many failures.
pub fn pause(tries: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(RETRY_LONGEST)
}

/// Where the pod's sandbox is.
#[derive(Clone, Debug, PartialEq)]
pub enum Sandbox {
    /// To be made.
    None {
        /// How many there were.
        attempt: u32,
        /// Progress.
        stage: Stage,
    },
    /// Stands.
    Ready(SandboxFacts),
    /// Its shim died, or it is no longer wanted: to be removed.
    Doomed {
        /// Which.
        facts: SandboxFacts,
        /// Progress.
        stage: Stage,
    },
    /// Removed, and none will be made.
    Gone,
}

/// A sandbox that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxFacts {
    /// Its id.
    pub id: String,
    /// How many the pod had before.
    pub attempt: u32,
    /// Its addresses; the node's with hostNetwork.
    pub addresses: Vec<IpAddr>,
    /// Whether its runtime makes mounts read-only with all that is mounted below.
    pub recursive_read_only: bool,
}

/// A container of the pod through all its runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its part.
    pub kind: Kind,
    /// Its newest run.
    pub run: Option<Run>,
    /// How the run before ended.
    pub last: Option<Ended>,
    /// Resources that it was granted; `None` for one that has none of its own (an ephemeral one).
    pub granted: Option<ResourceRequirements>,
    /// What is under way.
    pub doing: Doing,
    /// Why it does not start.
    pub trouble: Option<Trouble>,
    /// Between crashes.
    pub crashes: Backoff,
    /// Between pulls and other failures to start.
    pub starts: Backoff,
    /// Its work was lost with the sandbox and is done anew.
    pub redo: bool,
    /// The startup probe has passed, or there is none and it runs.
    pub started: bool,
    /// The readiness probe passes, or there is none and it is started.
    pub ready: bool,
}

impl Member {
    /// One that never ran.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            run: None,
            last: None,
            granted: None,
            doing: Doing::Nothing,
            trouble: None,
            crashes: Backoff::default(),
            starts: Backoff::default(),
            redo: false,
            started: false,
            ready: false,
        }
    }

    /// How the newest run ended.
    pub fn ended(&self) -> Option<&Ended> {
        match self.run.as_ref().map(|r| &r.state) {
            Some(RunState::Ended(ended)) => Some(ended),
            _ => None,
        }
    }

    /// The newest run while it lives.
    pub fn running(&self) -> Option<&Run> {
        self.run.as_ref().filter(|r| matches!(r.state, RunState::Running { .. }))
    }

    /// Nothing of it lives or comes to life.
    pub fn at_rest(&self) -> bool {
        self.running().is_none() && self.doing == Doing::Nothing
    }

    /// Attempt number of the next run.
    pub fn next_attempt(&self) -> u32 {
        self.run.as_ref().map_or(0, |r| r.attempt + 1)
    }
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: ContainerId,
    /// How many there were before: `restartCount`.
    pub attempt: u32,
    /// `imageID`.
    pub image_id: String,
    /// Who it runs as: uid, gid, groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// What its cgroup has; `None` where nobody knows.
    pub limits: Option<Resources>,
    /// How it fares.
    pub state: RunState,
}

/// How a run fares.
#[derive(Clone, Debug, PartialEq)]
pub enum RunState {
    /// Alive.
    Running {
        /// Since.
        started_at: Timestamp,
    },
    /// Over.
    Ended(Ended),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Container id; empty when there never was one.
    pub id: String,
    /// When it began, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// 128 + signal when killed.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// Termination message.
    pub message: String,
}

/// What is under way for a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// Nothing.
    Nothing,
    /// Image, configuration, creation, start.
    Starting {
        /// The attempt.
        attempt: u32,
        /// It was told to give up.
        cancelled: bool,
    },
    /// Its postStart hook runs.
    PostStart,
    /// It is being stopped.
    Stopping(Stopping),
}

/// How far a stop is.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopping {
    /// What was done last.
    pub phase: StopPhase,
    /// When the kill signal comes.
    pub kill_at: Timestamp,
}

/// Steps of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopPhase {
    /// The preStop hook runs.
    PreStop,
    /// Asked to end.
    Asked,
    /// Killed.
    Killed,
}

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// state.waiting.reason.
    pub reason: String,
    /// state.waiting.message.
    pub message: String,
    /// When it is tried again.
    pub retry_at: Timestamp,
    /// An image that did not come is `ErrImagePull` until then, `ImagePullBackOff` from then on.
    pub turns_at: Option<Timestamp>,
}

/// Why and how a pod ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Why.
    pub cause: Cause,
    /// When what still runs is killed.
    pub kill_at: Timestamp,
}

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its object was deleted.
    Deleted,
    /// `activeDeadlineSeconds` are over.
    Deadline,
    /// Its containers are done.
    Completed,
    /// The node cannot keep it.
    Evicted(Eviction),
    /// The node has to end it for another reason than what it takes.
    Terminated(Termination),
}

/// An end that the node decides upon, and what the API is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// `status.reason`.
    pub reason: &'static str,
    /// `status.message`.
    pub message: &'static str,
    /// The message of the condition `DisruptionTarget`.
    pub disruption: &'static str,
    /// It may take no longer than this, nor longer than the pod may anyway.
    pub grace: Option<Duration>,
    /// A pod whose containers all end well counts as `Succeeded` nevertheless.
    pub may_succeed: bool,
}

impl Life {
    /// The life of a pod that the node has just seen.
    pub fn new(pod: &Pod, refused: Option<Refusal>, now: Timestamp) -> Self {
        let status = pod.status.as_ref();
        let start_time = status.and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0);
        let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let mut life = Self {
            refused,
            start_time,
            devices: Stage::Done,
            volumes: Stage::Todo,
            sandbox: if over { Sandbox::Gone } else { Sandbox::None { attempt: 0, stage: Stage::Todo } },
            members: BTreeMap::new(),
            initialized: false,
            ending: over.then_some(Ending { cause: Cause::Completed, kill_at: now }),
            reported: over,
            cleaned: Stage::Todo,
            deleted: Stage::Todo,
            gone: false,
            resize: Resizing::default(),
            whole: Whole::of(pod),
            restarting_all: false,
            longest_backoff: backoff::LONGEST,
        };
        life.meet(pod);
        life
    }

    /// Adds containers that the spec has and this life does not (ephemeral ones come late).
    pub fn meet(&mut self, pod: &Pod) {
        for part in spec::parts(pod) {
            let granted = (part.kind != Kind::Ephemeral).then(|| part.spec.resources.unwrap_or_default());
            self.members.entry(part.spec.name).or_insert_with(|| Member { granted, ..Member::new(part.kind) });
        }
    }

    /// Nothing lives and nothing will.
    pub fn all_ended(&self) -> bool {
        self.ending.is_some() && self.members.values().all(Member::at_rest)
    }

    /// Nothing is left to do for it, ever.
    pub fn over(&self) -> bool {
        self.gone && self.cleaned == Stage::Done
    }

    /// The id of the container that a member's run of this attempt has: the same whoever asks, so that a start can be repeated.
    pub fn container_id(sandbox: &str, name: &str, attempt: u32) -> ContainerId {
        ContainerId { sandbox: sandbox.to_owned(), id: digest(&[sandbox, name, &attempt.to_string()]) }
    }

    /// The id of a pod's sandbox of this attempt.
    pub fn sandbox_id(uid: &str, attempt: u32) -> String {
        digest(&["sandbox", uid, &attempt.to_string()])
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
