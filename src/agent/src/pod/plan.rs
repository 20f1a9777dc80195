//! The state machine of a pod: `step(pod, life, event, now)` takes an event in and says what to do and when to look again.
//!
//! Devices, then volumes, then the sandbox (with its network), then init containers in order, then the others. Pure: no I/O, no clock.

use std::time::Duration;

use coracle_runtime::{ContainerId, Resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    absorb,
    backoff::later,
    life::{Begin, Cause, Doing, Ended, Ending, Life, Refusal, Run, Sandbox, SandboxFacts, Stage, Termination, Trouble},
    resize, restart_all,
    spec::{self, Kind, Part},
    stop,
};
use crate::eviction::Eviction;

/// What happened.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes, one at a time, and moved, not copied")]
pub enum Event {
    /// Time went by, or the pod's object changed: look again.
    Look,
    /// The pod's object is no more.
    Gone,
    /// An object that the pod uses changed: what failed may work now.
    ObjectsChanged,
    /// The images that a container waits for are here.
    ImagesArrived {
        /// Container.
        name: String,
    },
    /// The pod has its devices, or why the node does not take it.
    DevicesGiven(Result<(), Refusal>),
    /// The volumes are there, or why not.
    VolumesMounted(bool),
    /// The sandbox stands, or not.
    SandboxMade(Option<SandboxFacts>),
    /// The sandbox is away, or not.
    SandboxRemoved(bool),
    /// The sandbox died.
    SandboxLost(String),
    /// A start came to an end with a run (which may be over already).
    Started {
        /// Container.
        name: String,
        /// Its run.
        run: Run,
    },
    /// A start did not come to a run.
    NotStarted {
        /// Container.
        name: String,
        /// state.waiting.reason.
        reason: String,
        /// state.waiting.message.
        message: String,
    },
    /// The postStart hook is over.
    PostStarted {
        /// Container.
        name: String,
        /// Its id.
        id: String,
        /// It worked.
        ok: bool,
    },
    /// The preStop hook is over.
    PreStopped {
        /// Container.
        name: String,
        /// Its id.
        id: String,
    },
    /// A run is over.
    Exited {
        /// Container.
        name: String,
        /// How.
        ended: Ended,
    },
    /// A probe crossed a threshold.
    Probed {
        /// Container.
        name: String,
        /// Its id.
        id: String,
        /// Which probe.
        probe: Probe,
        /// Its verdict.
        ok: bool,
    },
    /// The API has the status in which all containers have ended.
    Reported,
    /// Volumes and directories are away, or not.
    Cleaned(bool),
    /// The API object is away, or not.
    Deleted(bool),
    /// The node cannot keep the pod.
    Evict(Eviction),
    /// The node has to end the pod.
    Terminate(Termination),
    /// The node grants the resources that the pod asks for now, or not.
    Allocated(Result<(), Refusal>),
    /// Another pod needs less than before.
    RoomFreed,
    /// Limits were written.
    Resized {
        /// Of which containers, and which.
        done: Vec<(ContainerId, Resources)>,
        /// What the pod as a whole has now; `None` when that is what it had.
        whole: Option<Resources>,
        /// Why not those of the others.
        error: Option<String>,
    },
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// Before the other two.
    Startup,
    /// Takes it into Services.
    Readiness,
    /// Restarts it.
    Liveness,
}

/// What to do. Each but `Note`, `Signal` and `Cancel` is answered by one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Give all containers their devices.
    GiveDevices,
    /// Make all volumes.
    MountVolumes,
    /// Network, then sandbox.
    MakeSandbox {
        /// How many there were.
        attempt: u32,
    },
    /// Image, configuration, creation, start.
    Start {
        /// Container.
        name: String,
        /// Which run.
        attempt: u32,
    },
    /// Give a start up that has not come to creation.
    Cancel {
        /// Container.
        name: String,
    },
    /// Run the hook.
    PostStart {
        /// Container.
        name: String,
    },
    /// Run the hook.
    PreStop {
        /// Container.
        name: String,
        /// It is killed after that.
        timeout: Duration,
    },
    /// Send a signal to a container.
    Signal {
        /// Container.
        name: String,
        /// Kill, or ask to end.
        kill: bool,
    },
    /// Tell in an Event.
    Note {
        /// Container it is about.
        name: Option<String>,
        /// Warning or Normal.
        warning: bool,
        /// CamelCase.
        reason: &'static str,
        /// In words.
        message: String,
    },
    /// Remove the sandbox with all its containers, and its network.
    RemoveSandbox {
        /// Which.
        id: String,
    },
    /// Remove volumes, directories; logs too once the object is gone.
    Clean,
    /// Remove the API object, of this uid only.
    Delete,
    /// Ask for the resources that the pod asks for now.
    Allocate,
    /// Write limits of running containers, and the pod's.
    Resize {
        /// Which, of whom.
        changes: Vec<(ContainerId, Resources)>,
        /// What the pod as a whole is to have then.
        whole: Resources,
    },
}

