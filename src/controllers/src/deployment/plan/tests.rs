//! Deployment plans: tables of cases, convergence from any state, and bounds on availability that no step leaves.

use coracle_client::Key;
use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::util::intstr::IntOrString};
use proptest::prelude::*;

use super::*;
use crate::{
    deployment::sets::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION_HISTORY, max_surge, template_hash},
    model::Model,
    owner::controller_of,
    pods::{is_active, is_ready},
    replicaset,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn template(image: &str) -> PodTemplateSpec {
    serde_json::from_value(json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
        .unwrap()
}

fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let bound = |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int);
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "dep", "resourceVersion": "1", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("i1"),
                 "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
                 "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": bound(surge), "maxUnavailable": bound(unavailable)}}}
    }))
    .unwrap()
}

/// A set of the Deployment: image, wanted, available; `desired` and `max` are noted on it as when it was scaled to them.
struct Set(&'static str, i32, i32, i32, i32);

fn member(deployment: &Deployment, n: usize, Set(image, wanted, available, desired, max): &Set) -> Arc<ReplicaSet> {
    let spec = DeploymentSpec { template: template(image), ..deployment.spec.clone().unwrap() };
    let mut set = new_set(deployment, &spec, 0, *wanted, i64::try_from(n).unwrap() + 1);
    set.metadata.uid = Some(format!("rs{n}"));
    set.metadata.name = Some(format!("rs{n}"));
    set.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(n.try_into().unwrap())));
    let notes = set.metadata.annotations.get_or_insert_default();
    notes.insert(DESIRED_REPLICAS.into(), desired.to_string());
    notes.insert(MAX_REPLICAS.into(), max.to_string());
    set.status =
        Some(serde_json::from_value(json!({"replicas": wanted, "readyReplicas": available, "availableReplicas": available})).unwrap());
    Arc::new(set)
}

