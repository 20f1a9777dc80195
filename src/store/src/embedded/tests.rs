//! Tests of the engine: against a model, on a disk that lies, on damaged files, and its bounds.

mod damage;
mod fault_disk;
mod faults;
mod full_index;
mod model;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Runtime;

use super::*;
use crate::Change;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn small() -> Options {
    Options { segment_bytes: 64 << 10, unindexed_keys: 8, ..Options::default() }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, small()).expect("the store opens")
}

fn all() -> Range {
    Range { prefix: String::new(), after: None, limit: 0, at: None }
}

/// Bytes that cannot be compressed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Every other value can be compressed.
fn some(seed: u64, len: usize) -> Vec<u8> {
    if seed.is_multiple_of(2) { noise(seed, len) } else { vec![b'a' + (seed % 26) as u8; len] }
}

async fn put(store: &EmbeddedStore, key: &str, value: &[u8]) -> u64 {
    store.put(key, Bytes::copy_from_slice(value), Expect::Any, Durability::Sync).await.expect("a put")
}

#[tokio::test]
async fn conditions_hold_or_tell_the_present_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let value = Bytes::from_static(b"1");
    assert_eq!(store.put("/a", value.clone(), Expect::Absent, Durability::Sync).await.expect("created"), 1);
    let again = store.put("/a", value.clone(), Expect::Absent, Durability::Sync).await;
    assert!(matches!(again, Err(WriteError::Conflict { current: Some(ref entry) }) if entry.modified == 1 && entry.value == value));
    assert_eq!(store.put("/a", value.clone(), Expect::Revision(1), Durability::Lazy).await.expect("updated"), 2);
    let stale = store.delete("/a", Expect::Revision(1)).await;
    assert!(matches!(stale, Err(WriteError::Conflict { current: Some(ref entry) }) if (entry.created, entry.modified) == (1, 2)));
    assert_eq!(store.delete("/a", Expect::Revision(2)).await.expect("deleted"), 3);
    assert!(matches!(store.delete("/a", Expect::Any).await, Err(WriteError::Conflict { current: None })));
    assert_eq!((store.revision(), store.get("/a").await.expect("read")), (3, None));
}

#[tokio::test]
async fn pages_are_of_one_revision_and_count_what_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for n in 0..10 {
        put(&store, &format!("/p/{n}"), b"old").await;
    }
    put(&store, "/q/0", b"x").await;
    let first = store.range(Range { prefix: "/p/".into(), limit: 4, ..all() }).await.expect("a page");
    assert_eq!((first.entries.len(), first.remaining, first.revision), (4, 6, 11));
    put(&store, "/p/7", b"new").await;
    store.delete("/p/8", Expect::Any).await.expect("deleted");
    put(&store, "/p/9a", b"new").await;
    let after = Some(first.entries[3].key.to_string());
    let rest = store.range(Range { prefix: "/p/".into(), after, limit: 0, at: Some(11) }).await.expect("a page");
    assert_eq!(rest.entries.iter().map(|e| &e.key[3..]).collect::<Vec<_>>(), ["4", "5", "6", "7", "8", "9"]);
    assert!(rest.entries.iter().all(|e| e.value == "old"));
    store.compact(12).await.expect("compacted");
    assert!(matches!(store.range(Range { at: Some(11), ..all() }).await, Err(ReadError::Compacted { wanted: 11, oldest: 12 })));
    assert!(matches!(store.range(Range { at: Some(99), ..all() }).await, Err(ReadError::Future { wanted: 99, current: 14 })));
}

