//! ReplicaSet plans: tables of cases, and convergence from any state with informers that lag.

use coracle_client::pod::{ContainerStatus, PodSpec, PodStatus};
use k8s_openapi::{api::core::v1::PodCondition, apimachinery::pkg::apis::meta::v1::LabelSelector};
use proptest::prelude::*;
use serde_json::json;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::*;
use crate::model::Model;

pub fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "set", "resourceVersion": "1", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 0}
    }))
    .unwrap()
}

/// A pod described in words: `ready`, `pending`, `leaving`, `failed`, `orphan`, `foreign` (another controller's), `unlabelled`, `cost=N`,
/// `node=N`, `restarts=N`, `age=N`.
fn pod(name: &str, words: &str) -> Arc<Pod> {
    let mut pod = Pod { status: Some(PodStatus::default()), spec: Some(PodSpec::default()), ..Pod::default() };
    pod.metadata.name = Some(name.into());
    pod.metadata.namespace = Some("d".into());
    pod.metadata.uid = Some(name.into());
    pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    pod.metadata.owner_references = Some(vec![controller_ref(&set(0))]);
    pod.metadata.creation_timestamp = Some(Time(at(0)));
    let (status, spec) = (pod.status.get_or_insert_default(), pod.spec.get_or_insert_default());
    status.phase = Some("Running".into());
    spec.node_name = Some("n1".into());
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ready", since) => {
                status.conditions = Some(Box::new([PodCondition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    last_transition_time: Some(Time(at(since.parse().unwrap_or(0)))),
                    ..PodCondition::default()
                }]));
            }
            ("pending", _) => {
                status.phase = Some("Pending".into());
                spec.node_name = None;
            }
            ("failed", _) => status.phase = Some("Failed".into()),
            ("leaving", _) => pod.metadata.deletion_timestamp = Some(Time(at(1))),
            ("orphan", _) => pod.metadata.owner_references = None,
            ("foreign", _) => pod.metadata.owner_references.iter_mut().flatten().for_each(|o| o.uid = "another".into()),
            ("unlabelled", _) => pod.metadata.labels = None,
            ("cost", n) => {
                pod.metadata.annotations = Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), n.to_owned())].into());
            }
            ("node", n) => spec.node_name = Some(n.into()),
            ("restarts", n) => {
                let restarted = ContainerStatus { restart_count: n.parse().unwrap(), ..ContainerStatus::default() };
                status.container_statuses = Some(Box::new([restarted]));
            }
            ("age", n) => pod.metadata.creation_timestamp = Some(Time(at(1_000 - n.parse::<i64>().unwrap()))),
            _ => panic!("{word}"),
        }
    }
    Arc::new(pod)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What the plan does, in words: pods by their index.
fn check(replicas: i32, pods: &[&str], expected: &str) {
    let pods: Vec<_> = pods.iter().enumerate().map(|(i, words)| pod(&i.to_string(), words)).collect();
    let plan = plan(&Observed { set: &set(replicas), pods: &pods, now: at(1_000), failed: None });
    let mut words: Vec<String> = plan
        .patches
        .iter()
        .map(|p| {
            let owners = p.body["metadata"]["ownerReferences"].as_array().unwrap();
            format!("{} {}", if owners.is_empty() { "release" } else { "adopt" }, p.target.key.name)
        })
        .collect();
    if !plan.creates.is_empty() {
        words.push(format!("create {}", plan.creates.len()));
    }
    words.extend(plan.deletes.iter().map(|d| match &d.doomed {
        crate::plan::Doomed::One(target) => format!("delete {}", target.key.name),
        other => panic!("{other:?}"),
    }));
    assert_eq!(words.join(", "), expected, "{replicas} of {pods:#?}");
}

#[test]
fn counts() {
    check(0, &[], "");
    check(3, &[], "create 3");
    check(3, &["ready", "pending"], "create 1");
    check(2, &["ready", "leaving", "failed"], "create 1");
    check(1, &["ready", "leaving"], "");
    check(900, &[], "create 500");
}

