//! A pod's life as tables: an in-memory node carries the actions out, time is given.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    backoff::later,
    life::{Ended, Life, Refusal, Run, RunState, Sandbox, SandboxFacts, Termination},
    plan::{self, Action, Event, Probe},
    status,
};
use crate::eviction::Eviction;

const NODE: &str = "192.0.2.1";

/// What a container does when it is started.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Runs until it is asked to end, then ends with this code.
    Serve(i32),
    /// Runs until it is killed.
    Ignore,
    /// Ends after so many seconds with this code.
    End(i64, i32),
    /// Cannot be executed.
    Fail,
    /// Has no image.
    NoImage,
}

/// A node in memory: carries actions out, keeps time.
struct Node {
    pod: Pod,
    life: Life,
    now: Timestamp,
    does: BTreeMap<String, Vec<Does>>,
    /// What happens later, by time.
    due: Vec<(Timestamp, Event)>,
    wake_at: Option<Timestamp>,
    log: Vec<String>,
    /// The messages of the Events in it.
    messages: Vec<String>,
    shown: PodStatus,
    steps: usize,
}

impl Node {
    fn new(spec: Value, does: &[(&str, &[Does])]) -> Self {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec })).expect("a pod");
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let does = does.iter().map(|(n, d)| ((*n).to_owned(), d.to_vec())).collect();
        let life = Life::new(&pod, None, now);
        Self { pod, life, now, does, due: vec![], wake_at: None, log: vec![], messages: vec![], shown: PodStatus::default(), steps: 0 }
    }

    fn take(&mut self, event: Event) {
        self.steps += 1;
        assert!(self.steps < 5_000, "no fixpoint: {:?}", self.log);
        let step = plan::step(&self.pod, &mut self.life, event, self.now);
        self.wake_at = step.wake_at;
        for action in step.actions {
            self.act(action);
        }
        let shown = status::status(&self.pod, &self.life, &self.shown, &[NODE.parse().expect("an address")], self.now);
        self.shown = shown.clone();
        self.pod.status = Some(shown);
        if (self.life.all_ended() || self.life.refused.is_some()) && !self.life.reported {
            self.soon(Event::Reported);
        }
    }

    fn soon(&mut self, event: Event) {
        self.due.push((self.now, event));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Note { reason, name, message, .. } => {
                self.log.push(format!("{reason}{}", name.map(|n| format!(" {n}")).unwrap_or_default()));
                self.messages.push(message);
            }
            Action::MountVolumes => self.soon(Event::VolumesMounted(true)),
            Action::MakeSandbox { attempt } => {
                let facts = SandboxFacts {
                    id: format!("s{attempt}"),
                    attempt,
                    addresses: vec!["10.42.0.2".parse().expect("an address")],
                    recursive_read_only: true,
                };
                self.soon(Event::SandboxMade(Some(facts)));
            }
            Action::RemoveSandbox { .. } => self.soon(Event::SandboxRemoved(true)),
            Action::Clean => self.soon(Event::Cleaned(true)),
            Action::Delete => {
                self.log.push("delete".to_owned());
                self.soon(Event::Deleted(true));
                self.soon(Event::Gone);
            }
            Action::Start { name, attempt } => self.start(name, attempt),
            Action::Cancel { name } => self.log.push(format!("cancel {name}")),
            Action::PostStart { name } => {
                let id = self.id(&name);
                self.soon(Event::PostStarted { name, id, ok: true });
            }
            Action::PreStop { name, .. } => {
                let id = self.id(&name);
                self.log.push(format!("prestop {name}"));
                self.due.push((later(self.now, Duration::from_secs(1)), Event::PreStopped { name, id }));
            }
            Action::Signal { name, kill } => self.signal(name, kill),
            Action::GiveDevices => self.soon(Event::DevicesGiven(Ok(()))),
            Action::Allocate => self.soon(Event::Allocated(Ok(()))),
            Action::Resize { changes, whole } => self.soon(Event::Resized { done: changes, whole: Some(whole), error: None }),
        }
    }

    fn id(&self, name: &str) -> String {
        self.life.members[name].run.as_ref().map(|r| r.id.id.clone()).unwrap_or_default()
    }

    fn behaviour(&self, name: &str, attempt: u32) -> Does {
        let list = self.does.get(name).cloned().unwrap_or_default();
        list.get(attempt as usize).or(list.last()).copied().unwrap_or(Does::Serve(0))
    }

    fn start(&mut self, name: String, attempt: u32) {
        self.log.push(format!("start {name}"));
        let Sandbox::Ready(facts) = &self.life.sandbox else { panic!("a start without a sandbox: {:?}", self.life) };
        let id = Life::container_id(&facts.id, &name, attempt);
        let ended = |code: i32, reason: &str, at: Timestamp| Ended {
            id: id.id.clone(),
            started_at: Some(self.now),
            finished_at: at,
            exit_code: code,
            reason: reason.to_owned(),
            message: String::new(),
        };
        let run = |state| Run { id: id.clone(), attempt, image_id: "sha256:1".to_owned(), user: None, limits: None, state };
        let running = run(RunState::Running { started_at: self.now });
        match self.behaviour(&name, attempt) {
            Does::Serve(_) | Does::Ignore => self.soon(Event::Started { name, run: running }),
            Does::End(seconds, code) => {
                let at = later(self.now, Duration::from_secs(seconds.unsigned_abs()));
                let over = ended(code, if code == 0 { "Completed" } else { "Error" }, at);
                self.soon(Event::Started { name: name.clone(), run: running });
                self.due.push((at, Event::Exited { name, ended: over }));
            }
            Does::Fail => {
                let over = run(RunState::Ended(ended(128, "StartError", self.now)));
                self.soon(Event::Started { name, run: over });
            }
            Does::NoImage => {
                self.soon(Event::NotStarted { name, reason: "ErrImagePull".to_owned(), message: "no image of a volume".to_owned() })
            }
        }
    }

    fn signal(&mut self, name: String, kill: bool) {
        self.log.push(format!("{} {name}", if kill { "kill" } else { "term" }));
        let Some(run) = self.life.members[&name].running().cloned() else { return };
        let code = match (self.behaviour(&name, run.attempt), kill) {
            (_, true) => 137,
            (Does::Serve(code), false) => code,
            _ => return,
        };
        let RunState::Running { started_at } = run.state else { return };
        let ended = Ended {
            id: run.id.id,
            started_at: Some(started_at),
            finished_at: self.now,
            exit_code: code,
            reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
            message: String::new(),
        };
        self.soon(Event::Exited { name, ended });
    }

    /// Lets all happen that happens within so many seconds.
    fn pass(&mut self, seconds: u64) -> &mut Self {
        let until = later(self.now, Duration::from_secs(seconds));
        if self.steps == 0 {
            self.take(Event::Look);
        }
        loop {
            let next = self.due.iter().enumerate().min_by_key(|(at, (time, _))| (*time, *at)).map(|(at, (time, _))| (at, *time));
            match (next, self.wake_at) {
                (Some((at, time)), wake) if time <= until && wake.is_none_or(|w| time <= w) => {
                    let (time, event) = self.due.remove(at);
                    self.now = self.now.max(time);
                    self.take(event);
                }
                (_, Some(wake)) if wake <= until => {
                    self.now = self.now.max(wake);
                    self.take(Event::Look);
                }
                _ => break,
            }
        }
        self.now = until;
        self
    }

    fn delete(&mut self, grace: i64) -> &mut Self {
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.take(Event::Look);
        self
    }

    /// `phase reason | container: ready started restarts state last, ...`
    fn look(&self) -> String {
        let status = &self.shown;
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let boxes = lists.into_iter().flat_map(|l| l.iter().flatten()).map(|c| {
            let of = |s: &Option<k8s_openapi::api::core::v1::ContainerState>| match s {
                Some(s) if s.running.is_some() => "running".to_owned(),
                Some(s) if s.waiting.is_some() => s.waiting.as_ref().and_then(|w| w.reason.clone()).unwrap_or_default(),
                Some(s) => {
                    s.terminated.as_ref().map(|t| format!("{}={}", t.reason.clone().unwrap_or_default(), t.exit_code)).unwrap_or_default()
                }
                None => String::new(),
            };
            let last = Some(of(&c.last_state)).filter(|l| !l.is_empty()).map(|l| format!(" after {l}")).unwrap_or_default();
            let ready = if c.ready { "ready " } else { "" };
            let restarts = if c.restart_count > 0 { format!(" x{}", c.restart_count) } else { String::new() };
            format!("{}: {ready}{}{last}{restarts}", c.name, of(&c.state))
        });
        let phase = [status.phase.clone(), status.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        format!("{phase} | {}", boxes.collect::<Vec<_>>().join(", "))
    }

    fn condition(&self, kind: &str) -> String {
        let found = self.shown.conditions.iter().flatten().find(|c| c.type_ == kind);
        found.map(|c| format!("{} {}", c.status, c.reason.clone().unwrap_or_default()).trim().to_owned()).unwrap_or_default()
    }
}