/// What the plan does, in words.
fn act(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> String {
    let plan = plan(&Observed { deployment, sets, pods: &[], now: at(1_000), failed: None });
    let mut words: Vec<String> = plan.creates.iter().map(|c| format!("create {}", c.object["spec"]["replicas"])).collect();
    words.extend(plan.patches.iter().filter_map(|p| Some(format!("{}={}", p.target.key.name, p.body["spec"]["replicas"].as_i64()?))));
    words.extend(plan.deletes.iter().map(ToString::to_string));
    words.join(" ")
}

fn check(replicas: i32, surge: &str, unavailable: &str, sets: &[Set], expected: &str) {
    let mut deployment = deployment(replicas, surge, unavailable);
    deployment.spec.as_mut().unwrap().template = template("new");
    let sets: Vec<_> = sets.iter().enumerate().map(|(n, set)| member(&deployment, n, set)).collect();
    assert_eq!(act(&deployment, &sets), expected);
}

#[test]
fn rolling_update_steps() {
    check(3, "1", "0", &[], "create 3");
    check(3, "1", "0", &[Set("old", 3, 3, 3, 4)], "create 1");
    check(3, "1", "0", &[Set("old", 3, 3, 3, 4), Set("new", 1, 0, 3, 4)], "");
    check(3, "1", "0", &[Set("old", 3, 3, 3, 4), Set("new", 1, 1, 3, 4)], "rs0=2");
    check(3, "1", "0", &[Set("old", 2, 2, 3, 4), Set("new", 1, 1, 3, 4)], "rs1=2");
    check(3, "0", "1", &[Set("old", 3, 3, 3, 3)], "create 0");
    check(3, "0", "1", &[Set("old", 3, 3, 3, 3), Set("new", 0, 0, 3, 3)], "rs0=2");
    check(10, "25%", "25%", &[Set("old", 10, 10, 10, 13)], "create 3");
    check(10, "25%", "25%", &[Set("old", 10, 10, 10, 13), Set("new", 3, 0, 10, 13)], "rs0=8");
    check(10, "25%", "25%", &[Set("old", 10, 0, 10, 13), Set("new", 3, 0, 10, 13)], "rs0=8");
    check(3, "0%", "0%", &[Set("old", 3, 3, 3, 3), Set("new", 0, 0, 3, 3)], "rs0=2");
    check(2, "1", "0", &[Set("a", 1, 1, 2, 3), Set("b", 1, 0, 2, 3), Set("new", 1, 1, 2, 3)], "rs1=0");
    check(0, "1", "0", &[Set("old", 2, 2, 0, 1), Set("new", 0, 0, 0, 1)], "rs0=0");
}

#[test]
fn scaling_is_shared_by_size() {
    check(6, "2", "0", &[Set("new", 3, 3, 3, 5)], "rs0=6");
    check(20, "5", "0", &[Set("old", 8, 8, 10, 15), Set("new", 5, 5, 10, 15)], "rs1=8 rs0=17");
    check(5, "0", "1", &[Set("old", 6, 6, 10, 10), Set("new", 4, 4, 10, 10)], "rs1=2 rs0=3");
    check(0, "1", "0", &[Set("old", 6, 6, 10, 11), Set("new", 5, 4, 10, 11)], "rs1=0 rs0=0");
    check(4, "1", "0", &[Set("new", 2, 2, 2, 3), Set("old", 0, 0, 2, 3)], "rs0=4");
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut paused = deployment(5, "1", "0");
    paused.spec.as_mut().unwrap().paused = Some(true);
    let old = member(&paused, 0, &Set("i0", 3, 3, 3, 4));
    assert_eq!(act(&paused, std::slice::from_ref(&old)), "rs0=5");
    let plan = plan(&Observed { deployment: &paused, sets: &[old], pods: &[], now: at(1_000), failed: None });
    assert!(plan.waiting.contains(&Waiting::Paused));
    let conditions = &plan.status.unwrap().body["status"]["conditions"];
    assert!(conditions.as_array().unwrap().iter().any(|c| c["reason"] == reason::PAUSED && c["status"] == "Unknown"));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut recreate = deployment(2, "1", "0");
    recreate.spec.as_mut().unwrap().strategy = Some(serde_json::from_value(json!({"type": "Recreate"})).unwrap());
    let old = member(&recreate, 0, &Set("i0", 2, 2, 2, 2));
    assert_eq!(act(&recreate, &[old]), "rs0=0");
    let mut empty = (*member(&recreate, 0, &Set("i0", 0, 0, 2, 2))).clone();
    empty.status.as_mut().unwrap().replicas = 0;
    let empty = Arc::new(empty);
    let mut pod = Pod::default();
    pod.metadata.owner_references = Some(vec![crate::owner::controller_ref(&*empty)]);
    let seen = |pods: &[Arc<Pod>]| {
        plan(&Observed { deployment: &recreate, sets: std::slice::from_ref(&empty), pods, now: at(1_000), failed: None })
    };
    let waits = seen(&[Arc::new(pod)]);
    assert!(waits.creates.is_empty() && waits.waiting.contains(&Waiting::OldPodsGone { left: 1 }));
    assert_eq!(seen(&[]).creates[0].object["spec"]["replicas"], 2);
}

#[test]
fn history_keeps_the_newest_and_never_what_is_in_use() {
    let mut done = deployment(1, "1", "0");
    done.spec.as_mut().unwrap().template = template("new");
    let mut sets: Vec<_> = [Set("a", 0, 0, 1, 2), Set("b", 0, 0, 1, 2), Set("c", 0, 0, 1, 2), Set("d", 0, 0, 1, 2), Set("new", 1, 1, 1, 2)]
        .iter()
        .enumerate()
        .map(|(n, s)| member(&done, n, s))
        .collect();
    assert_eq!(act(&done, &sets), "delete ReplicaSet d/rs0 delete ReplicaSet d/rs1");
    let mut used = (*sets[0]).clone();
    used.metadata.generation = Some(9);
    sets[0] = Arc::new(used);
    assert_eq!(act(&done, &sets), "delete ReplicaSet d/rs1");
}

#[test]
fn going_back_to_an_old_template_renumbers_its_set() {
    let mut back = deployment(1, "1", "0");
    back.spec.as_mut().unwrap().template = template("a");
    let sets = [member(&back, 0, &Set("a", 0, 0, 1, 2)), member(&back, 1, &Set("b", 1, 1, 1, 2))];
    let plan = plan(&Observed { deployment: &back, sets: &sets, pods: &[], now: at(1_000), failed: None });
    let notes = &plan.patches[0].body["metadata"]["annotations"];
    assert_eq!((&notes[REVISION], &notes[REVISION_HISTORY]), (&json!("3"), &json!("1")));
    assert_eq!(plan.status.unwrap().body["metadata"]["annotations"][REVISION], "3");
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let fresh = deployment(1, "1", "0");
    let failed = Failure {
        verb: "create",
        action: String::new(),
        kind: "ReplicaSet".into(),
        refused: crate::writer::Refused { code: 409, reason: "AlreadyExists".into(), message: String::new(), namespace_ends: false },
    };
    let plan = plan(&Observed { deployment: &fresh, sets: &[], pods: &[], now: at(1_000), failed: Some(&failed) });
    assert_eq!(plan.status.unwrap().body["status"]["collisionCount"], 1);
    let template = &fresh.spec.as_ref().unwrap().template;
    assert_eq!(plan.creates[0].object["metadata"]["name"], format!("web-{}", template_hash(template, 1)));
    assert_ne!(template_hash(template, 0), template_hash(template, 1));
}

#[test]
fn a_rollout_that_stands_still_misses_its_deadline() {
    let mut slow = deployment(1, "1", "0");
    let set = member(&slow, 0, &Set("i1", 1, 0, 1, 2));
    let first = plan(&Observed { deployment: &slow, sets: std::slice::from_ref(&set), pods: &[], now: at(1_000), failed: None });
    slow.status = Some(serde_json::from_value(first.status.unwrap().body["status"].clone()).unwrap());
    let waits = plan(&Observed { deployment: &slow, sets: std::slice::from_ref(&set), pods: &[], now: at(1_100), failed: None });
    assert_eq!(waits.requeue_at, Some(at(1_601)));
    let late = plan(&Observed { deployment: &slow, sets: &[set], pods: &[], now: at(1_601), failed: None });
    let conditions = late.status.unwrap().body["status"]["conditions"].clone();
    let progressing = conditions.as_array().unwrap().iter().find(|c| c["type"] == "Progressing").unwrap().clone();
    assert_eq!((&progressing["status"], &progressing["reason"]), (&json!("False"), &json!(reason::TIMED_OUT)));
    assert_eq!(late.requeue_at, None);
}

/// What the world does between turns.
#[derive(Clone, Debug)]
enum Step {
    Deployment,
    Sets,
    Look(&'static str, u8),
    Ready(u8),
    Vanish(u8),
    Image(u8),
    Scale(i32),
    Pause(bool),
    Unready(u8),
    Delete(u8),
    Pass(u8),
}

/// Steps that a rollout has to bear without leaving its bounds: no scaling, and no pod is lost but by us.
fn calm() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Deployment),
        8 => Just(Step::Sets),
        6 => (prop_oneof![Just("Pod"), Just("ReplicaSet"), Just("Deployment")], any::<u8>()).prop_map(|(kind, part)| Step::Look(kind, part)),
        6 => any::<u8>().prop_map(Step::Ready),
        4 => any::<u8>().prop_map(Step::Vanish),
        1 => (0..4u8).prop_map(Step::Image),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (0..40u8).prop_map(Step::Pass),
    ]
}

