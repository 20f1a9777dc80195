//! A life from what a restarted agent finds: sandboxes and containers that run, and what the API last knew.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use coracle_runtime::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::{
    backoff::Backoff,
    life::{Ended, Life, Member, Run, RunState, Sandbox, SandboxFacts, Stage},
    resize, spec,
    status::ID_SCHEME,
};
use crate::resources::limits;

/// A sandbox that the runtime has for the pod.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id, attempt, addresses.
    pub facts: SandboxFacts,
    /// Its shim lives.
    pub ready: bool,
    /// Runs by container name, in order of their attempts. Containers that were made and not started are not among them.
    pub runs: BTreeMap<String, Vec<Run>>,
}

/// Takes what was found into a new life.
pub fn adopt(life: &mut Life, pod: &Pod, found: Option<Found>, now: Timestamp) {
    let parts = spec::parts(pod);
    let known: Vec<&ContainerStatus> = pod
        .status
        .iter()
        .flat_map(|s| {
            let lists = [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses];
            lists.into_iter().flat_map(|l| l.iter().flatten())
        })
        .collect();
    let mut runs = BTreeMap::new();
    let mut standing = false;
    if let Some(found) = found {
        standing = found.ready;
        runs = found.runs;
        life.sandbox = if found.ready { Sandbox::Ready(found.facts) } else { Sandbox::Doomed { facts: found.facts, stage: Stage::Todo } };
        life.volumes = if standing { Stage::Done } else { Stage::Todo };
    }
    if standing {
        resize::adopt(pod, life);
    }
    let inherited = resize::inherited(life);
    for part in &parts {
        let name = part.spec.name.as_str();
        let Some(member) = life.members.get_mut(name) else { continue };
        let api = known.iter().find(|s| s.name == name);
        let mut own = runs.remove(name).unwrap_or_default();
        member.run = own.pop();
        member.last = match own.pop().map(|r| r.state) {
            Some(RunState::Ended(ended)) => Some(ended),
            _ => api.and_then(|s| s.last_state.as_ref()).and_then(|s| ended_of(s, now)),
        };
        if member.run.is_none() {
            member.run = api.and_then(|s| forgotten(s, now));
        }
        let alive = member.running().is_some();
        if alive
            && !standing
            && let Some(run) = member.run.as_mut()
        {
            run.state = RunState::Ended(unknown(&run.id.id, now));
        }
        // What the API last showed of this very run still holds.
        let same = member.run.as_ref().is_some_and(|r| api.is_some_and(|s| id_of(s) == Some(r.id.id.as_str())));
        if let (true, true, Some(member_run), Some(resources)) =
            (alive && standing, same, &member.run, api.and_then(|s| s.resources.clone()))
            && member
                .granted
                .as_ref()
                .is_some_and(|wish| member_run.limits.as_ref().is_some_and(|have| limits::actual(wish, have, &inherited) != *wish))
        {
            // A resize was not done yet: what was granted is what the API shows, and the wish is judged anew.
            member.granted = Some(resources);
        }
        member.crashes = crashes(member);
        if alive && standing {
            member.started = part.spec.startup_probe.is_none() || (same && api.is_some_and(|s| s.started == Some(true)));
            member.ready = member.started && (part.spec.readiness_probe.is_none() || (same && api.is_some_and(|s| s.ready)));
        }
    }
    if standing {
        resize::make(pod, life);
    }
    life.initialized =
        standing && parts.iter().any(|p| p.kind == spec::Kind::Main && life.members.get(&p.spec.name).is_some_and(|m| m.run.is_some()));
    if let Sandbox::None { attempt, .. } = &mut life.sandbox
        && known.iter().any(|s| s.container_id.is_some())
    {
        // The sandbox was lost with all that knew of it (a reboot): the next has a number that none had.
        *attempt = u32::try_from(now.as_second().max(1)).unwrap_or(1);
        // A new sandbox starts from the beginning.
        for member in life.members.values_mut().filter(|m| m.kind == spec::Kind::Init) {
            member.redo = member.ended().is_some_and(|e| e.exit_code == 0);
        }
    }
}

/// Runs that nobody remembers but the logs of the pod, by container and attempt: what a static pod has after a reboot.
pub fn remember(life: &mut Life, attempts: &BTreeMap<String, u32>, now: Timestamp) {
    for (name, attempt) in attempts {
        let Some(member) = life.members.get_mut(name).filter(|m| m.run.is_none()) else { continue };
        let id = ContainerId { sandbox: String::new(), id: String::new() };
        let state = RunState::Ended(unknown("", now));
        // Whether an init container had done its work nobody knows.
        member.redo = member.kind == spec::Kind::Init;
        member.run = Some(Run { id, attempt: *attempt, image_id: String::new(), user: None, limits: None, state });
        member.crashes = crashes(member);
        if let Sandbox::None { attempt, .. } = &mut life.sandbox {
            *attempt = u32::try_from(now.as_second().max(1)).unwrap_or(1);
        }
    }
}

/// What a container that has crashed before rests after its next end: read from the rest before its newest run.
fn crashes(member: &Member) -> Backoff {
    let Some(run) = &member.run else { return Backoff::default() };
    let began = match &run.state {
        RunState::Running { started_at } => Some(*started_at),
        RunState::Ended(ended) => ended.started_at,
    };
    let rest = |last: &Ended| began.map(|at| Duration::try_from(at.duration_since(last.finished_at)).unwrap_or_default());
    began.map_or_else(Backoff::default, |at| Backoff::after(run.attempt, member.last.as_ref().and_then(rest), at))
}