fn one(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "terminationGracePeriodSeconds": 5, "containers": [{ "name": "main" }] })
}

fn check(spec: Value, does: &[(&str, &[Does])], seconds: u64, want: &str) {
    let mut node = Node::new(spec.clone(), does);
    node.pass(seconds);
    assert_eq!(node.look(), want, "{spec} {:?}", node.log);
}

use Does::{End, Fail, Ignore, NoImage, Serve};

#[test]
fn restart_policies() {
    let main = |does: &'static [Does]| -> [(&'static str, &'static [Does]); 1] { [("main", does)] };
    check(one("Always"), &main(&[Serve(0)]), 5, "Running | main: ready running");
    check(one("Never"), &main(&[End(1, 0)]), 5, "Succeeded | main: Completed=0");
    check(one("Never"), &main(&[End(1, 3)]), 5, "Failed | main: Error=3");
    check(one("OnFailure"), &main(&[End(1, 0)]), 5, "Succeeded | main: Completed=0");
    check(one("OnFailure"), &main(&[End(1, 5), End(0, 0)]), 9, "Succeeded | main: Completed=0 after Error=5 x1");
    check(one("Always"), &main(&[End(1, 3)]), 5, "Running | main: CrashLoopBackOff after Error=3 x1");
    check(one("Always"), &main(&[End(1, 0)]), 5, "Running | main: CrashLoopBackOff after Completed=0 x1");
    check(one("Never"), &main(&[Fail]), 5, "Failed | main: StartError=128");
    check(one("Always"), &main(&[Fail]), 5, "Running | main: CrashLoopBackOff after StartError=128 x1");
    check(one("Never"), &main(&[NoImage]), 0, "Pending | main: ErrImagePull");
    check(one("Never"), &main(&[NoImage]), 5, "Pending | main: ImagePullBackOff");
    let own = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "restartPolicy": "OnFailure" }] });
    check(own, &main(&[End(0, 1), End(0, 0)]), 5, "Succeeded | main: Completed=0 after Error=1 x1");
    let rules = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "restartPolicyRules": [
        { "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }] }] });
    check(rules, &main(&[End(0, 42), End(0, 1)]), 5, "Failed | main: Error=1 after Error=42 x1");
}

#[test]
fn the_first_rule_that_fits_counts() {
    let with = |rules: Value| json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "restartPolicy": "Never", "restartPolicyRules": rules }] });
    let rule = |operator: &str, values: &[i32]| json!({ "action": "Restart", "exitCodes": { "operator": operator, "values": values } });
    let does: [(&str, &[Does]); 1] = [("main", &[End(0, 3), End(0, 4)])];
    check(with(json!([rule("NotIn", &[4])])), &does, 5, "Failed | main: Error=4 after Error=3 x1");
    check(with(json!([rule("In", &[5]), rule("In", &[3])])), &does, 5, "Failed | main: Error=4 after Error=3 x1");
    check(with(json!([rule("In", &[5])])), &does, 5, "Failed | main: Error=3");
}

