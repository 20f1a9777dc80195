//! Budgets: what they allow in tables of cases, and the same sight gives no second write.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(10_000).unwrap()
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let metadata = json!({"name": "b", "namespace": "a", "uid": "u", "resourceVersion": "1", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

/// `r` is ready, `n` is not, `d` is ready and being deleted.
fn pods(words: &str) -> Vec<Arc<Pod>> {
    let pod = |(at, word): (usize, char)| {
        let deleted = (word == 'd').then_some("2026-01-01T00:00:00Z");
        let ready = if word == 'n' { "False" } else { "True" };
        let value = json!({"metadata": {"name": format!("p{at}"), "deletionTimestamp": deleted}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    };
    words.chars().enumerate().map(pod).collect()
}

/// `healthy/desired/expected allowed`.
fn check(spec: Value, words: &str, wanted: i32, expected: &str) {
    let mut budget = budget(spec.clone(), Value::Null);
    let (pods, scale) = (pods(words), Scale { wanted, unmanaged: 0 });
    let seen = |budget: &PodDisruptionBudget| plan(&Observed { budget, pods: &pods, scale: Ok(&scale), now: now() });
    let status = seen(&budget).status.unwrap().body["status"].clone();
    let n = |field: &str| status[field].as_i64().unwrap();
    let told = format!("{}/{}/{} {}", n("currentHealthy"), n("desiredHealthy"), n("expectedPods"), n("disruptionsAllowed"));
    assert_eq!(told, expected, "{spec} {words} of {wanted}");
    assert_eq!(status["observedGeneration"], 3);
    let (holds, reason) = if n("disruptionsAllowed") > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    assert_eq!((&status["conditions"][0]["status"], &status["conditions"][0]["reason"]), (&json!(holds), &json!(reason)));
    budget.status = Some(serde_json::from_value(status).unwrap());
    assert_eq!(seen(&budget).status, None, "a second look writes nothing");
}

#[test]
fn what_a_budget_allows() {
    check(json!({"minAvailable": 2}), "rrr", 0, "3/2/3 1");
    check(json!({"minAvailable": 2}), "rrnd", 0, "2/2/4 0");
    check(json!({"minAvailable": 0}), "", 0, "0/0/0 0");
    check(json!({"minAvailable": "50%"}), "rrr", 3, "3/2/3 1");
    check(json!({"minAvailable": "100%"}), "rrr", 3, "3/3/3 0");
    check(json!({"maxUnavailable": 1}), "rrr", 3, "3/2/3 1");
    check(json!({"maxUnavailable": 1}), "rr", 3, "2/2/3 0");
    check(json!({"maxUnavailable": "34%"}), "rrr", 3, "3/1/3 2");
    check(json!({"maxUnavailable": 5}), "rr", 3, "2/0/3 2");
    check(json!({}), "rr", 3, "2/0/0 0");
}

#[test]
fn who_was_evicted_counts_no_more_until_it_stays_too_long() {
    let at = |second: i64| serde_json::to_value(Time(Timestamp::from_second(second).unwrap())).unwrap();
    let listed = json!({"p0": at(9_990), "p1": at(9_000), "p2": at(9_990), "gone": at(9_990)});
    let budget = budget(
        json!({"minAvailable": 1}),
        json!({"disruptedPods": listed, "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
    );
    let pods = pods("rrd");
    let plan = plan(&Observed { budget: &budget, pods: &pods, scale: Ok(&Scale::default()), now: now() });
    let status = &plan.status.unwrap().body["status"];
    assert_eq!(status["disruptedPods"], json!({"gone": null, "p1": null, "p2": null}));
    assert_eq!(status["currentHealthy"], 1);
    assert_eq!(plan.requeue_at, Timestamp::from_second(9_990 + 121).ok());
}

#[test]
fn nothing_may_go_when_nobody_knows_how_many_there_should_be() {
    let status = json!({"disruptionsAllowed": 2, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 2});
    let budget = budget(json!({"maxUnavailable": 1}), status);
    let plan = plan(&Observed { budget: &budget, pods: &pods("rr"), scale: Err("found no controllers for pod \"p0\""), now: now() });
    let status = &plan.status.unwrap().body["status"];
    assert_eq!((&status["disruptionsAllowed"], &status["conditions"][0]["reason"]), (&json!(0), &json!("SyncFailed")));
    assert_eq!(status["conditions"][0]["observedGeneration"], 2);
}