#[test]
fn family() {
    check(1, &["orphan"], "adopt 0");
    check(1, &["orphan unlabelled"], "create 1");
    check(1, &["orphan leaving"], "create 1");
    check(1, &["unlabelled"], "release 0, create 1");
    check(1, &["foreign"], "create 1");
    check(0, &["orphan"], "adopt 0, delete 0");
}

#[test]
fn who_goes_first() {
    check(1, &["ready", "pending"], "delete 1");
    check(1, &["ready", ""], "delete 1");
    check(1, &["pending", "ready cost=-5"], "delete 0");
    check(1, &["ready cost=2", "ready cost=1"], "delete 1");
    check(2, &["ready node=a", "ready node=b", "ready node=b"], "delete 1");
    check(1, &["ready=100", "ready=900 node=n2"], "delete 1");
    check(1, &["ready restarts=1", "ready restarts=3 node=n2"], "delete 1");
    check(1, &["ready age=900", "ready age=10 node=n2"], "delete 1");
    check(0, &["ready", "leaving", "pending"], "delete 2, delete 0");
}

#[test]
fn a_set_that_is_deleted_leaves_its_pods_to_the_garbage_collector() {
    let mut gone = set(2);
    gone.metadata.deletion_timestamp = Some(Time(at(9)));
    let plan = plan(&Observed { set: &gone, pods: &[pod("a", "ready")], now: at(1_000), failed: None });
    assert!(plan.creates.is_empty() && plan.deletes.is_empty());
}

#[test]
fn a_refused_create_becomes_a_condition_and_goes_again() {
    let failed = Failure {
        verb: "create",
        action: String::new(),
        kind: "Pod".into(),
        refused: crate::writer::Refused { code: 403, reason: "Forbidden".into(), message: "quota".into(), namespace_ends: false },
    };
    let mut set = set(1);
    let plan1 = plan(&Observed { set: &set, pods: &[], now: at(1_000), failed: Some(&failed) });
    let body = &plan1.status.unwrap().body["status"];
    assert_eq!((&body["conditions"][0]["reason"], &body["conditions"][0]["message"]), (&"FailedCreate".into(), &"quota".into()));
    set.status = Some(
        serde_json::from_value({
            let mut s = body.clone();
            s["replicas"] = 0.into();
            s
        })
        .unwrap(),
    );
    let unknown = plan(&Observed { set: &set, pods: &[], now: at(1_000), failed: None });
    assert_eq!(unknown.status, None, "not attempted yet: nothing to tell");
    let good = plan(&Observed { set: &set, pods: &[pod("a", "ready")], now: at(1_000), failed: None });
    assert!(good.status.unwrap().body["status"]["conditions"].is_null());
}

#[test]
fn time_alone_makes_a_pod_available() {
    let mut set = set(1);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let pods = [pod("a", "ready=990")];
    let early = plan(&Observed { set: &set, pods: &pods, now: at(1_000), failed: None });
    assert_eq!(early.requeue_at, Some(at(1_020)));
    assert_eq!(early.waiting, [Waiting::PodsAvailable { missing: 1, wanted: 1 }]);
    let late = plan(&Observed { set: &set, pods: &pods, now: at(1_020), failed: None });
    assert_eq!(late.status.unwrap().body["status"]["availableReplicas"], 1);
    assert_eq!(late.requeue_at, None);
}