#[test]
fn all_containers_begin_anew_when_a_rule_says_so() {
    let rule = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 50, "initContainers": [{ "name": "i" },
        { "name": "side", "restartPolicy": "Always" }], "containers": [
        { "name": "a", "restartPolicy": "Never", "restartPolicyRules": rule }, { "name": "b" }] });
    let does: [(&str, &[Does]); 3] = [("i", &[End(1, 0), End(1, 0)]), ("a", &[End(2, 42), Serve(0)]), ("b", &[Ignore, Serve(0)])];
    let again = "after RestartingAllContainers=137 x1";
    let mut node = Node::new(spec.clone(), &does);
    node.pass(9);
    let want =
        format!("Running | i: ready Completed=0 {again}, side: ready running {again}, a: ready running {again}, b: ready running {again}");
    assert_eq!(node.look(), want, "{:?}", node.log);
    assert_eq!(node.condition("AllContainersRestarting"), "False");
    // An exit that no rule is for ends the pod, in spite of what ran before.
    let does: [(&str, &[Does]); 3] = [("i", &[End(1, 0), End(1, 0)]), ("a", &[End(2, 42), End(1, 3)]), ("b", &[Ignore, End(1, 0)])];
    check(
        spec.clone(),
        &does,
        9,
        &format!("Failed | i: ready Completed=0 {again}, side: Completed=0 {again}, a: Error=3 {again}, b: Completed=0 {again}"),
    );
    // So does an init container's.
    let mut spec = spec;
    spec["containers"][0].as_object_mut().expect("one").clear();
    spec["containers"][0]["name"] = json!("a");
    spec["initContainers"][0]["restartPolicy"] = json!("Never");
    spec["initContainers"][0]["restartPolicyRules"] =
        json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "NotIn", "values": [0] } }]);
    let does: [(&str, &[Does]); 1] = [("i", &[End(1, 1), End(1, 0)])];
    check(spec, &does, 9, &format!("Running | i: ready Completed=0 {again}, side: ready running, a: ready running, b: ready running"));
}

