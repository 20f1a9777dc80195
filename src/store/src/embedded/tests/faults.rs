//! The engine on a disk that loses power, fills up and fails to sync.

use std::collections::BTreeMap;

use super::{
    fault_disk::{Chance, FaultDisk, Faults},
    *,
};

fn open_on(disk: &FaultDisk, index: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open_on(
        Arc::new(disk.clone()),
        index,
        None,
        Options { segment_bytes: 16 << 10, unindexed_keys: 8, ..Options::default() },
    )
}

/// What a key may be after a power cut: its last acknowledged state, or that of any later write whose outcome is not known.
type Allowed = BTreeMap<String, Vec<Option<Bytes>>>;

/// Writes until the power goes, from several tasks at once, so that batches have more than one record.
fn write_until_dark(runtime: &Runtime, store: &Arc<EmbeddedStore>, chance: &mut Chance, allowed: &mut Allowed) {
    for round in 0..200u32 {
        let mut tasks = Vec::new();
        for task in 0..4u32 {
            let key = format!("/k/{task}/{}", chance.below(5));
            let delete = chance.below(6) == 0;
            let size = [40, 300, 700, 3000][chance.below(4) as usize];
            let value = Bytes::from(some(round as u64, size));
            let store = store.clone();
            let write = {
                let (key, value) = (key.clone(), value.clone());
                async move {
                    if delete {
                        store.delete(&key, Expect::Any).await.map(|_| ())
                    } else {
                        store.put(&key, value, Expect::Any, Durability::Sync).await.map(|_| ())
                    }
                }
            };
            tasks.push((key, (!delete).then_some(value), runtime.spawn(write)));
        }
        let mut dark = false;
        for (key, state, task) in tasks {
            let states = allowed.entry(key).or_insert_with(|| vec![None]);
            match runtime.block_on(task).expect("no panic") {
                Ok(()) => *states = vec![state],
                Err(WriteError::Conflict { .. }) => {}
                Err(_) => {
                    states.push(state);
                    dark = true;
                }
            }
        }
        if dark {
            return;
        }
    }
}