fn id_of(status: &ContainerStatus) -> Option<&str> {
    status.container_id.as_deref().and_then(|id| id.strip_prefix(ID_SCHEME))
}

/// A run that only the API remembers.
fn forgotten(status: &ContainerStatus, now: Timestamp) -> Option<Run> {
    let id = id_of(status)?.to_owned();
    let ended = status.state.as_ref().and_then(|s| ended_of(s, now));
    let ended = ended.or_else(|| status.last_state.as_ref().and_then(|s| ended_of(s, now)).filter(|_| !is_running(status)));
    Some(Run {
        attempt: u32::try_from(status.restart_count).unwrap_or(0),
        image_id: status.image_id.clone(),
        user: None,
        limits: None,
        state: RunState::Ended(ended.unwrap_or_else(|| unknown(&id, now))),
        id: ContainerId { sandbox: String::new(), id },
    })
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn ended_of(state: &ContainerState, now: Timestamp) -> Option<Ended> {
    let over = state.terminated.as_ref()?;
    Some(Ended {
        id: over.container_id.as_deref().and_then(|id| id.strip_prefix(ID_SCHEME)).unwrap_or_default().to_owned(),
        started_at: over.started_at.as_ref().map(|t| t.0),
        finished_at: over.finished_at.as_ref().map_or(now, |t| t.0),
        exit_code: over.exit_code,
        reason: over.reason.clone().unwrap_or_default(),
        message: over.message.clone().unwrap_or_default(),
    })
}

/// The end of a run that nobody saw.
pub fn unknown(id: &str, now: Timestamp) -> Ended {
    Ended {
        id: id.to_owned(),
        started_at: None,
        finished_at: now,
        exit_code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was terminated".to_owned(),
    }
}

/// Addresses of an attachment, or the node's.
pub fn addresses(pod: &Pod, attached: Option<Vec<IpAddr>>, node_ips: &[IpAddr]) -> Vec<IpAddr> {
    if spec::host_network(pod) { node_ips.to_vec() } else { attached.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::plan::{self, Action, Event};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn run(attempt: u32, began: i64, ended: i64) -> Run {
        let id = ContainerId { sandbox: "s".to_owned(), id: format!("c{attempt}") };
        let ended = Ended {
            id: id.id.clone(),
            started_at: Some(at(began)),
            finished_at: at(ended),
            exit_code: 1,
            reason: "Error".to_owned(),
            message: String::new(),
        };
        Run { id, attempt, image_id: String::new(), user: None, limits: None, state: RunState::Ended(ended) }
    }

    #[test]
    fn logs_tell_how_often_a_container_ran() {
        let pod: Pod = serde_json::from_value(
            json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } }),
        )
        .expect("a pod");
        let mut life = Life::new(&pod, None, at(0));
        remember(&mut life, &BTreeMap::from([("a".to_owned(), 3), ("gone".to_owned(), 1)]), at(0));
        assert_eq!((life.members["a"].next_attempt(), life.members["b"].next_attempt()), (4, 0));
        assert!(matches!(life.sandbox, Sandbox::None { attempt: 1_000_000, .. }), "its sandbox is none that was there before");
    }

    #[test]
    fn after_a_reboot_a_pod_begins_anew() {
        let ended = |id: &str| json!({ "terminated": { "exitCode": 0, "reason": "Completed", "containerID": format!("coracle://{id}") } });
        let status = |name: &str, state: serde_json::Value| {
            json!([{ "name": name, "image": "i", "imageID": "s", "ready": true, "restartCount": 2, "containerID": format!("coracle://{name}"),
                "state": state }])
        };
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" },
            "spec": { "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] },
            "status": { "phase": "Running", "initContainerStatuses": status("i", ended("i")),
                "containerStatuses": status("a", json!({ "running": {} })) } }))
        .expect("a pod");
        let mut life = Life::new(&pod, None, at(0));
        adopt(&mut life, &pod, None, at(0));
        assert!(life.members["i"].redo && !life.initialized, "its init containers do their work again");
        assert_eq!(life.members["a"].next_attempt(), 3);
        assert_eq!(life.members["a"].ended().map(|e| e.exit_code), Some(137));
    }

    #[test]
    fn a_crash_loop_goes_on_where_it_was() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" }, "spec": { "containers": [{ "name": "a" }] } }))
                .expect("a pod");
        // Its last two runs of one second had 20 s between them: the next rest is 40 s.
        let mut life = Life::new(&pod, None, at(0));
        let facts = SandboxFacts { id: "s".to_owned(), attempt: 0, addresses: Vec::new(), recursive_read_only: true };
        let runs = BTreeMap::from([("a".to_owned(), vec![run(2, 30, 31), run(3, 51, 52)])]);
        adopt(&mut life, &pod, Some(Found { facts, ready: true, runs }), at(55));
        let step = plan::step(&pod, &mut life, Event::Look, at(55));
        assert!(!step.actions.iter().any(|a| matches!(a, Action::Start { .. })), "{step:?}");
        assert_eq!(step.wake_at, Some(at(52 + 40)));
        let step = plan::step(&pod, &mut life, Event::Look, at(52 + 40));
        assert!(step.actions.contains(&Action::Start { name: "a".to_owned(), attempt: 4 }), "{step:?}");
    }
}
