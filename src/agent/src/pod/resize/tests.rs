//! Resizes from wish to cgroup.

use coracle_runtime::ContainerId;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::*;
use crate::pod::{
    life::{Run, RunState, SandboxFacts, Stage, StopPhase},
    plan::{self, Event},
    status,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

/// A pod of one container with these CPU limits.
fn pod(generation: i64, cpu: &str, policy: &str) -> Pod {
    let resources = json!({ "requests": { "cpu": "20m" }, "limits": { "cpu": cpu, "memory": "64Mi" } });
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": policy }]);
    let spec: Value = json!({ "containers": [{ "name": "a", "resources": resources, "resizePolicy": policy }] });
    let meta = json!({ "name": "p", "namespace": "n", "uid": "u", "generation": generation });
    serde_json::from_value(json!({ "metadata": meta, "spec": spec })).expect("a pod")
}

/// It runs, with what its spec says.
fn running(pod: &Pod) -> Life {
    let mut life = Life::new(pod, None, at(0));
    life.volumes = Stage::Done;
    life.sandbox = Sandbox::Ready(SandboxFacts { id: "s".into(), attempt: 0, addresses: vec![], recursive_read_only: true });
    life.initialized = true;
    let spec = pod.spec.as_ref().expect("a spec");
    let member = life.members.get_mut("a").expect("it is there");
    member.run = Some(Run {
        id: ContainerId { sandbox: "s".into(), id: "c0".into() },
        attempt: 0,
        image_id: String::new(),
        user: None,
        limits: Some(limits::of_container(spec, &spec.containers[0], 1 << 30, None)),
        state: RunState::Running { started_at: at(0) },
    });
    (member.started, member.ready) = (true, true);
    life
}

/// Names of the actions of a step; of a note its reason.
fn names(step: &Step) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::Note { reason, .. } => (*reason).to_owned(),
        Action::Resize { changes, .. } => format!("Resize {}", changes.len()),
        other => format!("{other:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
    };
    step.actions.iter().map(name).collect()
}

fn conditions(life: &Life) -> Vec<(String, Option<String>)> {
    life.resize.conditions().into_iter().map(|c| (c.type_, c.reason)).collect()
}

#[test]
fn a_wish_is_granted_written_and_told() {
    let mut life = running(&pod(1, "200m", "NotRequired"));
    assert_eq!(names(&plan::step(&pod(1, "200m", "NotRequired"), &mut life, Event::Look, at(1))), Vec::<String>::new());
    let larger = pod(2, "300m", "NotRequired");
    assert_eq!(names(&plan::step(&larger, &mut life, Event::Look, at(2))), ["Allocate"]);
    assert!(plan::step(&larger, &mut life, Event::Look, at(2)).actions.is_empty(), "it is asked once");
    assert_eq!(granted(&larger, &life).spec, pod(1, "200m", "NotRequired").spec, "not granted yet");
    let before = PodStatus { observed_generation: Some(1), ..PodStatus::default() };
    let seen = |life: &Life| status::status(&larger, life, &before, &[], at(2)).observed_generation;
    assert_eq!(seen(&life), Some(1), "who waits for the generation to be seen would take it for carried out");
    let step = plan::step(&larger, &mut life, Event::Allocated(Ok(())), at(3));
    assert_eq!(names(&step), ["ResizeStarted", "Resize 1"]);
    assert_eq!((seen(&life), conditions(&life)), (Some(2), vec![("PodResizeInProgress".to_owned(), None)]));
    let shown = |life: &Life| status::status(&larger, life, &Default::default(), &[], at(3)).container_statuses.expect("some").remove(0);
    let cpu = |life: &Life| shown(life).resources.and_then(|r| r.limits).and_then(|l| l.get("cpu").map(|q| q.0.clone()));
    assert_eq!(cpu(&life).as_deref(), Some("200m"), "the cgroup's, until it is written");
    let Some(Action::Resize { changes, .. }) = step.actions.last() else { panic!("{step:?}") };
    assert_eq!(changes[0].1.cpu_quota, Some(30_000));
    let failed = Event::Resized { done: vec![], whole: None, error: Some("the kernel says no".into()) };
    assert_eq!(names(&plan::step(&larger, &mut life, failed, at(4))), ["ResizeError"]);
    assert_eq!(conditions(&life), [("PodResizeInProgress".to_owned(), Some("Error".to_owned()))]);
    let wake_at = plan::step(&larger, &mut life, Event::Look, at(4)).wake_at.expect("it is tried again");
    assert_eq!(names(&plan::step(&larger, &mut life, Event::Look, wake_at)), ["Resize 1"]);
    let written = Event::Resized { done: changes.clone(), whole: None, error: None };
    assert_eq!(names(&plan::step(&larger, &mut life, written, at(9))), ["ResizeCompleted"]);
    assert_eq!((conditions(&life), cpu(&life).as_deref()), (vec![], Some("300m")));
}