#[tokio::test]
async fn a_watcher_sees_every_change_once_and_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    put(&store, "/a/1", b"1").await;
    let mut early = store.watch("/a/", 1).await.expect("a watch");
    put(&store, "/b/1", b"2").await;
    put(&store, "/a/2", b"3").await;
    store.delete("/a/1", Expect::Any).await.expect("deleted");
    let late = store.watch("/a/", 1).await.expect("a watch");
    let seen: Vec<_> = early.by_ref().take(2).map(|event| event.expect("an event")).collect().await;
    assert_eq!(seen.iter().map(|e| e.revision).collect::<Vec<_>>(), [3, 4]);
    assert!(matches!(&seen[0].change, Change::Put(entry) if entry.value == "3" && entry.created == 3));
    assert!(matches!(&seen[1].change, Change::Delete(entry) if &*entry.key == "/a/1" && entry.value == "1"));
    store.close().await.expect("closed");
    assert!(early.next().await.is_none(), "the close ends the stream");
    assert_eq!(late.map(|event| event.expect("an event").revision).collect::<Vec<_>>().await, [3, 4], "what was there is told first");
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so_and_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let history = Bounds { events: 8, ..Bounds::default() };
    let store = EmbeddedStore::open(dir.path(), Options { history, ..small() }).expect("the store opens");
    let mut watch = store.watch("", 0).await.expect("a watch");
    for n in 0..20 {
        put(&store, "/k", &[n]).await;
    }
    assert!(matches!(watch.next().await, Some(Err(ReadError::Compacted { wanted: 0, oldest: 12 }))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.watch("", 3).await, Err(ReadError::Compacted { .. })));
    assert!(matches!(store.watch("", 21).await, Err(ReadError::Future { .. })));
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert!(matches!(EmbeddedStore::open(dir.path(), small()), Err(OpenError::Locked(_))));
    store.close().await.expect("closed");
    assert!(matches!(store.put("/a", Bytes::new(), Expect::Any, Durability::Sync).await, Err(WriteError::ReadOnly { .. })));
    drop(open(dir.path()));
}

#[tokio::test]
async fn keys_and_values_beyond_their_bound_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(dir.path(), Options::default()).expect("the store opens");
    let largest = Bytes::from(vec![7; MAX_VALUE_BYTES]);
    store.put("/a", largest.clone(), Expect::Any, Durability::Sync).await.expect("the largest value fits");
    let larger = Bytes::from(vec![7; MAX_VALUE_BYTES + 1]);
    assert!(matches!(store.put("/a", larger, Expect::Any, Durability::Sync).await, Err(WriteError::TooLarge { .. })));
    let key = "k".repeat(MAX_KEY_BYTES + 1);
    assert!(matches!(store.put(&key, Bytes::new(), Expect::Any, Durability::Sync).await, Err(WriteError::KeyTooLong { .. })));
    assert_eq!(store.get("/a").await.expect("read").expect("there").value, largest);
}

#[test]
fn the_log_is_cleaned_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let store = open(dir.path());
    runtime.block_on(async {
        for n in 0..40 {
            put(&store, &format!("/cold/{n:02}"), &[b'c'; 500]).await;
        }
        for n in 0..3000u32 {
            let value = Bytes::from(some(n as u64, 400 + n as usize % 100));
            store.put(&format!("/hot/{}", n % 7), value, Expect::Any, Durability::Lazy).await.expect("a put");
        }
        store.delete("/cold/00", Expect::Any).await.expect("deleted");
    });
    let check = |store: &EmbeddedStore| {
        let page = runtime.block_on(store.range(all())).expect("a page");
        assert_eq!(page.entries.len(), 39 + 7);
        assert!(page.entries.iter().filter(|e| e.key.starts_with("/cold/")).all(|e| e.created == e.modified && e.value.len() == 500));
    };
    check(&store);
    runtime.block_on(store.close()).expect("closed");
    drop(store);
    let segments = std::fs::read_dir(dir.path().join("log")).expect("the log").count();
    assert!(segments <= 6, "1.5 MB were put, 24 KB live, and there are {segments} segments of 64 KiB");
    check(&open(dir.path()));
    std::fs::remove_dir_all(dir.path().join("index")).expect("the index is removed");
    check(&open(dir.path()));
}