/// What the world does between turns.
#[derive(Clone, Debug)]
pub enum Step {
    /// The controller has a turn.
    Turn,
    /// Informers see a part of what they have not seen.
    Look(&'static str, u8),
    /// The nth pod becomes ready, or not.
    Ready(u8, bool),
    /// The nth pod ends by itself.
    Fail(u8),
    /// Somebody deletes the nth pod.
    Delete(u8),
    /// The node is done with the nth pod, if it is being deleted.
    Vanish(u8),
    /// Somebody takes the nth pod out of the selector, or puts it back.
    Label(u8, bool),
    /// Somebody makes a pod that could be adopted.
    Orphan,
    /// Somebody scales.
    Scale(i32),
    /// Time passes.
    Pass(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Turn),
        2 => any::<u8>().prop_map(|part| Step::Look("Pod", part)),
        2 => any::<u8>().prop_map(|part| Step::Look("ReplicaSet", part)),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(n, ready)| Step::Ready(n, ready)),
        1 => any::<u8>().prop_map(Step::Fail),
        1 => any::<u8>().prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Vanish),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(n, ours)| Step::Label(n, ours)),
        1 => Just(Step::Orphan),
        1 => (0..6i32).prop_map(Step::Scale),
        1 => (0..40u8).prop_map(Step::Pass),
    ]
}

/// The nth pod as it is, if there is any.
pub fn nth(model: &Model, n: u8) -> Option<coracle_client::Key> {
    let pods = model.all::<Pod>();
    pods.get(usize::from(n) % pods.len().max(1)).map(|p| coracle_client::Key::of(&**p))
}

/// The kubelet reports.
pub fn make_ready(model: &Model, key: &coracle_client::Key, ready: bool) {
    let now = model.now();
    model.edit::<Pod>(key, |pod| {
        if is_active(pod) {
            pod.spec.get_or_insert_default().node_name = Some("n1".into());
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Running".into());
            let changed = !status.conditions.iter().flatten().any(|c| (c.status == "True") == ready);
            if changed {
                status.conditions = Some(Box::new([PodCondition {
                    type_: "Ready".into(),
                    status: if ready { "True" } else { "False" }.into(),
                    last_transition_time: Some(Time(now)),
                    ..PodCondition::default()
                }]));
            }
        }
    });
}

/// A turn of the ReplicaSet controller for every set that it sees.
pub fn turn(model: &Model) -> bool {
    let mut wrote = false;
    for set in model.seen::<ReplicaSet>() {
        let uid = set.metadata.uid.as_deref();
        wrote |= model.turn("replicaset", &coracle_client::Key::of(&*set), |now, past| {
            let mut pods = model.seen::<Pod>();
            pods.retain(|p| controller_of(&p.metadata).is_none_or(|o| Some(o.uid.as_str()) == uid));
            let failed = past.failures.iter().find(|f| f.kind == "Pod" && matches!(f.verb, "create" | "delete"));
            plan(&Observed { set: &*set, pods: &pods, now, failed })
        });
    }
    wrote
}

fn apply(model: &Model, key: &coracle_client::Key, step: &Step) {
    let edit = |n: u8, change: &dyn Fn(&mut Pod)| {
        nth(model, n).map(|key| model.edit::<Pod>(&key, change));
    };
    match step {
        Step::Turn => drop(turn(model)),
        Step::Look(kind, part) => model.look(kind, *part),
        Step::Ready(n, ready) => drop(nth(model, *n).map(|key| make_ready(model, &key, *ready))),
        Step::Fail(n) => edit(*n, &|pod| pod.status.get_or_insert_default().phase = Some("Failed".into())),
        Step::Delete(n) => drop(nth(model, *n).map(|key| model.remove::<Pod>(&key))),
        Step::Vanish(n) => edit_leaving(model, *n),
        Step::Label(n, ours) => edit(*n, &|pod| {
            pod.metadata.labels = Some([("app".to_owned(), if *ours { "web" } else { "other" }.to_owned())].into());
        }),
        Step::Orphan => {
            let mut orphan = (*pod("x", "orphan")).clone();
            orphan.metadata.name = None;
            orphan.metadata.generate_name = Some("orphan-".into());
            model.add(&orphan);
        }
        Step::Scale(n) => drop(model.edit::<ReplicaSet>(key, |set| set.spec.as_mut().unwrap().replicas = Some(*n))),
        Step::Pass(seconds) => model.pass((*seconds).into()),
    }
}