fn check(runtime: &Runtime, store: &EmbeddedStore, allowed: &mut Allowed, seed: u64) {
    let page = runtime.block_on(store.range(all())).expect("a page");
    let found: BTreeMap<String, Bytes> = page.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect();
    assert!(found.keys().all(|key| allowed.contains_key(key)), "seed {seed}: a key that nobody wrote");
    for (key, states) in allowed.iter_mut() {
        let now = found.get(key).cloned();
        assert!(states.contains(&now), "seed {seed}: {key} is {:?} long, not one of {:?}", now.map(|v| v.len()), states.len());
        *states = vec![now];
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    for seed in 0..60u64 {
        let dir = tempfile::tempdir().expect("a directory");
        let index = dir.path().join("index");
        let (disk, mut chance, mut allowed) = (FaultDisk::new(seed), Chance(seed ^ 0xC0FFEE), Allowed::new());
        for _ in 0..6 {
            disk.set(Faults { power: Some(1 + chance.below(120)), ..Faults::default() });
            match open_on(&disk, &index) {
                Ok(store) => {
                    let store = Arc::new(store);
                    write_until_dark(&runtime, &store, &mut chance, &mut allowed);
                    Arc::into_inner(store).expect("the only one").abandon();
                }
                Err(OpenError::Io { .. }) => {} // the power went while it opened
                Err(error) => panic!("seed {seed}: {error}"),
            }
            disk.power_cycle();
            if chance.below(3) == 0 {
                let _ = std::fs::remove_dir_all(&index);
            }
            match open_on(&disk, &index) {
                Ok(store) => {
                    check(&runtime, &store, &mut allowed, seed);
                    store.abandon();
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    for seed in 0..20u64 {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, runtime) = (FaultDisk::new(seed), runtime());
        let store = open_on(&disk, &dir.path().join("index")).expect("the store opens");
        disk.set(Faults { full: Some((3 + seed, 4)), ..Faults::default() });
        let (mut expected, mut refused) = (BTreeMap::new(), 0);
        for n in 0..60u32 {
            let (key, value) = (format!("/k/{}", n % 9), Bytes::from(noise(n as u64, 200 + 37 * n as usize)));
            match runtime.block_on(store.put(&key, value.clone(), Expect::Any, Durability::Sync)) {
                Ok(_) => drop(expected.insert(key, value)),
                Err(WriteError::ReadOnly { reason, source }) => {
                    assert!(reason.contains("free space"), "{reason}");
                    assert_eq!(source.and_then(|source| source.raw_os_error()), Some(libc::ENOSPC));
                    refused += 1;
                    store.shared.fail_index(&io::Error::other("as it may on such a disk")); // so the log is read: with a part of what was refused
                }
                Err(other) => panic!("{other}"),
            }
            let page = runtime.block_on(store.range(all())).expect("a page");
            let found: BTreeMap<String, Bytes> = page.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect();
            assert_eq!(found, expected, "seed {seed}: what was refused is not seen");
        }
        // Of the four failures, some may have met who wiped what a refused write left.
        assert!((1..=4).contains(&refused), "seed {seed}: it goes on as soon as there is space, after {refused} refusals");
        store.abandon();
        let store = open_on(&disk, &dir.path().join("index")).expect("the store opens");
        let page = runtime.block_on(store.range(all())).expect("a page");
        let found: BTreeMap<String, Bytes> = page.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[test]
fn after_a_failed_sync_readers_see_the_last_good_state_and_writes_go_on_when_the_disk_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let (disk, runtime) = (FaultDisk::new(1), runtime());
    let store = open_on(&disk, &dir.path().join("index")).expect("the store opens");
    runtime.block_on(put(&store, "/a", b"good"));
    disk.set(Faults { sync: Some(0), ..Faults::default() });
    for _ in 0..3 {
        let refused = runtime.block_on(store.put("/a", Bytes::from_static(b"refused"), Expect::Any, Durability::Sync));
        assert!(matches!(refused, Err(WriteError::ReadOnly { reason, .. }) if reason.contains("could not be synced")));
    }
    assert_eq!(runtime.block_on(store.get("/a")).expect("read").expect("there").value, "good");
    assert_eq!(store.revision(), 1);
    disk.set(Faults::default()); // the next sync would claim success, without what was written before
    let again = || runtime.block_on(store.put("/a", Bytes::from_static(b"better"), Expect::Any, Durability::Sync));
    let revision = (0..100).find_map(|_| {
        again().ok().or_else(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            None
        })
    });
    assert_eq!(revision, Some(2), "no revision is left out, and none is given twice");
    store.abandon();
    disk.power_cycle();
    let store = open_on(&disk, &dir.path().join("index")).expect("the store opens");
    assert_eq!(runtime.block_on(store.get("/a")).expect("read").expect("there").value, "better");
    disk.set(Faults { sync: Some(0), ..Faults::default() });
    let refused = runtime.block_on(store.put("/a", Bytes::from_static(b"refused"), Expect::Any, Durability::Sync));
    assert!(refused.is_err());
    assert!(runtime.block_on(store.close()).is_err(), "a close that could not sync says so");
}

#[test]
fn no_failed_sync_loses_what_was_acknowledged_or_seen() {
    for seed in 0..60u64 {
        let dir = tempfile::tempdir().expect("a directory");
        let index = dir.path().join("index");
        let (disk, runtime, mut chance) = (FaultDisk::new(seed), runtime(), Chance(seed ^ 0xFA11));
        let store = open_on(&disk, &index).expect("the store opens");
        let mut expected = BTreeMap::new();
        runtime.block_on(put(&store, "/first", b"that the log has a name"));
        expected.insert("/first".to_owned(), Bytes::from_static(b"that the log has a name"));
        for n in 0..120u32 {
            if chance.below(10) == 0 {
                disk.set(Faults { sync: Some(chance.below(3)), ..Faults::default() });
            }
            let (key, value) = (format!("/k/{}", chance.below(9)), Bytes::from(noise(n.into(), 30 + chance.below(900) as usize)));
            let durability = if chance.below(3) == 0 { Durability::Lazy } else { Durability::Sync };
            match runtime.block_on(store.put(&key, value.clone(), Expect::Any, durability)) {
                Ok(_) => drop(expected.insert(key, value)),
                Err(WriteError::ReadOnly { reason, .. }) if reason.contains("writes go on") => {
                    disk.set(Faults::default());
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        let seen = |store: &EmbeddedStore| {
            let page = runtime.block_on(store.range(all())).expect("a page");
            page.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(seen(&store), expected, "seed {seed}: readers see what was acknowledged");
        disk.set(Faults::default());
        // What was lazy is on the disk with this.
        let last = (0..200).any(|_| {
            let put = runtime.block_on(store.put("/last", Bytes::from_static(b"x"), Expect::Any, Durability::Sync));
            if put.is_err() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            put.is_ok()
        });
        assert!(last, "seed {seed}: writes go on");
        expected.insert("/last".to_owned(), Bytes::from_static(b"x"));
        store.abandon();
        disk.power_cycle();
        let store = open_on(&disk, &index).expect("the store opens");
        assert_eq!(seen(&store), expected, "seed {seed}: the power does not take it");
        store.abandon();
    }
}
