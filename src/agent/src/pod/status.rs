//! What the API shows of a pod: `status(pod, life, node)` draws it from its life. Pure; times of transitions come from the status before.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser,
        HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodSpec, PodStatus, ResourceRequirements, VolumeMount, VolumeMountStatus,
    },
    apimachinery::pkg::{api::resource::Quantity as Text, apis::meta::v1::Time},
};

use super::{
    life::{Cause, Doing, Ended, Life, Member, RunState, Sandbox, Stage},
    phase::{self, Facts},
    resize, restart_all,
    spec::{self, Kind, Part},
};
use crate::resources::{self, limits, qos};

/// What this node's container ids begin with.
pub const ID_SCHEME: &str = "coracle://";

/// Bytes of the termination messages of all containers of a pod: upstream's.
const POD_MESSAGES_BYTES: usize = 12 << 10;

/// The pod's status now. `before` is the one shown last (transition times are kept while nothing changes).
pub fn status(pod: &Pod, life: &Life, before: &PodStatus, node_ips: &[IpAddr], now: Timestamp) -> PodStatus {
    // Without a word about its wish the generation would look as if it were carried out.
    let seen = || before.observed_generation.or_else(|| pod.status.as_ref()?.observed_generation);
    let generation = if life.resize.is_open() { seen().or(pod.metadata.generation) } else { pod.metadata.generation };
    let mut out = PodStatus {
        observed_generation: generation,
        qos_class: Some(qos::class(pod.spec.as_ref()).name().to_owned()),
        start_time: Some(Time(life.start_time)),
        ..Default::default()
    };
    if let Some(refusal) = &life.refused {
        out.phase = Some("Failed".to_owned());
        out.reason = Some(refusal.reason.clone());
        out.message = Some(format!("Pod was rejected: {}", refusal.message));
        return out;
    }
    // A pod that was over before this agent began: nothing new is known of it.
    if life.ending.is_some() && life.volumes == Stage::Todo && life.members.values().all(|m| m.run.is_none()) && over_before(before) {
        return before.clone();
    }
    let parts = spec::parts(pod);
    let over = life.all_ended();
    let mut statuses: Vec<ContainerStatus> =
        parts.iter().filter_map(|p| Some(container(pod, life, p, life.members.get(&p.spec.name)?))).collect();
    let mut phase = phase::phase(pod, &parts, &statuses, over);
    let sandbox = matches!(&life.sandbox, Sandbox::Ready(facts) if !facts.addresses.is_empty());
    let fresh = phase::conditions(&Facts { pod, parts: &parts, statuses: &statuses, phase, sandbox, initialized: life.initialized });
    let deleted = pod.metadata.deletion_timestamp.is_some() || life.gone;
    if over && (deleted || life.ending.as_ref().is_some_and(|e| e.cause != Cause::Completed)) {
        mark_lost(&parts, &mut statuses, life);
        phase = phase::phase(pod, &parts, &statuses, true);
    }
    let mut conditions = fresh;
    match life.ending.as_ref().map(|e| &e.cause) {
        Some(Cause::Deadline) if over => {
            (out.reason, out.message) =
                (Some("DeadlineExceeded".to_owned()), Some("Pod was active on the node longer than the specified deadline".to_owned()));
            phase = "Failed";
        }
        Some(Cause::Evicted(eviction)) if over => {
            (out.reason, out.message) = (Some("Evicted".to_owned()), Some(eviction.message.clone()));
            phase = "Failed";
        }
        Some(Cause::Terminated(termination)) if over => {
            (out.reason, out.message) = (Some(termination.reason.to_owned()), Some(termination.message.to_owned()));
            if !(termination.may_succeed && phase == "Succeeded") {
                phase = "Failed";
            }
        }
        _ => {}
    }
    if phase == "Failed"
        && life.ending.as_ref().is_some_and(|e| matches!(e.cause, Cause::Deadline | Cause::Evicted(_) | Cause::Terminated(_)))
    {
        conditions = phase::conditions(&Facts { pod, parts: &parts, statuses: &statuses, phase, sandbox, initialized: life.initialized });
    }
    out.phase = Some(phase.to_owned());
    conditions.extend(restart_all::condition(pod, life, phase));
    if !over {
        conditions.extend(life.resize.conditions());
    }
    let disrupted = match life.ending.as_ref().map(|e| &e.cause) {
        Some(Cause::Evicted(eviction)) if eviction.for_pressure => Some(eviction.message.clone()),
        Some(Cause::Terminated(termination)) => Some(termination.disruption.to_owned()),
        _ => None,
    };
    // Told with the phase that it explains.
    if let Some(message) = disrupted.filter(|_| over) {
        conditions.push(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message),
            ..PodCondition::default()
        });
    }
    out.conditions = Some(conditions.into_iter().map(|c| dated(c, before, generation, now)).collect());
    addresses(life, before, node_ips, &mut out);
    bound_messages(&mut statuses);
    let split = |kinds: &[Kind]| {
        let of_kind = statuses.iter().filter(|s| spec::part(&parts, &s.name).is_some_and(|p| kinds.contains(&p.kind)));
        Some(of_kind.cloned().collect::<Vec<_>>()).filter(|v| !v.is_empty())
    };
    out.init_container_statuses = split(&[Kind::Init, Kind::Sidecar]);
    out.container_statuses = split(&[Kind::Main]);
    out.ephemeral_container_statuses = split(&[Kind::Ephemeral]);
    whole(pod, life, &mut out);
    out
}