#[test]
fn a_pod_that_the_node_ends_says_why() {
    let end = |may_succeed| {
        Event::Terminate(Termination {
            reason: "Why",
            message: "in words",
            disruption: "it had to",
            grace: Some(Duration::from_secs(3)),
            may_succeed,
        })
    };
    for (does, may_succeed, phase, took) in
        [(Serve(0), true, "Succeeded", 0), (Serve(0), false, "Failed", 0), (Serve(1), true, "Failed", 0), (Ignore, true, "Failed", 3)]
    {
        let mut node = Node::new(one("Always"), &[("main", &[does])]);
        node.pass(5);
        let began = node.now;
        node.take(end(may_succeed));
        assert!(node.condition("DisruptionTarget").is_empty() || node.life.all_ended(), "told with the phase");
        node.pass(9);
        let status = &node.shown;
        assert_eq!(
            (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref()),
            (Some(phase), Some("Why"), Some("in words"))
        );
        assert_eq!(node.condition("DisruptionTarget"), "True TerminationByKubelet");
        let ended = node.life.members["main"].ended().expect("it ended").finished_at;
        assert_eq!(ended.duration_since(began).as_secs(), took, "{does:?}");
    }
}

#[test]
fn a_jump_of_the_clock_neither_hastens_nor_delays() {
    for hours in [-30, 30] {
        let by = jiff::SignedDuration::from_hours(hours);
        // A grace of five seconds, and a rest of ten.
        for (does, wait, want) in [(Ignore, 5, "kill main"), (End(0, 1), 10, "start main")] {
            let mut node = Node::new(one("Always"), &[("main", &[does])]);
            node.pass(2);
            if want == "kill main" {
                node.delete(5);
            }
            node.log.clear();
            super::clock::shift(&mut node.life, by);
            node.now = super::clock::shifted(node.now, by);
            node.take(Event::Look);
            node.pass(wait - 3);
            assert!(!node.log.contains(&want.to_owned()), "{hours} h: {:?}", node.log);
            node.pass(3);
            assert!(node.log.contains(&want.to_owned()), "{hours} h: {:?}", node.log);
        }
    }
}

#[test]
fn messages_share_a_bound() {
    let containers: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| json!({ "name": name })).collect();
    let mut node = Node::new(json!({ "restartPolicy": "Never", "containers": containers }), &[("a", &[End(1, 0)])]);
    node.pass(5);
    let Some(RunState::Ended(ended)) = node.life.members.get_mut("a").and_then(|m| m.run.as_mut()).map(|r| &mut r.state) else {
        panic!("it ended")
    };
    ended.message = format!("a{}", "é".repeat(2000));
    node.take(Event::Look);
    let message = node.shown.container_statuses.as_ref().and_then(|s| s[0].state.as_ref()?.terminated.as_ref()?.message.clone());
    assert_eq!(message.map(|m| m.len()), Some(3071), "a fourth of 12 KiB, and no half of a letter");
}

