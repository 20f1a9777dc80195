//! Resizes from wish to cgroup.

use coracle_runtime::ContainerId;
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
    life.sandbox = Sandbox::Ready(SandboxFacts { id: "s".into(), attempt: 0, addresses: vec![] });
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
        Action::Resize { changes } => format!("Resize {}", changes.len()),
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
    let step = plan::step(&larger, &mut life, Event::Allocated(Ok(())), at(3));
    assert_eq!(names(&step), ["ResizeStarted", "Resize 1"]);
    assert_eq!(conditions(&life), [("PodResizeInProgress".to_owned(), None)]);
    let shown = |life: &Life| status::status(&larger, life, &Default::default(), &[], at(3)).container_statuses.expect("some").remove(0);
    let cpu = |life: &Life| shown(life).resources.and_then(|r| r.limits).and_then(|l| l.get("cpu").map(|q| q.0.clone()));
    assert_eq!(cpu(&life).as_deref(), Some("200m"), "the cgroup's, until it is written");
    let Some(Action::Resize { changes }) = step.actions.last() else { panic!("{step:?}") };
    assert_eq!(changes[0].1.cpu_quota, Some(30_000));
    let failed = Event::Resized { done: vec![], error: Some("the kernel says no".into()) };
    assert_eq!(names(&plan::step(&larger, &mut life, failed, at(4))), ["ResizeError"]);
    assert_eq!(conditions(&life), [("PodResizeInProgress".to_owned(), Some("Error".to_owned()))]);
    let wake_at = plan::step(&larger, &mut life, Event::Look, at(4)).wake_at.expect("it is tried again");
    assert_eq!(names(&plan::step(&larger, &mut life, Event::Look, wake_at)), ["Resize 1"]);
    let written = Event::Resized { done: changes.clone(), error: None };
    assert_eq!(names(&plan::step(&larger, &mut life, written, at(9))), ["ResizeCompleted"]);
    assert_eq!((conditions(&life), cpu(&life).as_deref()), (vec![], Some("300m")));
}

#[test]
fn a_wish_without_room_waits_and_a_new_one_is_judged_anew() {
    let mut life = running(&pod(1, "200m", "NotRequired"));
    let larger = pod(2, "300m", "NotRequired");
    plan::step(&larger, &mut life, Event::Look, at(1));
    let refusal = Refusal { reason: DEFERRED.into(), message: "too little cpu".into() };
    let refused = || Event::Allocated(Err(refusal.clone()));
    assert_eq!(names(&plan::step(&larger, &mut life, refused(), at(2))), ["ResizeDeferred"]);
    assert_eq!(conditions(&life), [("PodResizePending".to_owned(), Some(DEFERRED.to_owned()))]);
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