/// Termination messages of a pod share a bound, so that its object does not grow with what its containers write.
fn bound_messages(statuses: &mut [ContainerStatus]) {
    let share = POD_MESSAGES_BYTES / statuses.len().max(1);
    let states = statuses.iter_mut().flat_map(|s| [&mut s.state, &mut s.last_state]).flatten();
    for message in states.filter_map(|s| s.terminated.as_mut()?.message.as_mut()) {
        let end = message.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= share).last();
        message.truncate(end.unwrap_or(0));
    }
}

/// What the pod as a whole was granted.
fn whole(pod: &Pod, life: &Life, out: &mut PodStatus) {
    type List = Option<BTreeMap<String, Text>>;
    let Some(spec) = &pod.spec else { return };
    let spec = match &life.whole.granted {
        granted if spec.resources == *granted => Cow::Borrowed(spec),
        granted => Cow::Owned(PodSpec { resources: granted.clone(), ..spec.clone() }),
    };
    let granted = |list: fn(&ResourceRequirements) -> &List| {
        let of = move |c: &Container| life.members.get(&c.name).and_then(|m| m.granted.as_ref()).and_then(|g| list(g).as_ref());
        move |c: &Container| resources::amounts(of(c))
    };
    let requests = resources::texts(&resources::asked_as(&spec, granted(|r| &r.requests)));
    let limits = resources::texts(&resources::limits_as(&spec, granted(|r| &r.limits)));
    if requests.is_some() || limits.is_some() {
        out.allocated_resources.clone_from(&requests);
        let told = ResourceRequirements { requests, limits, ..ResourceRequirements::default() };
        let have = life.whole.limits.as_ref().filter(|_| life.whole.granted.is_some() && matches!(life.sandbox, Sandbox::Ready(_)));
        out.resources = Some(have.map_or_else(|| told.clone(), |have| limits::actual(&told, have, &resources::Amounts::new())));
    }
}