#[test]
fn a_wish_without_room_waits_and_a_new_one_is_judged_anew() {
    let mut life = running(&pod(1, "200m", "NotRequired"));
    let larger = pod(2, "300m", "NotRequired");
    let seen = |pod: &Pod, life: &Life| status::status(pod, life, &Default::default(), &[], at(2)).observed_generation;
    plan::step(&larger, &mut life, Event::Look, at(1));
    let refusal = Refusal { reason: DEFERRED.into(), message: "too little cpu".into() };
    let refused = || Event::Allocated(Err(refusal.clone()));
    assert_eq!(names(&plan::step(&larger, &mut life, refused(), at(2))), ["ResizeDeferred"]);
    assert_eq!(conditions(&life), [("PodResizePending".to_owned(), Some(DEFERRED.to_owned()))]);
    assert_eq!(seen(&larger, &life), Some(2), "it is answered");
    assert!(plan::step(&larger, &mut life, Event::Look, at(3)).actions.is_empty());
    assert_eq!(names(&plan::step(&larger, &mut life, Event::RoomFreed, at(4))), ["Allocate"]);
    assert!(names(&plan::step(&larger, &mut life, refused(), at(5))).is_empty(), "told once");
    // The wish is taken back.
    assert!(plan::step(&pod(3, "200m", "NotRequired"), &mut life, Event::Look, at(6)).actions.is_empty());
    assert!(conditions(&life).is_empty());
    assert_eq!(names(&plan::step(&pod(4, "400m", "NotRequired"), &mut life, Event::Look, at(7))), ["Allocate"]);
}

#[test]
fn a_container_that_says_so_is_started_anew() {
    let mut life = running(&pod(1, "200m", "RestartContainer"));
    let larger = pod(2, "300m", "RestartContainer");
    plan::step(&larger, &mut life, Event::Look, at(1));
    let step = plan::step(&larger, &mut life, Event::Allocated(Ok(())), at(2));
    assert_eq!(names(&step), ["ResizeStarted", "Killing", "Signal"]);
    let member = &life.members["a"];
    assert!(member.redo && matches!(&member.doing, Doing::Stopping(s) if s.phase == StopPhase::Asked));
    let ended = crate::pod::life::Ended {
        id: "c0".into(),
        started_at: Some(at(0)),
        finished_at: at(3),
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
    };
    let step = plan::step(&larger, &mut life, Event::Exited { name: "a".into(), ended }, at(3));
    assert!(step.actions.contains(&Action::Start { name: "a".into(), attempt: 1 }), "{step:?}");
    let spec = larger.spec.as_ref().expect("a spec");
    let run = Run {
        id: ContainerId { sandbox: "s".into(), id: "c1".into() },
        attempt: 1,
        image_id: String::new(),
        user: None,
        limits: Some(limits::of_container(spec, &spec.containers[0], 1 << 30, None)),
        state: RunState::Running { started_at: at(4) },
    };
    let step = plan::step(&larger, &mut life, Event::Started { name: "a".into(), run }, at(4));
    assert_eq!(names(&step), ["ResizeCompleted"]);
    assert!(!life.members["a"].redo);
}

