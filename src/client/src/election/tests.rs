//! Candidates step by step.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn lease(spec: LeaseSpec) -> Lease {
    Lease { spec: Some(spec), ..Lease::default() }
}

fn spec(step: Step) -> LeaseSpec {
    match step {
        Step::Create(spec) | Step::Update(spec) => spec,
        Step::Wait(_) => panic!("waits"),
    }
}

#[test]
fn the_first_candidate_creates_and_renews() {
    let mut a = Election::new("a", Terms::default());
    let created = spec(a.step(None, at(0)));
    assert!(!a.leads(at(0)));
    a.wrote(true, at(0));
    assert!(a.leads(at(9)) && !a.leads(at(10)));
    assert_eq!(a.step(Some(&lease(created.clone())), at(1)), Step::Wait(Duration::from_secs(1)));
    let renewed = spec(a.step(Some(&lease(created.clone())), at(2)));
    assert_eq!((renewed.acquire_time, renewed.lease_transitions), (created.acquire_time, Some(0)));
}

#[test]
fn another_waits_until_the_lease_is_old_by_its_own_clock() {
    let (mut a, mut b) = (Election::new("a", Terms::default()), Election::new("b", Terms::default()));
    // a's clock is a day behind.
    let held = lease(spec(a.step(None, at(-86_400))));
    assert_eq!(b.step(Some(&held), at(0)), Step::Wait(Duration::from_secs(2)));
    assert_eq!(b.step(Some(&held), at(14)), Step::Wait(Duration::from_secs(1)));
    let taken = spec(b.step(Some(&held), at(15)));
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
    b.wrote(true, at(15));
    assert!(b.leads(at(16)));
    a.wrote(true, at(-86_400));
    a.step(Some(&lease(taken)), at(-86_385));
    assert!(!a.leads(at(-86_385)));
}

#[test]
fn a_lost_race_is_no_leadership() {
    let mut a = Election::new("a", Terms::default());
    a.step(None, at(0));
    a.wrote(false, at(0));
    assert!(!a.leads(at(0)));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (mut a, mut b) = (Election::new("a", Terms::default()), Election::new("b", Terms::default()));
    let held = spec(a.step(None, at(0)));
    a.wrote(true, at(0));
    let freed = a.release(&held, at(1)).unwrap();
    assert!(!a.leads(at(1)));
    assert!(matches!(b.step(Some(&lease(freed.clone())), at(1)), Step::Update(_)));
    assert_eq!(b.release(&freed, at(1)), None);
}