fn over_before(before: &PodStatus) -> bool {
    matches!(before.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Containers that never came to be are ended too when their pod is deleted, as far as their turn had come.
fn mark_lost(parts: &[Part], statuses: &mut [ContainerStatus], life: &Life) {
    let waits = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.waiting.is_some());
    let main = parts.iter().any(|p| p.kind == Kind::Init || p.kind == Kind::Sidecar) && !life.initialized;
    let last_begun = parts
        .iter()
        .rposition(|p| matches!(p.kind, Kind::Init | Kind::Sidecar) && life.members.get(&p.spec.name).is_some_and(|m| m.run.is_some()));
    for (at, part) in parts.iter().enumerate() {
        let turn = match part.kind {
            Kind::Main => !main,
            Kind::Init | Kind::Sidecar => last_begun.is_some_and(|last| at <= last),
            Kind::Ephemeral => false,
        };
        let Some(status) = statuses.iter_mut().find(|s| s.name == part.spec.name) else { continue };
        if turn && waits(status) {
            let lost = ContainerStateTerminated {
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was terminated".to_owned()),
                exit_code: 137,
                ..Default::default()
            };
            status.state = Some(ContainerState { terminated: Some(lost), ..Default::default() });
        }
    }
}

fn addresses(life: &Life, before: &PodStatus, node_ips: &[IpAddr], out: &mut PodStatus) {
    let hosts: Vec<String> = node_ips.iter().map(ToString::to_string).collect();
    out.host_ip = hosts.first().cloned();
    out.host_ips = Some(hosts.into_iter().map(|ip| HostIP { ip }).collect());
    let facts = match &life.sandbox {
        Sandbox::Ready(facts) | Sandbox::Doomed { facts, .. } => Some(facts),
        Sandbox::None { .. } | Sandbox::Gone => None,
    };
    match facts {
        Some(facts) if !facts.addresses.is_empty() => {
            out.pod_ip = facts.addresses.first().map(ToString::to_string);
            out.pod_ips = Some(facts.addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
        }
        // An ended pod keeps the address it had.
        _ => (out.pod_ip, out.pod_ips) = (before.pod_ip.clone(), before.pod_ips.clone()),
    }
}

fn dated(mut condition: PodCondition, before: &PodStatus, generation: Option<i64>, now: Timestamp) -> PodCondition {
    let old = before.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
    let same = old.filter(|o| o.status == condition.status);
    condition.last_transition_time = same.and_then(|o| o.last_transition_time.clone()).or(Some(Time(now)));
    condition.observed_generation = generation;
    if condition.type_ == "PodScheduled" {
        // The scheduler's word is kept.
        if let Some(old) = same {
            return PodCondition { observed_generation: generation, ..old.clone() };
        }
    }
    condition
}

fn container(pod: &Pod, life: &Life, part: &Part, member: &Member) -> ContainerStatus {
    let name = part.spec.name.clone();
    let run = member.run.as_ref();
    let ephemeral = part.kind == Kind::Ephemeral;
    // One that has not begun is granted what it asks for.
    let granted = member.granted.as_ref().or(part.spec.resources.as_ref());
    let mut out = ContainerStatus {
        name: name.clone(),
        image: part.spec.image.clone().unwrap_or_default(),
        restart_count: run.map_or(0, |r| i32::try_from(r.attempt).unwrap_or(i32::MAX)),
        image_id: run.map(|r| r.image_id.clone()).unwrap_or_default(),
        container_id: run.filter(|r| !r.id.id.is_empty()).map(|r| format!("{ID_SCHEME}{}", r.id.id)),
        started: (!ephemeral).then_some(false),
        volume_mounts: mounts(life, part),
        allocated_resources: granted.and_then(|g| g.requests.clone()).filter(|r| !r.is_empty()),
        resources: resources_of(life, part, member),
        last_state: Some(ContainerState::default()),
        ..Default::default()
    };
    if let Some((uid, gid, groups)) = run.and_then(|r| r.user.clone()) {
        let linux = LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) };
        out.user = Some(ContainerUser { linux: Some(linux) });
    }
    let hooked = member.doing == Doing::PostStart;
    match run.map(|r| &r.state) {
        Some(RunState::Running { started_at }) if !hooked => {
            let running = ContainerStateRunning { started_at: Some(Time(*started_at)) };
            out.state = Some(ContainerState { running: Some(running), ..Default::default() });
            out.last_state = Some(member.last.as_ref().map(over_state).unwrap_or_default());
            out.started = (!ephemeral).then_some(part.kind == Kind::Init || member.started);
            out.ready = member.ready && matches!(part.kind, Kind::Main | Kind::Sidecar);
        }
        Some(RunState::Running { .. }) => {
            // The hook is part of the start.
            out.state = Some(waiting("ContainerCreating", ""));
            out.last_state = Some(member.last.as_ref().map(over_state).unwrap_or_default());
        }
        Some(RunState::Ended(ended)) => match &member.trouble {
            Some(trouble) => {
                out.state = Some(waiting(&trouble.reason, &trouble.message));
                out.last_state = Some(over_state(ended));
            }
            None => {
                out.state = Some(over_state(ended));
                out.last_state = Some(member.last.as_ref().map(over_state).unwrap_or_default());
                out.ready = part.kind == Kind::Init && ended.exit_code == 0;
            }
        },
        None => {
            let turn = match part.kind {
                Kind::Main => life.initialized || !has_init(pod),
                Kind::Init | Kind::Sidecar => !matches!(member.doing, Doing::Nothing) || first_init(pod, &name),
                Kind::Ephemeral => true,
            };
            out.state = Some(match &member.trouble {
                Some(trouble) => waiting(&trouble.reason, &trouble.message),
                None if turn && !has_init(pod) || ephemeral => waiting("ContainerCreating", ""),
                None => waiting("PodInitializing", ""),
            });
        }
    }
    out
}

