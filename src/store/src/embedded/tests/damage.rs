//! Cuts and flipped bits at every byte of the last records, on real files: nothing acknowledged is lost without a word.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use super::*;

/// A closed or killed store of `count` keys; its log file and where its last three records lie.
fn written(dir: &Path, count: usize, closed: bool) -> (PathBuf, usize, usize) {
    let runtime = runtime();
    let store = open(dir);
    let mut from = 0;
    runtime.block_on(async {
        for n in 0..count {
            if n + 3 == count {
                from =
                    store.shared.state().overlay.values().flatten().map(|slot| slot.place.offset + slot.place.len).max().expect("a place");
            }
            put(&store, &format!("/k/{n}"), &[b'v'; 40]).await;
        }
    });
    let end = end_of(&store);
    if closed {
        drop(store)
    } else {
        store.abandon()
    }
    (dir.join("log/0000000001.log"), from as usize, end as usize)
}

/// Where the last record ends; there are too few for an index.
fn end_of(store: &EmbeddedStore) -> u32 {
    store.shared.state().overlay.values().flatten().map(|slot| slot.place.offset + slot.place.len).max().expect("a record")
}

/// Opens the store on the file's present bytes: all keys, or damage told.
fn all_or_told(dir: &Path, count: usize, what: &str) -> bool {
    match EmbeddedStore::open(dir, small()) {
        Ok(store) => {
            let page = runtime().block_on(store.range(all())).expect("a page");
            assert_eq!(page.entries.len(), count, "{what}");
            assert!(page.entries.iter().all(|entry| entry.value == vec![b'v'; 40]), "{what}");
            true
        }
        Err(OpenError::Damaged { .. }) => false,
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_flipped_bit_in_the_last_records_is_told() {
    for closed in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, from, end) = written(dir.path(), 6, closed);
        let whole = fs::read(&log).expect("the log");
        let mut told = 0;
        for at in from..end {
            let file = fs::File::options().write(true).open(&log).expect("the log");
            file.write_all_at(&[whole[at] ^ 1 << (at % 8)], at as u64).expect("flipped");
            let served = all_or_told(dir.path(), 6, &format!("byte {at}"));
            told += usize::from(!served);
            file.write_all_at(&whole, 0).expect("restored");
        }
        assert!(told >= 3 * (32 + 8 + 4 + 40), "{told} of {} flips were told: only padding may go unnoticed", end - from);
    }
}

#[test]
fn a_cut_anywhere_in_the_last_records_is_told() {
    for closed in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, from, end) = written(dir.path(), 6, closed);
        let whole = fs::read(&log).expect("the log");
        for at in from..=end {
            fs::File::options().write(true).open(&log).and_then(|file| file.set_len(at as u64)).expect("cut");
            assert!(!all_or_told(dir.path(), 6, &format!("cut at {at}")), "cut at {at}");
            fs::write(&log, &whole).expect("restored");
        }
        assert!(all_or_told(dir.path(), 6, "the whole log"));
    }
}

#[test]
fn a_missing_segment_is_told() {
    for gone in ["0000000001.log", "0000000002.log", "0000000003.log"] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        runtime().block_on(async {
            for n in 0..160 {
                put(&store, &format!("/k/{n}"), &noise(n, 1000)).await;
            }
        });
        drop(store);
        for index in [true, false] {
            if !index {
                fs::remove_dir_all(dir.path().join("index")).expect("the index is removed");
            }
            let kept = fs::read(dir.path().join("log").join(gone)).expect("a segment");
            fs::remove_file(dir.path().join("log").join(gone)).expect("removed");
            let told = EmbeddedStore::open(dir.path(), small());
            assert!(matches!(told, Err(OpenError::Damaged { ref what, .. }) if what.contains("missing")), "{gone}: {told:?}");
            fs::write(dir.path().join("log").join(gone), kept).expect("restored");
        }
    }
}

#[test]
fn a_log_that_is_gone_is_told_while_the_index_knows_better() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    runtime().block_on(async {
        for n in 0..20 {
            put(&store, &format!("/k/{n}"), b"1").await;
        }
    });
    drop(store);
    fs::remove_dir_all(dir.path().join("log")).expect("removed");
    assert!(matches!(EmbeddedStore::open(dir.path(), small()), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_damaged_record_is_not_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let runtime = runtime();
    runtime.block_on(put(&store, "/a", &noise(0, 600)));
    let log = fs::File::options().write(true).open(dir.path().join("log/0000000001.log")).expect("the log");
    log.write_all_at(b"!", 300).expect("damaged");
    assert!(matches!(runtime.block_on(store.get("/a")), Err(ReadError::Io(error)) if error.to_string().contains("/a")));
}

#[test]
fn a_place_that_cannot_be_a_directory_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("file"), b"").expect("a file");
    let opened = EmbeddedStore::open(&dir.path().join("file/store"), small());
    assert!(matches!(opened, Err(OpenError::Io { what, .. }) if what.contains("directory")));
}
