//! The phase of a pod and its conditions, from the statuses of its containers.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::{
    restart_all,
    spec::{self, Kind, Part},
};

/// Status of the container of this name.
pub fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

fn terminated(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
}

fn last_terminated(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// Its last run was ended so that all containers begin anew.
fn begins_anew(status: &ContainerStatus) -> bool {
    let states = [&status.state, &status.last_state];
    let newest = states.into_iter().flatten().find_map(|s| s.terminated.as_ref());
    !is_running(status) && newest.is_some_and(|t| t.reason.as_deref() == Some(restart_all::REASON))
}

/// `Pending`, `Running`, `Succeeded` or `Failed`. `over`: nothing of the pod will run again.
pub fn phase(pod: &Pod, parts: &[Part], statuses: &[ContainerStatus], over: bool) -> &'static str {
    let (mut initializing, mut init_failed) = (false, false);
    let (mut waiting, mut running, mut stopped, mut failed) = (0, 0, 0, 0);
    let mut comes_again = false;
    let mut sidecars_run = false;
    for part in parts {
        let Some(status) = find(statuses, &part.spec.name) else { continue };
        match part.kind {
            Kind::Init => match terminated(status).or_else(|| last_terminated(status).filter(|_| !is_running(status))) {
                Some(0) => {}
                Some(code) if !spec::restarts(pod, part, code) && !begins_anew(status) => init_failed = true,
                _ => initializing = true,
            },
            Kind::Sidecar => {
                sidecars_run |= is_running(status);
                initializing |= status.started != Some(true) && terminated(status).is_none() && last_terminated(status).is_none();
            }
            Kind::Main => {
                let ended = terminated(status).or_else(|| last_terminated(status).filter(|_| !is_running(status)));
                if is_running(status) {
                    running += 1;
                } else if let Some(code) = ended {
                    stopped += 1;
                    failed += usize::from(code != 0);
                    comes_again |= spec::restarts(pod, part, code) || begins_anew(status);
                } else {
                    waiting += 1;
                }
            }
            Kind::Ephemeral => {}
        }
    }
    if init_failed {
        return "Failed";
    }
    let none_began = running == 0 && stopped == 0;
    if initializing && none_began {
        return if over && !none_began { "Failed" } else { "Pending" };
    }
    if waiting > 0 {
        return "Pending";
    }
    if running > 0 || (sidecars_run && stopped > 0) || (comes_again && !over) {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    if failed > 0 { "Failed" } else { "Succeeded" }
}

/// What the conditions are drawn from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The pod, with the conditions that the API has (readiness gates).
    pub pod: &'a Pod,
    /// Its containers.
    pub parts: &'a [Part],
    /// Their statuses.
    pub statuses: &'a [ContainerStatus],
    /// Its phase.
    pub phase: &'a str,
    /// Sandbox and network stand.
    pub sandbox: bool,
    /// Init containers have done their work.
    pub initialized: bool,
}

/// The five conditions, without times.
pub fn conditions(facts: &Facts<'_>) -> Vec<PodCondition> {
    let ready = containers_ready(facts);
    vec![
        condition("PodReadyToStartContainers", if facts.sandbox { Ok(()) } else { Err(("", String::new())) }),
        initialized(facts),
        condition("Ready", ready.clone().and_then(|()| gates(facts.pod))),
        condition("ContainersReady", ready),
        condition("PodScheduled", Ok(())),
    ]
}

type Verdict = Result<(), (&'static str, String)>;

fn condition(kind: &str, verdict: Verdict) -> PodCondition {
    let (status, reason, message) = match verdict {
        Ok(()) => ("True", "", String::new()),
        Err((reason, message)) => ("False", reason, message),
    };
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(message).filter(|m| !m.is_empty()),
        ..Default::default()
    }
}

fn initialized(facts: &Facts<'_>) -> PodCondition {
    if facts.phase == "Succeeded" {
        return PodCondition { reason: Some("PodCompleted".to_owned()), ..condition("Initialized", Ok(())) };
    }
    let began = facts
        .parts
        .iter()
        .filter(|p| p.kind == Kind::Main)
        .any(|p| find(facts.statuses, &p.spec.name).is_some_and(|s| s.container_id.as_deref().is_some_and(|id| !id.is_empty())));
    if facts.initialized || began {
        return condition("Initialized", Ok(()));
    }
    let open = facts.parts.iter().filter(|p| match (p.kind, find(facts.statuses, &p.spec.name)) {
        (Kind::Init, status) => status.and_then(terminated) != Some(0),
        (Kind::Sidecar, status) => status.is_none_or(|s| s.started != Some(true)),
        _ => false,
    });
    let open: Vec<&str> = open.map(|p| p.spec.name.as_str()).collect();
    if open.is_empty() {
        return condition("Initialized", Ok(()));
    }
    condition("Initialized", Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", open.join(" ")))))
}

fn containers_ready(facts: &Facts<'_>) -> Verdict {
    match facts.phase {
        "Succeeded" => return Err(("PodCompleted", String::new())),
        "Failed" => return Err(("PodFailed", String::new())),
        _ => {}
    }
    let unready = facts.parts.iter().filter(|p| matches!(p.kind, Kind::Main | Kind::Sidecar));
    let unready = unready.filter(|p| find(facts.statuses, &p.spec.name).is_none_or(|s| !s.ready));
    let unready: Vec<&str> = unready.map(|p| p.spec.name.as_str()).collect();
    if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    }
}

fn gates(pod: &Pod) -> Verdict {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let gates = pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let closed = gates.filter(|g| !conditions.iter().any(|c| c.type_ == g.condition_type && c.status == "True"));
    let closed: Vec<String> = closed.map(|g| format!("the condition {:?} is not True", g.condition_type)).collect();
    if closed.is_empty() { Ok(()) } else { Err(("ReadinessGatesNotReady", closed.join(", "))) }
}