/// What follows from an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// To do now, in order.
    pub actions: Vec<Action>,
    /// Look again then, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

impl Step {
    /// Wakes at the earliest time asked for.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// Adds an Event of a container.
    pub fn note(&mut self, name: Option<&str>, warning: bool, reason: &'static str, message: String) {
        self.actions.push(Action::Note { name: name.map(str::to_owned), warning, reason, message });
    }
}

/// Takes `event` into `life` and says what to do next. The same life, pod and time give the same answer, and an unchanged life none.
pub fn step(pod: &Pod, life: &mut Life, event: Event, now: Timestamp) -> Step {
    let mut out = Step::default();
    life.meet(pod);
    absorb::absorb(pod, life, event, now, &mut out);
    note_end(pod, life, now, &mut out);
    if life.refused.is_some() || life.ending.is_some() {
        stop::wind_down(pod, life, now, &mut out);
    } else {
        resize::step(pod, life, now, &mut out);
        bring_up(pod, life, now, &mut out);
        if life.ending.is_some() {
            stop::wind_down(pod, life, now, &mut out);
        }
    }
    stop::carry_on(pod, life, now, &mut out);
    out
}

/// Deletion and deadline.
fn note_end(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    if life.gone || pod.metadata.deletion_timestamp.is_some() {
        let grace = match pod.metadata.deletion_grace_period_seconds {
            Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)),
            None => spec::grace(pod),
        };
        match &mut life.ending {
            Some(ending) => {
                // A shorter grace wins; a longer one cannot give back what was taken.
                ending.kill_at = ending.kill_at.min(later(now, grace));
                if ending.cause == Cause::Completed && !life.reported {
                    ending.cause = Cause::Deleted;
                }
            }
            None => life.ending = Some(Ending { cause: Cause::Deleted, kill_at: later(now, grace) }),
        }
    }
    let deadline = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).and_then(|s| u64::try_from(s).ok());
    if let (Some(seconds), None, None) = (deadline, &life.ending, &life.refused) {
        let end = later(life.start_time, Duration::from_secs(seconds));
        if end <= now {
            life.ending = Some(Ending { cause: Cause::Deadline, kill_at: later(now, spec::grace(pod)) });
            out.note(None, false, "DeadlineExceeded", "the pod was active longer than activeDeadlineSeconds allow".to_owned());
        } else {
            out.wake(end);
        }
    }
}

fn bring_up(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    match life.devices.begin(now) {
        Begin::Done => {}
        Begin::Now => return out.actions.push(Action::GiveDevices),
        Begin::Later(at) => return out.wake(at),
        Begin::Wait => return,
    }
    match life.volumes.begin(now) {
        Begin::Done => {}
        Begin::Now => return out.actions.push(Action::MountVolumes),
        Begin::Later(at) => return out.wake(at),
        Begin::Wait => return,
    }
    match &mut life.sandbox {
        Sandbox::Ready(_) => bring_up_members(pod, life, now, out),
        Sandbox::None { attempt, stage } => match stage.begin(now) {
            Begin::Now => {
                out.actions.push(Action::MakeSandbox { attempt: *attempt });
                resize::make(pod, life);
            }
            Begin::Later(at) => out.wake(at),
            Begin::Wait | Begin::Done => {}
        },
        Sandbox::Doomed { .. } => doom(life, now, out),
        Sandbox::Gone => {}
    }
}

/// Removes a sandbox that died, once no start in it is under way.
pub(super) fn doom(life: &mut Life, now: Timestamp, out: &mut Step) {
    if life.members.values().any(|m| matches!(m.doing, Doing::Starting { .. })) {
        return;
    }
    let Sandbox::Doomed { facts, stage } = &mut life.sandbox else { return };
    match stage.begin(now) {
        Begin::Now => out.actions.push(Action::RemoveSandbox { id: facts.id.clone() }),
        Begin::Later(at) => out.wake(at),
        Begin::Wait | Begin::Done => {}
    }
}