/// Of a running container what it has, of another what it was granted.
fn resources_of(life: &Life, part: &Part, member: &Member) -> Option<ResourceRequirements> {
    let granted = member.granted.as_ref()?;
    let actual = member.running().and_then(|r| r.limits.as_ref()).map(|have| limits::actual(granted, have, &resize::inherited(life)));
    let told = actual.unwrap_or_else(|| granted.clone());
    Some(told).filter(|r| part.spec.resources.is_some() || *r != ResourceRequirements::default())
}

fn has_init(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|c| !c.is_empty()))
}

fn first_init(pod: &Pod, name: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).and_then(|c| c.first()).is_some_and(|c| c.name == name)
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = Some(message.to_owned()).filter(|m| !m.is_empty());
    ContainerState { waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }), ..Default::default() }
}

fn over_state(ended: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{ID_SCHEME}{}", ended.id)).filter(|_| !ended.id.is_empty()),
        exit_code: ended.exit_code,
        finished_at: Some(Time(ended.finished_at)),
        message: Some(ended.message.clone()).filter(|m| !m.is_empty()),
        reason: Some(ended.reason.clone()),
        signal: None,
        started_at: Some(Time(ended.started_at.unwrap_or(ended.finished_at))),
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

/// What came of it. `can`: whether the runtime makes mounts read-only with all that is mounted below; every file system of a node can be.
pub fn recursive(mount: &VolumeMount, can: bool) -> &'static str {
    if !can {
        return "Disabled";
    }
    match (mount.recursive_read_only.as_deref(), mount.mount_propagation.as_deref()) {
        (Some("Enabled"), _) | (Some("IfPossible"), None | Some("None")) => "Enabled",
        _ => "Disabled",
    }
}

fn mounts(life: &Life, part: &Part) -> Option<Vec<VolumeMountStatus>> {
    let can = match &life.sandbox {
        Sandbox::Ready(facts) | Sandbox::Doomed { facts, .. } => facts.recursive_read_only,
        Sandbox::None { .. } | Sandbox::Gone => true,
    };
    let mounts = part.spec.volume_mounts.iter().flatten().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: (m.read_only == Some(true)).then(|| recursive(m, can).to_owned()),
        volume_status: None,
    });
    Some(mounts.collect::<Vec<_>>()).filter(|m| !m.is_empty())
}