#[test]
fn two_containers() {
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "a" }, { "name": "b" }] });
    check(spec.clone(), &[("a", &[End(1, 0)]), ("b", &[End(2, 2)])], 9, "Failed | a: Completed=0, b: Error=2");
    check(spec.clone(), &[("a", &[End(1, 4)])], 9, "Running | a: Error=4, b: ready running");
    check(spec, &[("a", &[NoImage])], 9, "Pending | a: ImagePullBackOff, b: ready running");
}

#[test]
fn init_containers_and_sidecars() {
    let spec = |policy: &str| {
        json!({ "restartPolicy": policy, "terminationGracePeriodSeconds": 5,
        "initContainers": [{ "name": "i1" }, { "name": "i2" }], "containers": [{ "name": "main" }] })
    };
    let waits = "i2: PodInitializing, main: PodInitializing";
    check(spec("Never"), &[("i1", &[End(9, 0)])], 5, &format!("Pending | i1: running, {waits}"));
    check(spec("Never"), &[("i1", &[End(1, 6)])], 5, &format!("Failed | i1: Error=6, {waits}"));
    check(spec("Always"), &[("i1", &[End(1, 6)])], 5, &format!("Pending | i1: CrashLoopBackOff after Error=6 x1, {waits}"));
    let done = "i1: ready Completed=0, i2: ready Completed=0, main: ready running";
    check(spec("Always"), &[("i1", &[End(1, 0)]), ("i2", &[End(1, 0)])], 5, &format!("Running | {done}"));
    let sidecar = |policy: &str| {
        json!({ "restartPolicy": policy, "terminationGracePeriodSeconds": 5,
        "initContainers": [{ "name": "side", "restartPolicy": "Always" }], "containers": [{ "name": "main" }] })
    };
    check(sidecar("Always"), &[], 5, "Running | side: ready running, main: ready running");
    check(sidecar("Never"), &[("main", &[End(2, 0)])], 5, "Succeeded | side: Completed=0, main: Completed=0");
    check(sidecar("Never"), &[("main", &[End(2, 0)]), ("side", &[Ignore])], 9, "Succeeded | side: Error=137, main: Completed=0");
    check(sidecar("Always"), &[("side", &[End(2, 1), Serve(0)])], 9, "Running | side: ready running after Error=1 x1, main: ready running");
}

#[test]
fn an_image_that_comes_ends_the_pause() {
    let mut node = Node::new(one("Always"), &[("main", &[NoImage])]);
    node.pass(3);
    node.does.clear();
    let trouble = |node: &Node| node.life.members["main"].trouble.as_ref().map(|t| t.reason.clone());
    assert_eq!(trouble(&node).as_deref(), Some("ImagePullBackOff"));
    assert!(node.messages.iter().any(|message| message.contains("no image of a volume")), "{:?}", node.messages);
    node.soon(Event::ImagesArrived { name: "other".to_owned() });
    node.pass(1);
    assert!(trouble(&node).is_some());
    node.soon(Event::ImagesArrived { name: "main".to_owned() });
    node.pass(1);
    assert!(trouble(&node).is_none() && node.life.members["main"].running().is_some());
}

#[test]
fn restarts_are_at_0_10_and_20_seconds() {
    let mut node = Node::new(one("Always"), &[("main", &[End(0, 1)])]);
    let mut restarts = |seconds| {
        node.pass(seconds);
        node.life.members["main"].run.as_ref().map(|r| r.attempt)
    };
    assert_eq!([restarts(1), restarts(8), restarts(2), restarts(18), restarts(3)], [Some(1), Some(1), Some(2), Some(2), Some(3)]);
    assert!(node.log.contains(&"BackOff main".to_owned()));
}

