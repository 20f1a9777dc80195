//! A store that is encrypted, on a directory of its own: what lies on the disk, what is seen, and what happens to damaged keys and values.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::embedded::{EmbeddedStore, Options};

const SECRETS: &str = "/registry/secrets/";
const WORD: &[u8] = b"correct horse battery staple";

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("key.json")
    }

    fn plain(&self) -> Arc<dyn Store> {
        Arc::new(EmbeddedStore::open(&self.dir.path().join("db"), Options::default()).unwrap())
    }

    async fn open(&self) -> Encrypted {
        Encrypted::open(self.plain(), &self.key_file(), Arc::new(InFile), &[SECRETS]).await.unwrap()
    }

    /// Whether the word lies anywhere on the disk.
    fn holds(&self, word: &[u8]) -> bool {
        let mut left = vec![self.dir.path().to_owned()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if std::fs::read(path).unwrap().windows(word.len()).any(|window| window == word) {
                return true;
            }
        }
        false
    }
}

async fn put(store: &dyn Store, name: &str, value: &[u8]) -> u64 {
    let key = format!("{SECRETS}{name}");
    store.put(&key, Bytes::copy_from_slice(value), Expect::Any, Durability::Sync).await.unwrap()
}

async fn get(store: &dyn Store, name: &str) -> Bytes {
    store.get(&format!("{SECRETS}{name}")).await.unwrap().unwrap().value
}

#[tokio::test]
async fn the_disk_never_sees_what_every_reader_does() {
    let place = Place::new();
    let store = place.open().await;
    let mut events = store.watch("/registry/", 0).await.unwrap();
    let revision = put(&store, "a/x", WORD).await;
    store.put("/registry/configmaps/a/x", Bytes::from_static(b"in the open"), Expect::Any, Durability::Sync).await.unwrap();
    assert_eq!(get(&store, "a/x").await, WORD);
    let Ok(Event { change: Change::Put(entry), .. }) = events.next().await.unwrap() else { panic!("a put") };
    assert_eq!(entry.value, WORD);
    let all = Range { prefix: "/registry/".into(), after: None, limit: 0, at: None };
    assert_eq!(store.range(all).await.unwrap().entries.last().unwrap().value, WORD);
    let Err(WriteError::Conflict { current: Some(current) }) =
        store.put(&format!("{SECRETS}a/x"), Bytes::new(), Expect::Absent, Durability::Sync).await
    else {
        panic!("it is there")
    };
    assert_eq!((current.value, current.modified), (Bytes::from_static(WORD), revision));
    assert!(!place.holds(WORD) && place.holds(b"in the open"));
    store.delete(&format!("{SECRETS}a/x"), Expect::Any).await.unwrap();
    let gone = loop {
        if let Change::Delete(gone) = events.next().await.unwrap().unwrap().change {
            break gone;
        }
    };
    assert_eq!(gone.value, WORD);
    put(&store, "a/y", WORD).await;
    store.close().await.unwrap();
    assert!(!place.holds(WORD));
    assert_eq!(std::fs::metadata(place.key_file()).unwrap().permissions().mode() & 0o777, 0o600);
    drop((store, events));
    assert_eq!(get(&place.open().await, "a/y").await, WORD, "the key outlives the process");
}

#[tokio::test]
async fn rotation_writes_everything_under_a_new_key() {
    let place = Place::new();
    let plain = place.plain();
    put(&*plain, "a/old", WORD).await;
    plain.close().await.unwrap();
    drop(plain);
    let store = place.open().await;
    assert_eq!(get(&store, "a/old").await, WORD, "older data is read as it is");
    for number in 0..700 {
        store.put(&format!("{SECRETS}b/{number}"), Bytes::from(number.to_string()), Expect::Any, Durability::Lazy).await.unwrap();
    }
    let before = store.census().await.unwrap();
    assert_eq!((before.plain, before.sealed[&before.keys[0]], before.keys.len()), (1, 700, 1));
    // Writers go on meanwhile; none of their values is lost or stays under the old key.
    let writer = store.clone();
    let busy = tokio::spawn(async move {
        for round in 0..200 {
            put(&writer, "b/7", format!("round {round}").as_bytes()).await;
        }
    });
    let after = store.rotate().await.unwrap();
    busy.await.unwrap();
    assert_eq!((after.plain, after.sealed[&after.keys[0]], after.keys.len(), after.unreadable), (0, 701, 1, 0));
    assert_ne!(after.keys, before.keys);
    store.close().await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.census().await.unwrap(), after);
    assert_eq!((get(&store, "a/old").await, get(&store, "b/7").await), (Bytes::from_static(WORD), Bytes::from("round 199")));
}

#[tokio::test]
async fn a_damaged_value_is_alone_in_its_trouble() {
    let place = Place::new();
    let store = place.open().await;
    put(&store, "a/good", WORD).await;
    put(&store, "a/bad", WORD).await;
    // As a disk would: another value's bytes under this name.
    let key = format!("{SECRETS}a/bad");
    let sealed = store.inner.get(&format!("{SECRETS}a/good")).await.unwrap().unwrap().value;
    store.inner.put(&key, sealed, Expect::Any, Durability::Sync).await.unwrap();
    assert!(sealed_under(&get(&store, "a/bad").await).is_some());
    assert_eq!(get(&store, "a/good").await, WORD);
    let census = store.rotate().await.unwrap();
    assert_eq!((census.unreadable, census.unreadable_names, census.keys.len()), (1, vec![key.clone()], 2));
    store.delete(&key, Expect::Any).await.unwrap();
    assert_eq!(store.rotate().await.unwrap().keys.len(), 1, "nothing needs the older keys any more");
    assert_eq!(store.counts().failed, 1, "the read; a deletion opens nothing");
}

#[tokio::test]
async fn without_its_keys_the_rest_is_served() {
    let place = Place::new();
    let store = place.open().await;
    put(&store, "a/x", WORD).await;
    store.close().await.unwrap();
    drop(store);
    let good = std::fs::read(place.key_file()).unwrap();
    let other = String::from_utf8(good.clone()).unwrap().replacen("\"key\": \"", "\"key\": \"A", 1).replacen("=\"", "\"", 1);
    for (file, why) in [(Some(&b"{"[..]), "is damaged"), (Some(other.as_bytes()), "is damaged"), (None, "is missing")] {
        match file {
            Some(bytes) => std::fs::write(place.key_file(), bytes).unwrap(),
            None => std::fs::remove_file(place.key_file()).unwrap(),
        }
        let store = place.open().await;
        assert!(sealed_under(&get(&store, "a/x").await).is_some());
        let refused = store.put(&format!("{SECRETS}a/y"), Bytes::new(), Expect::Any, Durability::Sync).await.unwrap_err().to_string();
        assert!(refused.contains(why) && refused.contains("key.json"), "{refused}");
        assert!(store.rotate().await.unwrap_err().to_string().contains(why));
        assert!(store.census().await.unwrap().problem.unwrap().contains(why));
        store.put("/registry/pods/a/x", Bytes::new(), Expect::Any, Durability::Sync).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(std::fs::read(place.key_file()).ok().as_deref(), file, "a file that may be restored is not written over");
    }
    std::fs::write(place.key_file(), good).unwrap();
    assert_eq!(get(&place.open().await, "a/x").await, WORD);
}