fn wild() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => calm(),
        1 => (0..7i32).prop_map(Step::Scale),
        1 => any::<u8>().prop_map(Step::Unready),
        1 => any::<u8>().prop_map(Step::Delete),
    ]
}

fn turn(model: &Model) -> bool {
    let mut wrote = false;
    for deployment in model.seen::<Deployment>() {
        wrote |= model.turn("deployment", &Key::of(&*deployment), |now, past| {
            let (sets, mut pods) = (model.seen::<ReplicaSet>(), model.seen::<Pod>());
            pods.retain(|p| recreates(&deployment) && controller_of(&p.metadata).is_some());
            let failed = past.failures.iter().find(|f| f.kind == "ReplicaSet" && f.verb == "create");
            plan(&Observed { deployment: &deployment, sets: &sets, pods: &pods, now, failed })
        });
    }
    wrote
}

fn apply(model: &Model, key: &Key, step: &Step) {
    let edit = |change: &dyn Fn(&mut DeploymentSpec)| {
        model.edit::<Deployment>(key, |d| change(d.spec.as_mut().unwrap()));
    };
    let pod = |n: u8| replicaset::plan::tests::nth(model, n);
    match step {
        Step::Deployment => drop(turn(model)),
        Step::Sets => drop(replicaset::plan::tests::turn(model)),
        Step::Look(kind, part) => model.look(kind, *part),
        Step::Ready(n) => drop(pod(*n).map(|key| replicaset::plan::tests::make_ready(model, &key, true))),
        Step::Unready(n) => drop(pod(*n).map(|key| replicaset::plan::tests::make_ready(model, &key, false))),
        Step::Delete(n) => drop(pod(*n).map(|key| model.remove::<Pod>(&key))),
        Step::Vanish(n) => vanish(model, *n),
        Step::Image(n) => edit(&|spec| spec.template = template(&format!("i{n}"))),
        Step::Scale(n) => edit(&|spec| spec.replicas = Some(*n)),
        Step::Pause(paused) => edit(&|spec| spec.paused = Some(*paused)),
        Step::Pass(seconds) => model.pass((*seconds).into()),
    }
}

