//! What becomes of an object that is deleted, case by case.

use serde_json::json;

use super::*;

const PODS: Kind<'_> = Kind { group: "", plural: "pods", has_status: true, custom: false };
const MAPS: Kind<'_> = Kind { group: "", plural: "configmaps", has_status: false, custom: false };
const JOBS: Kind<'_> = Kind { group: "batch", plural: "jobs", has_status: true, custom: false };

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn pod(node: &str, grace: i64, phase: &str) -> Value {
    json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": grace}, "status": {"phase": phase}})
}

fn marked(decision: Decision) -> Value {
    match decision {
        Decision::Mark(object) => object["metadata"].clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_running_pod_gets_its_time() {
    let grace = |seconds| DeleteOptions { grace_period: seconds, ..DeleteOptions::default() };
    for (object, options, want) in [
        (pod("n", 30, "Running"), grace(None), Some((30, "2026-01-01T00:00:30Z"))),
        (pod("n", 30, "Running"), grace(Some(5)), Some((5, "2026-01-01T00:00:05Z"))),
        (pod("n", 30, "Running"), grace(Some(-1)), Some((1, "2026-01-01T00:00:01Z"))),
        (pod("n", 30, "Running"), grace(Some(0)), None),
        (pod("n", 0, "Running"), grace(None), None),
        (pod("", 30, "Pending"), grace(None), None),
        (pod("n", 30, "Succeeded"), grace(Some(7)), None),
    ] {
        let decision = decide(PODS, &object, &options, now());
        match want {
            None => assert_eq!(decision, Decision::Remove, "{object} {options:?}"),
            Some((seconds, time)) => {
                let metadata = marked(decision);
                assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["deletionTimestamp"]), (&json!(seconds), &json!(time)));
                assert_eq!(metadata["generation"], 2);
            }
        }
    }
}

#[test]
fn grace_only_ever_shrinks() {
    let mut object = pod("n", 30, "Running");
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
    object["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    let grace = |seconds| DeleteOptions { grace_period: seconds, ..DeleteOptions::default() };
    assert_eq!(decide(PODS, &object, &grace(None), now()), Decision::Pending);
    assert_eq!(decide(PODS, &object, &grace(Some(40)), now()), Decision::Pending);
    let metadata = marked(decide(PODS, &object, &grace(Some(10)), now()));
    assert_eq!(metadata["deletionTimestamp"], "2026-01-01T00:00:10Z");
    assert_eq!(decide(PODS, &object, &grace(Some(0)), now()), Decision::Remove);
}

#[test]
fn finalizers_hold_and_policies_add_theirs() {
    let with = |finalizers: &[&str]| json!({"metadata": {"name": "a", "finalizers": finalizers}});
    let options = |propagation, orphan_dependents| DeleteOptions { propagation, orphan_dependents, ..DeleteOptions::default() };
    for (kind, before, options, after) in [
        (MAPS, with(&["x/y"]), options(None, None), vec!["x/y"]),
        (MAPS, with(&["x/y"]), options(Some(Propagation::Foreground), None), vec!["x/y", FOREGROUND]),
        (MAPS, with(&["x/y", ORPHAN]), options(Some(Propagation::Background), None), vec!["x/y"]),
        (MAPS, with(&["x/y"]), options(None, Some(true)), vec!["x/y", ORPHAN]),
        (JOBS, with(&[]), options(None, None), vec![ORPHAN]),
        (MAPS, with(&[]), options(Some(Propagation::Orphan), None), vec![ORPHAN]),
    ] {
        let metadata = marked(decide(kind, &before, &options, now()));
        assert_eq!((&metadata["finalizers"], &metadata["deletionGracePeriodSeconds"]), (&json!(after), &json!(0)), "{before} {options:?}");
    }
    assert_eq!(decide(MAPS, &with(&[]), &options(Some(Propagation::Background), None), now()), Decision::Remove);
}

#[test]
fn a_namespace_waits_for_its_content() {
    let mut namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let kind = Kind { group: "", plural: "namespaces", has_status: true, custom: false };
    match decide(kind, &namespace, &DeleteOptions::default(), now()) {
        Decision::Mark(marked) => assert_eq!((marked["status"]["phase"].as_str(), meta::is_deleting(&marked)), (Some("Terminating"), true)),
        other => panic!("{other:?}"),
    }
    namespace["spec"] = json!({});
    assert_eq!(decide(kind, &namespace, &DeleteOptions::default(), now()), Decision::Remove);
}
