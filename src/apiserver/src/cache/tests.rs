//! Whatever the order in which writes and watchers take their turns, all come to the same end.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use coracle_store::{
    Durability, Entry, Expect,
    embedded::{EmbeddedStore, Options},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cache::object::{Action, encode};

/// What a step does.
#[derive(Clone, Debug)]
enum Step {
    /// Writes a key, or deletes it.
    Write { key: u8, delete: bool },
    /// A watcher looks.
    Look { watcher: usize },
    /// A watcher begins anew, from a list.
    Join { watcher: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, prop::bool::weighted(0.3)).prop_map(|(key, delete)| Step::Write { key, delete }),
        2 => (0usize..3).prop_map(|watcher| Step::Look { watcher }),
        1 => (0usize..3).prop_map(|watcher| Step::Join { watcher }),
    ]
}

type State = BTreeMap<String, u64>;

/// A client that lists, watches, and lists again when it fell behind.
struct Client {
    seen: State,
    watcher: Watcher,
}

impl Client {
    fn join(shared: &Arc<Shared>, collection: &Arc<Collection>) -> Self {
        let snapshot = collection.snapshot("", shared.applied());
        let seen = snapshot.objects.iter().map(|object| (object.key().to_owned(), object.revision())).collect();
        Self { seen, watcher: Watcher::new(Arc::clone(collection), Arc::clone(shared), snapshot.revision) }
    }

    /// Takes all that is there; false when it fell behind.
    fn look(&mut self) -> bool {
        loop {
            let Ok(changes) = self.watcher.ready() else { return false };
            if changes.is_empty() {
                return true;
            }
            for change in changes {
                let key = change.object.key().to_owned();
                let before = match change.action {
                    Action::Deleted => self.seen.remove(&key),
                    Action::Added | Action::Modified => self.seen.insert(key, change.revision),
                };
                assert_eq!(before.is_none(), change.action == Action::Added, "no change is told twice, and none is left out");
                assert_eq!(before, change.previous.as_ref().map(|object| object.revision()));
            }
        }
    }
}

/// Gives when the watchers are to be told, if not now.
fn write(shared: &Shared, collection: &Collection, key: &str, revision: u64, deleted: bool) -> Option<tokio::time::Instant> {
    let value: Bytes = encode(&json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": key}}), None).unwrap();
    let entry = Entry { key: format!("/registry/configmaps/{key}").into(), value, created: 1, modified: revision };
    let action = if deleted { Action::Deleted } else { Action::Modified };
    let view = collection.view();
    let later = collection.apply(Object::take_in(&entry, key, revision, action, &view).unwrap(), &view, deleted);
    shared.advance(revision);
    later
}

proptest! {
    #[test]
    fn every_watcher_ends_where_the_writes_end(steps in prop::collection::vec(step(), 1..120), window in 1usize..40) {
        let shared = Arc::new(Shared { bounds: Bounds { changes: window, bytes: 1 << 20 }, ..Shared::default() });
        let collection = shared.collection("configmaps");
        let mut clients: Vec<Client> = (0..3).map(|_| Client::join(&shared, &collection)).collect();
        let mut model = State::new();
        let mut past: Vec<(u64, State)> = vec![(0, State::new())];
        let mut revision = 0;
        for step in steps {
            match step {
                Step::Write { key, delete } => {
                    let key = format!("k{key}");
                    if delete && !model.contains_key(&key) {
                        continue;
                    }
                    revision += 1;
                    write(&shared, &collection, &key, revision, delete);
                    if delete { model.remove(&key); } else { model.insert(key, revision); }
                    past.push((revision, model.clone()));
                }
                Step::Look { watcher } => {
                    if !clients[watcher].look() {
                        clients[watcher] = Client::join(&shared, &collection);
                    }
                    prop_assert_eq!(&clients[watcher].seen, &model);
                }
                Step::Join { watcher } => clients[watcher] = Client::join(&shared, &collection),
            }
        }
        for client in &mut clients {
            if !client.look() {
                *client = Client::join(&shared, &collection);
            }
            prop_assert_eq!(&client.seen, &model);
        }
        // Every revision of the window reads as it was; what is older says so.
        for (at, state) in past {
            match collection.snapshot_at("", at) {
                Ok(snapshot) => {
                    let seen: State = snapshot.objects.iter().map(|object| (object.key().to_owned(), object.revision())).collect();
                    prop_assert_eq!(seen, state);
                }
                Err(expired) => prop_assert!(at < expired.oldest),
            }
        }
    }
}

#[tokio::test]
async fn a_waiting_watcher_wakes_for_a_change() {
    let shared = Arc::new(Shared::default());
    let collection = shared.collection("configmaps");
    let mut client = Client::join(&shared, &collection);
    let waiting = tokio::spawn(async move { client.watcher.next().await.map(|changes| changes.len()) });
    tokio::task::yield_now().await;
    write(&shared, &collection, "a", 1, false);
    assert_eq!(waiting.await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_hears_of_the_first_change_at_once_and_of_a_burst_in_one_piece() {
    let shared = Arc::new(Shared::default());
    let collection = shared.collection("configmaps");
    let mut crowd: Vec<Client> = (0..500).map(|_| Client::join(&shared, &collection)).collect();
    let heard = async |client: &mut Client| {
        let changes = tokio::time::timeout(Duration::from_secs(1), client.watcher.next()).await.ok()?.unwrap();
        Some(changes.iter().map(|change| change.revision).collect::<Vec<_>>())
    };
    assert_eq!(write(&shared, &collection, "a", 1, false), None);
    assert_eq!(heard(&mut crowd[0]).await, Some(vec![1]));
    // The clock stood still: two more come while they are busy.
    let later = write(&shared, &collection, "b", 2, false);
    assert_eq!(later, Some(tokio::time::Instant::now() + Duration::from_millis(10)));
    assert_eq!(write(&shared, &collection, "c", 3, false), None, "one round is enough");
    assert_eq!(heard(&mut crowd[0]).await, None);
    // Who has not heard of the first is not held back.
    assert_eq!(heard(&mut crowd[1]).await, Some(vec![1, 2, 3]));
    collection.tell();
    assert_eq!(heard(&mut crowd[0]).await, Some(vec![2, 3]));
    // The patience of a second ago was a second of this clock: nobody is busy any more.
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(write(&shared, &collection, "d", 4, false), None);
    assert_eq!(heard(&mut crowd[0]).await, Some(vec![4]));
}

#[tokio::test]
async fn the_feed_tells_a_crowd_what_was_held_back() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir.path(), Options::default()).unwrap());
    let cache = Cache::open(Arc::clone(&store), Bounds::default()).await.unwrap();
    let listens = |mut watcher: Watcher| async move {
        let mut heard = 0;
        while heard < 20 {
            heard += watcher.next().await.unwrap().len();
        }
        heard
    };
    let crowd: Vec<_> = (0..200).map(|_| tokio::spawn(listens(cache.watch("", "configmaps", 0)))).collect();
    let value: Bytes = encode(&json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}}), None).unwrap();
    for _ in 0..20 {
        store.put("/registry/configmaps/a", value.clone(), Expect::Any, Durability::Sync).await.unwrap();
    }
    for watcher in crowd {
        let heard = tokio::time::timeout(Duration::from_secs(60), watcher).await.expect("a change is never told");
        assert_eq!(heard.unwrap(), 20);
    }
}
