//! `RestartAllContainers`: a container's exit, by a rule of its own, makes the pod begin anew in place: same sandbox, volumes and addresses.
//!
//! Everything that runs is killed, without hooks or grace; then the init containers run again, and what follows them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use super::{
    life::{Doing, Ended, Life, RunState, Sandbox, StopPhase, Stopping, Trouble},
    plan::{Action, Step},
    spec::{self, Kind, Part},
};

/// The condition's type.
pub const CONDITION: &str = "AllContainersRestarting";
/// Why a container waits, and how its last run counts, after all were ended.
pub const REASON: &str = "RestartingAllContainers";
/// The same in words: upstream's, which its tests look for.
const MESSAGE: &str = "The container is removed because RestartAllContainers in place";
/// The exit code of a run that was ended so.
const EXIT_CODE: i32 = 137;

/// Whether an exit of any container may do that.
pub fn is_possible(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    containers.flat_map(|c| c.restart_policy_rules.iter().flatten()).any(|rule| rule.action == "RestartAllContainers")
}

/// Takes the next step of a restart of all containers, or begins one. `false`: there is none under way.
pub fn step(life: &mut Life, parts: &[Part], now: Timestamp, out: &mut Step) -> bool {
    let Sandbox::Ready(_) = &life.sandbox else {
        life.restarting_all = false;
        return false;
    };
    if !life.restarting_all && !parts.iter().any(|part| asks(life, part)) {
        return false;
    }
    life.restarting_all = true;
    for part in parts.iter().filter(|part| part.kind != Kind::Ephemeral) {
        end(life, part, now, out);
    }
    let own = |kind: Kind| kind != Kind::Ephemeral;
    if life.members.values().all(|member| !own(member.kind) || member.at_rest()) {
        reset(life, now);
    }
    life.restarting_all
}

/// Whether the newest run of a container ended as the rule has it.
fn asks(life: &Life, part: &Part) -> bool {
    let member = life.members.get(&part.spec.name).filter(|m| m.doing == Doing::Nothing && !m.redo);
    let code = member.and_then(|m| m.ended()).map(|ended| ended.exit_code);
    code.and_then(|code| spec::matching_rule(part, code)) == Some("RestartAllContainers")
}

fn end(life: &mut Life, part: &Part, now: Timestamp, out: &mut Step) {
    let name = &part.spec.name;
    let Some(member) = life.members.get_mut(name) else { return };
    match &mut member.doing {
        Doing::Starting { cancelled, .. } if !*cancelled => {
            *cancelled = true;
            return out.actions.push(Action::Cancel { name: name.clone() });
        }
        Doing::Starting { .. } | Doing::Stopping(Stopping { phase: StopPhase::Killed, .. }) => return,
        _ => {}
    }
    if member.running().is_none() {
        return;
    }
    out.note(Some(name), false, "Killing", format!("stopping container {name}: all containers are restarted"));
    member.started = false;
    member.ready = false;
    // It is killed at once, and again should that be lost.
    member.doing = Doing::Stopping(Stopping { phase: StopPhase::Asked, kill_at: now });
}

/// Nothing lives: the pod is as it was before its first container, but for the counts.
fn reset(life: &mut Life, now: Timestamp) {
    life.restarting_all = false;
    life.initialized = false;
    for member in life.members.values_mut().filter(|member| member.kind != Kind::Ephemeral) {
        let Some(run) = member.run.as_mut() else { continue };
        let ended = Ended {
            id: String::new(),
            started_at: None,
            finished_at: now,
            exit_code: EXIT_CODE,
            reason: REASON.to_owned(),
            message: MESSAGE.to_owned(),
        };
        run.state = RunState::Ended(ended);
        member.redo = true;
        member.crashes = Default::default();
        member.starts = Default::default();
        member.trouble = Some(Trouble { reason: REASON.to_owned(), message: MESSAGE.to_owned(), retry_at: now, turns_at: None });
    }
}

/// The condition, of a pod for which it is possible.
pub fn condition(pod: &Pod, life: &Life, phase: &str) -> Option<PodCondition> {
    if !is_possible(pod) {
        return None;
    }
    let (status, reason, message) = match (phase, life.restarting_all) {
        ("Succeeded", _) => ("False", Some("PodCompleted"), None),
        ("Failed", _) => ("False", Some("PodFailed"), None),
        (_, true) => ("True", Some("RestartAllContainersStarted"), Some("container exited with restart policy rule")),
        (_, false) => ("False", None, None),
    };
    Some(PodCondition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
        ..PodCondition::default()
    })
}
