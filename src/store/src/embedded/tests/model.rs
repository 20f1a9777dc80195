//! Random operations against a `BTreeMap`: the same answers, before and after every kind of reopening.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, size: usize, expect: Want, lazy: bool },
    Delete { key: u8, expect: Want },
    Compact { back: u64 },
    ReadPast { back: u64, limit: usize, after: Option<u8> },
    Reopen,
    ReopenWithoutIndex,
    Kill,
}

#[derive(Clone, Copy, Debug)]
enum Want {
    Any,
    Absent,
    Right,
    Wrong,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let want = || prop_oneof![3 => Just(Want::Any), 1 => Just(Want::Absent), 2 => Just(Want::Right), 1 => Just(Want::Wrong)];
    let size = prop_oneof![8 => 0usize..300, 1 => 3000usize..9000];
    let step = prop_oneof![
        20 => (0u8..12, size, want(), any::<bool>()).prop_map(|(key, size, expect, lazy)| Step::Put { key, size, expect, lazy }),
        6 => (0u8..12, want()).prop_map(|(key, expect)| Step::Delete { key, expect }),
        1 => (0u64..5).prop_map(|back| Step::Compact { back }),
        4 => (0u64..12, 0usize..5, proptest::option::of(0u8..12)).prop_map(|(back, limit, after)| Step::ReadPast { back, limit, after }),
        1 => Just(Step::Reopen),
        1 => Just(Step::ReopenWithoutIndex),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..120)
}

type States = BTreeMap<String, Entry>;

struct Model {
    now: States,
    revision: u64,
    oldest: u64,
    /// States and changes by revision, from `oldest` on.
    past: BTreeMap<u64, (States, Option<Event>)>,
}

impl Model {
    fn expect(&self, key: &str, want: Want) -> (Expect, bool) {
        let current = self.now.get(key);
        match want {
            Want::Any => (Expect::Any, true),
            Want::Absent => (Expect::Absent, current.is_none()),
            Want::Right => (Expect::Revision(current.map_or(u64::MAX, |entry| entry.modified)), current.is_some()),
            Want::Wrong => (Expect::Revision(current.map_or(1, |entry| entry.modified + 1)), false),
        }
    }

    fn record(&mut self, change: Change) {
        self.revision += 1;
        let event = Event { revision: self.revision, change };
        self.past.insert(self.revision, (self.now.clone(), Some(event)));
    }

    fn restart_at(&mut self, revision: u64) {
        (self.revision, self.oldest) = (revision, revision);
        self.past = BTreeMap::from([(revision, (self.now.clone(), None))]);
    }
}

fn key_of(key: u8) -> String {
    format!("/{}/{key}", if key.is_multiple_of(2) { "even" } else { "odd" })
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let mut store = open(dir.path());
    let mut model = Model { now: States::new(), revision: 0, oldest: 0, past: BTreeMap::new() };
    model.restart_at(0);
    for step in steps {
        match step {
            Step::Put { key, size, expect, lazy } => {
                let key = key_of(key);
                let (expect, holds) = model.expect(&key, expect);
                let value = Bytes::from(some(model.revision, size));
                let durability = if lazy { Durability::Lazy } else { Durability::Sync };
                let answer = runtime.block_on(store.put(&key, value.clone(), expect, durability));
                if holds {
                    let modified = answer.expect("the condition holds");
                    assert_eq!(modified, model.revision + 1);
                    let created = model.now.get(&key).map_or(modified, |entry| entry.created);
                    let entry = Entry { key: key.as_str().into(), value, created, modified };
                    model.now.insert(key, entry.clone());
                    model.record(Change::Put(entry));
                } else {
                    assert!(matches!(answer, Err(WriteError::Conflict { current }) if current.as_ref() == model.now.get(&key)));
                }
            }
            Step::Delete { key, expect } => {
                let key = key_of(key);
                let (expect, holds) = model.expect(&key, expect);
                let answer = runtime.block_on(store.delete(&key, expect));
                match model.now.get(&key).cloned() {
                    Some(entry) if holds => {
                        assert_eq!(answer.expect("the condition holds"), model.revision + 1);
                        model.now.remove(&key);
                        model.record(Change::Delete(entry));
                    }
                    current => assert!(matches!(answer, Err(WriteError::Conflict { current: told }) if told == current)),
                }
            }
            Step::Compact { back } => {
                model.oldest = model.oldest.max(model.revision.saturating_sub(back));
                runtime.block_on(store.compact(model.oldest)).expect("compacted");
            }
            Step::ReadPast { back, limit, after } => read_past(&runtime, &store, &model, back, limit, after),
            Step::Reopen => {
                runtime.block_on(store.close()).expect("closed");
                drop(store);
                store = open(dir.path());
                restarted(&store, &mut model);
            }
            Step::ReopenWithoutIndex => {
                drop(store);
                let _ = std::fs::remove_dir_all(dir.path().join("index")); // there may be none yet
                store = open(dir.path());
                restarted(&store, &mut model);
            }
            Step::Kill => {
                store.abandon();
                store = open(dir.path());
                restarted(&store, &mut model);
            }
        }
        assert_eq!(store.revision(), model.revision);
    }
    check_all(&runtime, &store, &model);
}

fn restarted(store: &EmbeddedStore, model: &mut Model) {
    assert!([model.revision, model.revision + writer::REVISION_GAP].contains(&store.revision()));
    model.restart_at(store.revision());
}

fn read_past(runtime: &Runtime, store: &EmbeddedStore, model: &Model, back: u64, limit: usize, after: Option<u8>) {
    let at = model.revision.saturating_sub(back);
    let range = Range { prefix: "/even/".into(), after: after.map(key_of), limit, at: Some(at) };
    let answer = runtime.block_on(store.range(range.clone()));
    let watch = runtime.block_on(store.watch("/even/", at));
    if at < model.oldest {
        assert!(matches!(answer, Err(ReadError::Compacted { wanted, oldest }) if (wanted, oldest) == (at, model.oldest)));
        assert!(matches!(watch, Err(ReadError::Compacted { .. })));
        return;
    }
    let page = answer.expect("a page");
    let states = &model.past[&at].0;
    let matching = states.iter().filter(|(key, _)| key.starts_with("/even/") && range.after.as_ref().is_none_or(|after| *key > after));
    let mut expected: Vec<Entry> = matching.map(|(_, entry)| entry.clone()).collect();
    let remaining = if limit == 0 { 0 } else { expected.len().saturating_sub(limit) };
    expected.truncate(expected.len() - remaining);
    assert_eq!((page.entries, page.remaining, page.revision), (expected, remaining as u64, at));
    let even = |event: &&Event| match &event.change {
        Change::Put(entry) | Change::Delete(entry) => entry.key.starts_with("/even/"),
    };
    let expected: Vec<Event> = model.past.range(at + 1..).filter_map(|(_, (_, event))| event.as_ref()).filter(even).cloned().collect();
    let events = watch.expect("a watch").take(expected.len()).map(|event| event.expect("an event")).collect::<Vec<_>>();
    assert_eq!(runtime.block_on(events), expected);
}

fn check_all(runtime: &Runtime, store: &EmbeddedStore, model: &Model) {
    let page = runtime.block_on(store.range(all())).expect("a page");
    assert_eq!(page.entries, model.now.values().cloned().collect::<Vec<_>>());
    for key in (0..12).map(key_of) {
        assert_eq!(runtime.block_on(store.get(&key)).expect("read").as_ref(), model.now.get(&key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn it_answers_as_a_map_would(steps in steps()) {
        run(steps);
    }
}