fn edit_leaving(model: &Model, n: u8) {
    if let Some(pod) = model.all::<Pod>().iter().filter(|p| p.metadata.deletion_timestamp.is_some()).nth(n.into()) {
        model.vanish::<Pod>(&coracle_client::Key::of(&**pod));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn from_any_state_it_settles_and_stays(min_ready in 0..2i32, steps in prop::collection::vec(steps(), 0..80)) {
        let model = Model::new();
        let mut first = set(3);
        first.spec.as_mut().unwrap().min_ready_seconds = Some(min_ready * 20);
        let key = model.add(&first);
        for step in &steps {
            apply(&model, &key, step);
        }
        let mut rounds = 0;
        loop {
            ["Pod", "ReplicaSet"].iter().for_each(|kind| model.look(kind, 255));
            let wrote = turn(&model);
            for pod in model.all::<Pod>() {
                let key = coracle_client::Key::of(&*pod);
                make_ready(&model, &key, true);
                if pod.metadata.deletion_timestamp.is_some() { model.vanish::<Pod>(&key); }
            }
            model.pass(25);
            rounds += 1;
            prop_assert!(rounds < 20, "no fixpoint");
            if !wrote && rounds > 3 { break; }
        }
        let set = model.all::<ReplicaSet>().remove(0);
        let wanted = set.spec.as_ref().unwrap().replicas;
        let pods = model.all::<Pod>();
        let ours = pods.iter().filter(|p| is_active(p) && controller_of(&p.metadata).is_some()).count();
        prop_assert_eq!(i32::try_from(ours).ok(), wanted);
        let status = set.status.clone().unwrap();
        prop_assert_eq!(status.available_replicas.unwrap_or(0), wanted.unwrap());
        prop_assert_eq!(status.observed_generation, set.metadata.generation);
        // It stays.
        ["Pod", "ReplicaSet"].iter().for_each(|kind| model.look(kind, 255));
        prop_assert!(!turn(&model));
    }

    // However informers lag, no turn makes more pods than are wanted: what it has made itself, it has seen.
    #[test]
    fn a_lagging_informer_makes_no_surplus(looks in prop::collection::vec((any::<u8>(), any::<u8>()), 0..40)) {
        let model = Model::new();
        model.add(&set(4));
        for (pods, sets) in looks {
            model.look("Pod", pods);
            model.look("ReplicaSet", sets);
            turn(&model);
            prop_assert!(model.all::<Pod>().len() <= 4);
        }
    }
}

#[test]
fn the_empty_selector_owns_nothing() {
    let mut all = set(2);
    all.spec.as_mut().unwrap().selector = LabelSelector::default();
    assert_eq!(plan(&Observed { set: &all, pods: &[pod("a", "orphan")], now: at(1_000), failed: None }), Plan::default());
}

#[test]
fn a_replication_controller_is_the_same_in_older_words() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let controller: k8s_openapi::api::core::v1::ReplicationController = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "rc", "resourceVersion": "1", "generation": 1},
        "spec": {"replicas": 2, "selector": {"app": "web"}, "template": template}, "status": {"replicas": 0}}))
    .unwrap();
    let plan = plan(&Observed { set: &controller, pods: &[pod("0", "ready orphan")], now: at(1_000), failed: None });
    assert_eq!((plan.patches.len(), plan.creates.len()), (1, 1));
    let owner = &plan.creates[0].object["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["apiVersion"], &owner["kind"]), (&json!("v1"), &json!("ReplicationController")));
    let status = &plan.status.unwrap().body["status"];
    assert_eq!(
        (&status["replicas"], &status["availableReplicas"], &status["terminatingReplicas"]),
        (&json!(1), &json!(1), &serde_json::Value::Null)
    );
    let mut all = controller;
    all.spec.get_or_insert_default().selector = Some(Default::default());
    assert_eq!(super::plan(&Observed { set: &all, pods: &[pod("a", "orphan")], now: at(1_000), failed: None }), Plan::default());
}
