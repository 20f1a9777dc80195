//! The index on a real file system that has no space left, beside a log on a disk that has.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use super::{fault_disk::FaultDisk, *};

/// A file system of `kib` at `path` for this thread and those it starts; it goes with the last of them.
fn mount_small(path: &Path, kib: u32) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    let options = std::ffi::CString::new(format!("size={kib}k")).expect("options");
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: plain system calls on strings that outlive them; what is mounted is seen by this thread's namespace alone.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(c"small".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) == 0
    };
    assert!(mounted, "mounting needs root: {}", io::Error::last_os_error());
}

fn open_on(disk: &FaultDisk, index: &Path) -> EmbeddedStore {
    let options = Options { segment_bytes: 256 << 10, unindexed_keys: 64, ..Options::default() };
    EmbeddedStore::open_on(Arc::new(disk.clone()), index, None, options).expect("the store opens")
}

/// Puts a value of its own on each of `count` keys.
fn put_all(runtime: &Runtime, store: &EmbeddedStore, expected: &mut BTreeMap<String, Bytes>, round: u32, count: u32) {
    for n in 0..count {
        let (key, value) = (format!("/keys/with/names/of/the/usual/length/{n}"), Bytes::from(format!("{round}/{n}")));
        runtime.block_on(store.put(&key, value.clone(), Expect::Any, Durability::Lazy)).expect("writes go on");
        expected.insert(key, value);
    }
}

/// What readers see. One that meets the failed index is told so, and finds all a moment later.
fn seen(runtime: &Runtime, store: &EmbeddedStore) -> BTreeMap<String, Bytes> {
    let page = (0..100).find_map(|_| {
        let page = runtime.block_on(store.range(all())).ok();
        if page.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        page
    });
    page.expect("a page").entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect()
}

#[test]
fn an_index_without_space_is_given_up_and_made_again_when_there_is_some() {
    let dir = tempfile::tempdir().expect("a directory");
    mount_small(dir.path(), 64 << 10);
    let (disk, runtime, index, ballast) = (FaultDisk::new(7), runtime(), dir.path().join("index"), dir.path().join("ballast"));
    let store = open_on(&disk, &index);
    let mut expected = BTreeMap::new();
    put_all(&runtime, &store, &mut expected, 0, 200);
    assert!(index.join("db").exists(), "the index is in use");
    let mut file = fs::File::create(&ballast).expect("a file");
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    for round in 1..=20 {
        put_all(&runtime, &store, &mut expected, round, 500);
        assert!(seen(&runtime, &store) == expected, "round {round}: readers see what was acknowledged");
    }
    let given_up = store.statistics().indexes_given_up;
    assert!(given_up > 0, "the index had no space");
    fs::remove_file(&ballast).expect("removed");
    for round in 21..=40 {
        put_all(&runtime, &store, &mut expected, round, 500);
        std::thread::sleep(Duration::from_millis(1)); // the rest of an index that failed
    }
    assert!(seen(&runtime, &store) == expected);
    runtime.block_on(store.close()).expect("closed");
    drop(store);
    assert!(Index::open(&index).expect("it is whole").summary().revision > 0, "there is an index again");
    let store = open_on(&disk, &index);
    assert!(seen(&runtime, &store) == expected, "a restart finds all");
    runtime.block_on(store.close()).expect("closed");
}

#[test]
fn without_a_place_for_the_index_the_store_works_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (disk, runtime, index) = (FaultDisk::new(8), runtime(), dir.path().join("index"));
    let store = open_on(&disk, &index);
    fs::write(&index, "in the way").expect("written");
    let mut expected = BTreeMap::new();
    for round in 0..5 {
        put_all(&runtime, &store, &mut expected, round, 200);
        assert!(seen(&runtime, &store) == expected, "round {round}");
    }
    runtime.block_on(store.close()).expect("closed");
    drop(store);
    fs::remove_file(&index).expect("removed");
    let store = open_on(&disk, &index);
    assert!(seen(&runtime, &store) == expected, "the log has all");
}