#[test]
fn a_deleted_pod_stops_in_order_and_goes_last() {
    let spec = json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 10,
        "initContainers": [{ "name": "s1", "restartPolicy": "Always" }, { "name": "s2", "restartPolicy": "Always" }],
        "containers": [{ "name": "main", "lifecycle": { "preStop": { "exec": { "command": ["x"] } } } }] });
    let mut node = Node::new(spec, &[("main", &[Serve(7)])]);
    node.pass(5).log.clear();
    node.delete(10).pass(20);
    let want = ["Killing main", "prestop main", "term main", "Killing s2", "term s2", "Killing s1", "term s1", "delete"];
    assert_eq!(node.log, want);
    assert!(node.life.over(), "{:?}", node.life);
    assert_eq!(node.look(), "Failed | s1: Completed=0, s2: Completed=0, main: Error=7");
}

#[test]
fn what_does_not_end_is_killed_when_the_grace_is_over() {
    let mut node = Node::new(one("Never"), &[("main", &[Ignore])]);
    node.pass(2);
    node.delete(60).pass(3);
    assert_eq!(node.log, ["start main", "Killing main", "term main"]);
    // A second deletion with a shorter grace counts from then.
    node.delete(2).pass(1);
    assert!(!node.log.contains(&"kill main".to_owned()));
    node.pass(2);
    assert!(node.life.over(), "{:?}", node.log);
    assert_eq!(node.look(), "Failed | main: Error=137");
}

#[test]
fn a_pod_that_never_started_is_deleted_at_once() {
    let mut node = Node::new(one("Never"), &[("main", &[NoImage])]);
    node.pass(3).delete(30).pass(1);
    assert!(node.life.over(), "{:?}", node.log);
    assert_eq!(node.look(), "Failed | main: ContainerStatusUnknown=137");
    assert_eq!(node.condition("ContainersReady"), "False ContainersNotReady");
}

#[test]
fn deadline_and_refusal() {
    let mut spec = one("Never");
    spec["activeDeadlineSeconds"] = json!(4);
    let mut node = Node::new(spec, &[("main", &[Ignore])]);
    node.pass(20);
    assert_eq!(node.look(), "Failed DeadlineExceeded | main: Error=137");
    assert_eq!(node.condition("Ready"), "False PodFailed");
    assert!(node.log.contains(&"DeadlineExceeded".to_owned()));
    let mut node = Node::new(one("Always"), &[]);
    node.life.refused = Some(Refusal { reason: "OutOfcpu".into(), message: String::new() });
    node.pass(9);
    assert_eq!((node.look(), node.shown.conditions.clone()), ("Failed OutOfcpu | ".to_owned(), None));
    node.delete(0).pass(1);
    assert!(node.life.over());
}

#[test]
fn probes_say_started_and_ready_and_restart() {
    let spec = json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 3, "containers": [{ "name": "main",
        "startupProbe": {}, "readinessProbe": {}, "livenessProbe": {} }] });
    let mut node = Node::new(spec, &[]);
    let tell = |node: &mut Node, probe, ok| {
        let id = node.id("main");
        node.take(Event::Probed { name: "main".into(), id, probe, ok });
    };
    assert_eq!(node.pass(1).look(), "Running | main: running");
    tell(&mut node, Probe::Readiness, true);
    assert_eq!(node.look(), "Running | main: running", "not ready before it has started");
    tell(&mut node, Probe::Startup, true);
    tell(&mut node, Probe::Readiness, true);
    assert_eq!((node.look().as_str(), node.condition("Ready").as_str()), ("Running | main: ready running", "True"));
    tell(&mut node, Probe::Readiness, false);
    assert_eq!(node.condition("Ready"), "False ContainersNotReady");
    tell(&mut node, Probe::Liveness, false);
    node.pass(1);
    assert_eq!(node.look(), "Running | main: running after Completed=0 x1");
    // What an old run's probe says of the new one does not count.
    node.take(Event::Probed { name: "main".into(), id: "old".into(), probe: Probe::Startup, ok: true });
    assert_eq!(node.look(), "Running | main: running after Completed=0 x1");
}