#[test]
fn an_index_of_garbage_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let store = open(dir.path());
    runtime.block_on(async {
        for n in 0..50 {
            put(&store, &format!("/k/{n}"), b"v").await;
        }
    });
    drop(store);
    for byte in [0u8, 0x5A, 0xFF] {
        for file in ["db", "conf"] {
            let path = dir.path().join("index").join(file);
            let len = std::fs::metadata(&path).expect("a file of sled").len() as usize;
            std::fs::write(&path, vec![byte; len]).expect("overwritten");
            let store = open(dir.path());
            assert_eq!(runtime.block_on(store.range(all())).expect("a page").entries.len(), 50, "{file} full of {byte}");
        }
    }
}

#[test]
fn a_revision_that_may_have_been_seen_is_not_given_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    let store = open(dir.path());
    runtime.block_on(put(&store, "/a", b"1"));
    store.abandon();
    let store = open(dir.path());
    let jumped = 1 + writer::REVISION_GAP;
    assert_eq!(store.revision(), jumped);
    assert!(matches!(runtime.block_on(store.watch("", 1)), Err(ReadError::Compacted { .. })));
    runtime.block_on(store.close()).expect("closed");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.revision(), jumped, "a close in order needs no gap");
    assert!(runtime.block_on(store.watch("", jumped)).is_ok());
}

#[test]
fn a_store_of_few_keys_has_no_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = runtime();
    for turn in 0..20u8 {
        let store = open(dir.path());
        runtime.block_on(put(&store, "/a", &[turn]));
        runtime.block_on(put(&store, &format!("/b/{}", turn % 4), &[turn; 9000]));
        runtime.block_on(store.close()).expect("closed");
    }
    assert!(!dir.path().join("index").exists());
    let store = open(dir.path());
    assert_eq!(runtime.block_on(store.range(all())).expect("a page").entries.len(), 5);
}

#[tokio::test]
async fn an_idle_store_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for n in 0..20 {
        put(&store, &format!("/k/{n}"), b"1").await;
    }
    put(&store, "/a", b"1").await;
    store.put("/b", Bytes::from_static(b"2"), Expect::Any, Durability::Lazy).await.expect("a put");
    let stamps = || {
        let files = ["log", "index"].map(|name| std::fs::read_dir(dir.path().join(name)).expect("a directory"));
        let stamp =
            |entry: std::io::Result<std::fs::DirEntry>| entry.and_then(|e| e.metadata()).and_then(|m| m.modified()).expect("a time");
        files.into_iter().flatten().map(stamp).collect::<Vec<_>>()
    };
    tokio::time::sleep(Duration::from_millis(1000)).await; // the lazy write's time
    let before = stamps();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stamps(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_has_one_winner_each_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path()));
    let mut modified = put(&store, "/counter", b"0").await;
    for _ in 0..20 {
        let racers = (0..8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put("/counter", Bytes::from(vec![n]), Expect::Revision(modified), Durability::Sync).await })
        });
        let results = futures::future::join_all(racers).await;
        let won: Vec<u64> = results.into_iter().filter_map(|result| result.expect("no panic").ok()).collect();
        assert_eq!(won.len(), 1);
        modified = won[0];
    }
}

#[tokio::test]
async fn what_is_announced_shares_a_sync_and_what_does_not_come_holds_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    // Only the announcements can end the waiting.
    let store = EmbeddedStore::open(dir.path(), Options { gather: Duration::from_secs(600), ..small() }).expect("the store opens");
    let _both = [store.announce(), store.announce()];
    let before = store.statistics().syncs;
    tokio::join!(put(&store, "/a", b"1"), put(&store, "/b", b"2"));
    assert_eq!(store.statistics().syncs, before + 1);

    let third = store.announce();
    let (written, ()) = tokio::join!(async { tokio::join!(put(&store, "/a", b"2"), put(&store, "/b", b"3")) }, async { drop(third) });
    assert_eq!(written, (3, 4));
}

#[tokio::test]
async fn who_is_announced_and_late_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let _late = [store.announce(), store.announce()];
    assert_eq!(put(&store, "/a", b"1").await, 1);
}