/// A pod that is limited as a whole; one of its containers has a limit of its own, the other does as `policy` says.
fn pod_of_one_limit(generation: i64, cpu: &str, policy: &str) -> Pod {
    let amounts = json!({ "cpu": cpu, "memory": "64Mi" });
    let own = json!({ "requests": { "cpu": "10m" }, "limits": { "cpu": "50m", "memory": "16Mi" } });
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": policy }]);
    let containers = json!([{ "name": "a", "resizePolicy": policy }, { "name": "b", "resources": own }]);
    let meta = json!({ "name": "p", "namespace": "n", "uid": "u", "generation": generation });
    let spec = json!({ "containers": containers, "resources": { "requests": amounts, "limits": amounts } });
    serde_json::from_value(json!({ "metadata": meta, "spec": spec })).expect("a pod")
}

/// Both its containers run.
fn running_with_one_limit(pod: &Pod) -> Life {
    let mut life = Life::new(pod, None, at(0));
    life.volumes = Stage::Done;
    make(pod, &mut life);
    life.sandbox = Sandbox::Ready(SandboxFacts { id: "s".into(), attempt: 0, addresses: vec![], recursive_read_only: true });
    life.initialized = true;
    let spec = pod.spec.as_ref().expect("a spec");
    for container in &spec.containers {
        let member = life.members.get_mut(&container.name).expect("it is there");
        member.run = Some(Run {
            id: ContainerId { sandbox: "s".into(), id: container.name.clone() },
            attempt: 0,
            image_id: String::new(),
            user: None,
            limits: Some(limits::of_container(spec, container, 1 << 30, None)),
            state: RunState::Running { started_at: at(0) },
        });
        (member.started, member.ready) = (true, true);
    }
    life
}

/// CPU of the pod in its status: of the resources that it has, and of those that it was granted.
fn told(pod: &Pod, life: &Life) -> (Option<String>, Option<String>) {
    let status = status::status(pod, life, &Default::default(), &[], at(3));
    let cpu = |list: Option<BTreeMap<String, Text>>| list.and_then(|l| l.get("cpu").map(|q| q.0.clone()));
    (cpu(status.resources.and_then(|r| r.limits)), cpu(status.allocated_resources))
}

fn both(had: &str, granted: &str) -> (Option<String>, Option<String>) {
    (Some(had.to_owned()), Some(granted.to_owned()))
}

#[test]
fn a_pod_grows_as_a_whole_and_with_it_the_containers_without_limits() {
    let of = |generation, cpu| pod_of_one_limit(generation, cpu, "NotRequired");
    let mut life = running_with_one_limit(&of(1, "200m"));
    assert!(plan::step(&of(1, "200m"), &mut life, Event::Look, at(1)).actions.is_empty());
    let larger = of(2, "300m");
    assert_eq!(names(&plan::step(&larger, &mut life, Event::Look, at(2))), ["Allocate"]);
    assert_eq!(told(&larger, &life), both("200m", "200m"), "not granted yet");
    let step = plan::step(&larger, &mut life, Event::Allocated(Ok(())), at(3));
    assert_eq!(names(&step), ["ResizeStarted", "Resize 1"], "the other container has a limit of its own");
    assert_eq!(told(&larger, &life), both("200m", "300m"), "the cgroup's, until it is written");
    let Some(Action::Resize { changes, whole }) = step.actions.last() else { panic!("{step:?}") };
    assert_eq!((changes[0].0.id.as_str(), changes[0].1.cpu_quota, whole.cpu_quota), ("a", Some(30_000), Some(30_000)));
    let container =
        |life: &Life| status::status(&larger, life, &Default::default(), &[], at(3)).container_statuses.expect("some").remove(0);
    assert_eq!(container(&life).resources, None, "its pod's limits are not its own");
    let written = Event::Resized { done: changes.clone(), whole: Some(whole.clone()), error: None };
    assert_eq!(names(&plan::step(&larger, &mut life, written, at(4))), ["ResizeCompleted"]);
    assert_eq!((conditions(&life), told(&larger, &life)), (vec![], both("300m", "300m")));
}