#[test]
fn a_lost_sandbox_is_made_anew_with_all_that_was_in_it() {
    let spec = json!({ "restartPolicy": "Always", "initContainers": [{ "name": "i" }], "containers": [{ "name": "main" }] });
    let mut node = Node::new(spec, &[("i", &[End(0, 0)])]);
    assert_eq!(node.pass(2).look(), "Running | i: ready Completed=0, main: ready running");
    node.take(Event::SandboxLost("s0".into()));
    assert_eq!(node.condition("PodReadyToStartContainers"), "False");
    node.pass(2);
    assert_eq!(node.look(), "Running | i: ready Completed=0 after Completed=0 x1, main: ready running after ContainerStatusUnknown=137 x1");
    assert!(matches!(&node.life.sandbox, Sandbox::Ready(facts) if facts.attempt == 1));
}

#[test]
fn readiness_gates_and_post_start() {
    let mut spec = one("Always");
    spec["readinessGates"] = json!([{ "conditionType": "x.example/fit" }]);
    spec["containers"][0]["lifecycle"] = json!({ "postStart": { "exec": { "command": ["x"] } } });
    let mut node = Node::new(spec, &[]);
    node.pass(2);
    assert_eq!((node.condition("ContainersReady"), node.condition("Ready")), ("True".into(), "False ReadinessGatesNotReady".into()));
}

/// What may happen to a pod from outside.
#[derive(Clone, Debug)]
enum Fate {
    Pass(u64),
    Delete(i64),
    Lose,
    Evict,
    Gone,
    Probe(usize, u8, bool),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0_u64..40).prop_map(Fate::Pass),
        1 => (0_i64..20).prop_map(Fate::Delete),
        1 => Just(Fate::Lose),
        1 => Just(Fate::Evict),
        1 => Just(Fate::Gone),
        2 => (0_usize..3, 0_u8..3, any::<bool>()).prop_map(|(c, p, ok)| Fate::Probe(c, p, ok)),
    ]
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![(0_i32..3).prop_map(Serve), Just(Ignore), (0_i64..30, 0_i32..3).prop_map(|(s, c)| End(s, c)), Just(Fail), Just(NoImage)]
}

proptest! {
    #[test]
    fn from_any_state_a_life_comes_to_rest_and_a_deleted_pod_goes(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        side in any::<bool>(), hook in any::<bool>(),
        i in does(), a in does(), b in does(),
        fates in prop::collection::vec(fate(), 0..12),
    ) {
        let lifecycle = if hook { json!({ "preStop": { "exec": { "command": ["x"] } } }) } else { json!({}) };
        let init = json!({ "name": "i", "restartPolicy": if side { Some("Always") } else { None } });
        let spec = json!({ "restartPolicy": policy, "terminationGracePeriodSeconds": 5, "initContainers": [init],
            "containers": [{ "name": "a", "lifecycle": lifecycle, "readinessProbe": {} }, { "name": "b", "livenessProbe": {} }] });
        let mut node = Node::new(spec, &[("i", &[i]), ("a", &[a]), ("b", &[b])]);
        node.pass(1);
        for fate in fates {
            match fate {
                Fate::Pass(seconds) => drop(node.pass(seconds)),
                Fate::Delete(grace) => drop(node.delete(grace)),
                Fate::Lose => if let Sandbox::Ready(facts) = node.life.sandbox.clone() {
                    node.take(Event::SandboxLost(facts.id));
                },
                Fate::Evict => node.take(Event::Evict(Eviction { message: "full".into(), grace: Duration::from_secs(1), for_pressure: true })),
                Fate::Gone => node.take(Event::Gone),
                Fate::Probe(container, probe, ok) => {
                    let name = ["i", "a", "b"][container].to_owned();
                    let (id, probe) = (node.id(&name), [Probe::Startup, Probe::Readiness, Probe::Liveness][usize::from(probe)]);
                    node.take(Event::Probed { name, id, probe, ok });
                }
            }
        }
        node.delete(3).pass(120);
        prop_assert!(node.life.over(), "{:?} {:?}", node.log, node.life);
        prop_assert!(node.life.members.values().all(|m| m.at_rest()));
        // At rest nothing is done for nothing.
        let before = node.life.clone();
        let step = plan::step(&node.pod, &mut node.life, Event::Look, node.now);
        prop_assert_eq!(step.actions, vec![]);
        prop_assert_eq!(before, node.life);
    }
}