fn vanish(model: &Model, n: u8) {
    let leaving: Vec<_> = model.all::<Pod>().into_iter().filter(|p| p.metadata.deletion_timestamp.is_some()).collect();
    if let Some(pod) = leaving.get(usize::from(n) % leaving.len().max(1)) {
        model.vanish::<Pod>(&Key::of(&**pod));
    }
}

/// Everybody sees everything and every pod does well, until nobody writes any more.
fn settle(model: &Model) -> Result<(), TestCaseError> {
    let mut still = 0;
    for _ in 0..120 {
        ["Pod", "ReplicaSet", "Deployment"].iter().for_each(|kind| model.look(kind, 255));
        let wrote = turn(model) | {
            model.look("ReplicaSet", 255);
            replicaset::plan::tests::turn(model)
        };
        for pod in model.all::<Pod>() {
            replicaset::plan::tests::make_ready(model, &Key::of(&*pod), true);
            if pod.metadata.deletion_timestamp.is_some() {
                model.vanish::<Pod>(&Key::of(&*pod));
            }
        }
        model.pass(1);
        still = if wrote { 0 } else { still + 1 };
        if still == 3 {
            return Ok(());
        }
    }
    Err(TestCaseError::fail("no fixpoint"))
}

/// Pods that exist and serve: (active, available).
fn pods(model: &Model) -> (i32, i32) {
    let pods = model.all::<Pod>();
    let active = pods.iter().filter(|p| is_active(p));
    (active.clone().count().try_into().unwrap(), active.filter(|p| is_ready(p)).count().try_into().unwrap())
}

fn strategies() -> impl Strategy<Value = (i32, &'static str, &'static str)> {
    (1..6i32, prop::sample::select(vec![("1", "0"), ("0", "1"), ("2", "1"), ("25%", "25%"), ("100%", "0"), ("0", "100%"), ("0%", "0%")]))
        .prop_map(|(replicas, (surge, unavailable))| (replicas, surge, unavailable))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn from_any_state_it_settles_and_stays((replicas, surge, unavailable) in strategies(), steps in prop::collection::vec(wild(), 0..80)) {
        let model = Model::new();
        let key = model.add(&deployment(replicas, surge, unavailable));
        for step in &steps {
            apply(&model, &key, step);
        }
        model.edit::<Deployment>(&key, |d| d.spec.as_mut().unwrap().paused = None);
        settle(&model)?;
        let deployment = model.all::<Deployment>().remove(0);
        let (spec, status) = (deployment.spec.as_ref().unwrap(), deployment.status.clone().unwrap());
        prop_assert_eq!(pods(&model), (super::replicas(spec), super::replicas(spec)));
        prop_assert!(status::is_complete(&deployment, spec, &status), "{:?}", status);
        if super::replicas(spec) > 0 {
            let progressing = status::find(Some(&status), "Progressing");
            prop_assert!(progressing.is_some_and(|c| status::is(c, reason::AVAILABLE)), "{:?}", progressing);
        }
        let sets = model.all::<ReplicaSet>();
        let (new, old) = split(spec, sets.iter().map(AsRef::as_ref).collect());
        prop_assert!(old.len() <= 2, "history");
        prop_assert!(old.iter().all(|set| revision(set) < revision(new.unwrap())));
        prop_assert_eq!(deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).cloned(), new.map(|n| revision(n).to_string()));
    }

    // Whatever the informers have seen, and however the template changes under way: the strategy's bounds hold at every moment.
    #[test]
    fn no_step_leaves_the_bounds((replicas, surge, unavailable) in strategies(), steps in prop::collection::vec(calm(), 0..120)) {
        let model = Model::new();
        let key = model.add(&deployment(replicas, surge, unavailable));
        settle(&model)?;
        let spec = model.all::<Deployment>()[0].spec.clone().unwrap();
        let (most, least) = (replicas + max_surge(&spec), replicas - crate::deployment::sets::max_unavailable(&spec));
        for step in &steps {
            apply(&model, &key, step);
            let (active, available) = pods(&model);
            prop_assert!(active <= most, "{active} pods, at most {most}, after {step:?}");
            prop_assert!(available >= least, "{available} available, at least {least}, after {step:?}");
        }
    }
}