fn bring_up_members(pod: &Pod, life: &mut Life, now: Timestamp, out: &mut Step) {
    let parts = spec::parts(pod);
    for part in parts.iter().filter(|p| p.kind == Kind::Ephemeral) {
        want(pod, life, part, now, out);
    }
    if restart_all::step(life, &parts, now, out) {
        return;
    }
    if !life.initialized {
        match initialize(pod, life, &parts, now, out) {
            Init::Done => life.initialized = true,
            Init::Pending => return,
            Init::Failed => return complete(pod, life, now),
        }
    }
    for part in parts.iter().filter(|p| p.kind == Kind::Main) {
        want(pod, life, part, now, out);
    }
    if parts.iter().filter(|p| p.kind == Kind::Main).all(|p| is_done(pod, life, p)) {
        return complete(pod, life, now);
    }
    for part in parts.iter().filter(|p| p.kind == Kind::Sidecar) {
        want(pod, life, part, now, out);
    }
}

enum Init {
    Done,
    Pending,
    Failed,
}

fn initialize(pod: &Pod, life: &mut Life, parts: &[Part], now: Timestamp, out: &mut Step) -> Init {
    for part in parts.iter().filter(|p| matches!(p.kind, Kind::Init | Kind::Sidecar)) {
        let Some(member) = life.members.get(&part.spec.name) else { continue };
        if part.kind == Kind::Sidecar {
            let up = member.running().is_some() && member.started && !matches!(member.doing, Doing::PostStart);
            want(pod, life, part, now, out);
            if !up {
                return Init::Pending;
            }
            continue;
        }
        match member.ended().filter(|_| !member.redo) {
            Some(ended) if ended.exit_code == 0 && member.doing == Doing::Nothing => continue,
            Some(ended) if member.doing == Doing::Nothing && !spec::restarts(pod, part, ended.exit_code) => return Init::Failed,
            _ => {
                want(pod, life, part, now, out);
                return Init::Pending;
            }
        }
    }
    Init::Done
}

/// A main container that has ended and stays so.
fn is_done(pod: &Pod, life: &Life, part: &Part) -> bool {
    life.members
        .get(&part.spec.name)
        .is_some_and(|m| m.doing == Doing::Nothing && !m.redo && m.ended().is_some_and(|e| !spec::restarts(pod, part, e.exit_code)))
}

fn complete(pod: &Pod, life: &mut Life, now: Timestamp) {
    life.ending = Some(Ending { cause: Cause::Completed, kill_at: later(now, spec::grace(pod)) });
}

/// Starts a container that is not there, unless it rests or is done.
fn want(pod: &Pod, life: &mut Life, part: &Part, now: Timestamp, out: &mut Step) {
    let (name, longest) = (part.spec.name.as_str(), life.longest_backoff);
    let Some(member) = life.members.get_mut(name) else { return };
    if member.doing != Doing::Nothing || member.running().is_some() {
        return;
    }
    if let Some(trouble) = &mut member.trouble {
        if let Some(turns_at) = trouble.turns_at.filter(|_| trouble.retry_at > now) {
            if turns_at <= now {
                trouble.turns_at = None;
                trouble.reason = "ImagePullBackOff".to_owned();
                // The image is the container's, or that of a volume: the failure names it.
                out.note(Some(name), false, "BackOff", format!("resting before the next pull: {}", trouble.message));
            } else {
                out.wake(turns_at);
            }
        }
        if trouble.retry_at > now {
            return out.wake(trouble.retry_at);
        }
    }
    if let Some(ended) = member.ended().filter(|_| !member.redo) {
        if !spec::restarts(pod, part, ended.exit_code) {
            return;
        }
        if member.trouble.is_none()
            && let Some((until, pause)) = member.crashes.resting(ended.finished_at, now, longest)
        {
            let message = format!("resting {} s before container {name} of pod {} is started again", pause.as_secs(), spec::full_name(pod));
            out.note(Some(name), true, "BackOff", message.clone());
            member.trouble = Some(Trouble { reason: "CrashLoopBackOff".to_owned(), message, retry_at: until, turns_at: None });
            return out.wake(until);
        }
        if member.trouble.as_ref().is_none_or(|t| t.reason == "CrashLoopBackOff") {
            member.crashes.count(now);
            member.trouble = None;
        }
    }
    let attempt = member.next_attempt();
    member.doing = Doing::Starting { attempt, cancelled: false };
    out.actions.push(Action::Start { name: name.to_owned(), attempt });
}

/// Whether volumes or configuration failed and may be tried again.
pub(super) fn hurry(life: &mut Life, now: Timestamp) {
    life.volumes.hurry(now);
    for member in life.members.values_mut() {
        if let Some(trouble) = member.trouble.as_mut().filter(|t| t.reason == "CreateContainerConfigError") {
            trouble.retry_at = now;
        }
    }
}

/// `Stage` of a thing that failed without its `begin` (a stage that an adopted life has).
pub(super) fn settle(stage: &mut Stage, ok: bool, now: Timestamp) {
    stage.end(ok, now);
}