#[test]
fn a_pod_whose_containers_stay_as_they_are_is_resized_all_the_same() {
    let of = |generation, cpu: &str| {
        let mut pod = pod_of_one_limit(generation, cpu, "NotRequired");
        pod.spec.as_mut().expect("a spec").containers.remove(0);
        pod
    };
    let mut life = running_with_one_limit(&of(1, "200m"));
    plan::step(&of(2, "100m"), &mut life, Event::Look, at(1));
    let step = plan::step(&of(2, "100m"), &mut life, Event::Allocated(Ok(())), at(2));
    assert_eq!(names(&step), ["ResizeStarted", "Resize 0"]);
    let failed = Event::Resized { done: vec![], whole: None, error: Some("below current usage".into()) };
    assert_eq!(names(&plan::step(&of(2, "100m"), &mut life, failed, at(3))), ["ResizeError"]);
    assert_eq!(told(&of(2, "100m"), &life), both("200m", "100m"));
    assert_eq!(conditions(&life), [("PodResizeInProgress".to_owned(), Some("Error".to_owned()))]);
    // The wish is taken back.
    assert_eq!(names(&plan::step(&of(3, "200m"), &mut life, Event::Look, at(3))), ["Allocate"]);
    assert_eq!(names(&plan::step(&of(3, "200m"), &mut life, Event::Allocated(Ok(())), at(3))), ["ResizeCompleted"]);
    assert!(conditions(&life).is_empty());
}

#[test]
fn a_pod_is_narrowed_when_what_begins_anew_has_ended() {
    let of = |generation, cpu| pod_of_one_limit(generation, cpu, "RestartContainer");
    let mut life = running_with_one_limit(&of(1, "200m"));
    let smaller = of(2, "100m");
    plan::step(&smaller, &mut life, Event::Look, at(1));
    let step = plan::step(&smaller, &mut life, Event::Allocated(Ok(())), at(2));
    assert_eq!(names(&step), ["ResizeStarted", "Killing", "Signal"], "the pod has what its container has still");
    let ended = crate::pod::life::Ended {
        id: "a".into(),
        started_at: Some(at(0)),
        finished_at: at(3),
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
    };
    plan::step(&smaller, &mut life, Event::Exited { name: "a".into(), ended }, at(3));
    let spec = smaller.spec.as_ref().expect("a spec");
    let run = Run {
        id: ContainerId { sandbox: "s".into(), id: "a1".into() },
        attempt: 1,
        image_id: String::new(),
        user: None,
        limits: Some(limits::of_container(spec, &spec.containers[0], 1 << 30, None)),
        state: RunState::Running { started_at: at(4) },
    };
    let step = plan::step(&smaller, &mut life, Event::Started { name: "a".into(), run }, at(4));
    let Some(Action::Resize { changes, whole }) = step.actions.last() else { panic!("{step:?}") };
    assert_eq!((changes.len(), whole.cpu_quota), (0, Some(10_000)));
}

#[test]
fn a_new_agent_finds_a_pod_in_the_middle_of_its_resize() {
    let mut pod = pod_of_one_limit(2, "300m", "NotRequired");
    let has = json!({ "cpu": "200m", "memory": "64Mi", "ephemeral-storage": "1Gi" });
    pod.status = Some(serde_json::from_value(json!({ "resources": { "requests": has, "limits": has } })).expect("a status"));
    let mut life = Life::new(&pod, None, at(0));
    adopt(&pod, &mut life);
    make(&pod, &mut life);
    assert_eq!(life.whole.limits.as_ref().and_then(|l| l.cpu_quota), Some(20_000));
    life.volumes = Stage::Done;
    life.sandbox = Sandbox::Ready(SandboxFacts { id: "s".into(), attempt: 0, addresses: vec![], recursive_read_only: true });
    assert_eq!(names(&plan::step(&pod, &mut life, Event::Look, at(1)))[0], "Allocate");
    // One that is done is no wish, however the API writes its amounts.
    let same = json!({ "cpu": "0.3", "memory": "64Mi" });
    pod.status = Some(serde_json::from_value(json!({ "resources": { "requests": same, "limits": same } })).expect("a status"));
    let mut life = Life::new(&pod, None, at(0));
    adopt(&pod, &mut life);
    assert_eq!(life.whole.granted, pod.spec.as_ref().and_then(|s| s.resources.clone()));
}
