//! Durable puts against a bare append + fdatasync of the same batches, and how long 100,000 objects take to open. Prints figures; run it
//! with `cargo bench -p coracle-store`. The directory is `CORACLE_BENCH_DIR`, or the system's for temporary files.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_store::{
    Durability, Expect, Range, Store,
    embedded::{EmbeddedStore, Options},
};

const WRITERS: usize = 64;
const VALUE_BYTES: usize = 1024;
const ROUNDS: usize = 7;
const PUTS_PER_ROUND: usize = 12_800;
const OBJECTS: usize = 100_000;

/// Nothing that can be compressed: the bare log writes as many bytes.
fn value() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
}

fn main() {
    let place = std::env::var_os("CORACLE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(place).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    empty(dir.path());
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("puts"), Options::default()).expect("the store opens"));
    let mut ratios: Vec<f64> = (0..ROUNDS).map(|round| compare(&runtime, &store, dir.path(), round)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("ratio to the bare log, median of {ROUNDS}: {:.2} (must > 0.5, goal 0.8)", ratios[ROUNDS / 2]);
    drop(store);
    opening(&runtime, dir.path());
}

/// One round of ours, and the batches that it made once more on a bare file, right after it: the disk's mood changes.
fn compare(runtime: &tokio::runtime::Runtime, store: &Arc<EmbeddedStore>, dir: &Path, round: usize) -> f64 {
    let before = store.statistics();
    let ours = puts(runtime, store);
    let (syncs, bytes) = (store.statistics().syncs - before.syncs, store.statistics().appended_bytes - before.appended_bytes);
    let bare = bare(dir, syncs, bytes / syncs);
    let rate = |time: Duration| PUTS_PER_ROUND as f64 / time.as_secs_f64();
    let size = PUTS_PER_ROUND as f64 / syncs as f64;
    println!("round {round}: store {:.0} puts/s in batches of {size:.1}, bare {:.0} records/s", rate(ours), rate(bare));
    rate(ours) / rate(bare)
}

/// So many batches of so many bytes, appended to a growing file, each with an fdatasync.
fn bare(dir: &Path, batches: u64, bytes: u64) -> Duration {
    let path = dir.join("bare");
    let file = File::create(&path).expect("a file");
    let batch = vec![0x5A; bytes as usize];
    let start = Instant::now();
    for n in 0..batches {
        file.write_all_at(&batch, n * bytes).and_then(|()| file.sync_data()).expect("written");
    }
    let time = start.elapsed();
    std::fs::remove_file(path).expect("removed");
    time
}

fn puts(runtime: &tokio::runtime::Runtime, store: &Arc<EmbeddedStore>) -> Duration {
    let start = Instant::now();
    runtime.block_on(async {
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = Bytes::from(value());
                for n in 0..PUTS_PER_ROUND / WRITERS {
                    let key = format!("/registry/configmaps/default/{writer}-{n}");
                    store.put(&key, value.clone(), Expect::Any, Durability::Sync).await.expect("a put");
                }
            })
        });
        for writer in futures::future::join_all(writers).await {
            writer.expect("no panic");
        }
    });
    start.elapsed()
}

fn empty(dir: &Path) {
    let start = Instant::now();
    let fresh = EmbeddedStore::open(&dir.join("empty"), Options::default()).expect("the store opens");
    println!("opening an empty directory: {:.1} ms (must < 20)", start.elapsed().as_secs_f64() * 1e3);
    drop(fresh);
}

fn opening(runtime: &tokio::runtime::Runtime, dir: &Path) {
    let path = dir.join("objects");
    let store = Arc::new(EmbeddedStore::open(&path, Options::default()).expect("the store opens"));
    fill(runtime, &store);
    runtime.block_on(store.close()).expect("closed");
    drop(store);
    timed_open(runtime, &path, "opening 100,000 objects of 1 KiB");
    std::fs::remove_dir_all(path.join("index")).expect("the index is removed");
    timed_open(runtime, &path, "the same without an index");
}

fn fill(runtime: &tokio::runtime::Runtime, store: &Arc<EmbeddedStore>) {
    let value = Bytes::from(value());
    runtime.block_on(async {
        for chunk in (0..OBJECTS).collect::<Vec<_>>().chunks(1000) {
            let puts = chunk.iter().map(|n| {
                let key = format!("/registry/configmaps/default/object-{n:06}");
                let (store, value) = (store.clone(), value.clone());
                async move { store.put(&key, value, Expect::Any, Durability::Lazy).await.expect("a put") }
            });
            futures::future::join_all(puts).await;
        }
    });
}

fn timed_open(runtime: &tokio::runtime::Runtime, path: &Path, what: &str) {
    let before = resident_kib();
    let start = Instant::now();
    let store = EmbeddedStore::open(path, Options::default()).expect("the store opens");
    let time = start.elapsed();
    let all = Range { prefix: String::new(), after: Some("/registry/configmaps/default/object-099998".to_owned()), limit: 1, at: None };
    let page = runtime.block_on(store.range(all)).expect("a page");
    assert_eq!((page.entries.len(), page.remaining), (1, 0));
    std::thread::sleep(Duration::from_secs(2)); // the index takes its part
    println!(
        "{what}: {:.0} ms (must < 1000); memory grew by {:.1} MiB",
        time.as_secs_f64() * 1e3,
        (resident_kib() - before) as f64 / 1024.0
    );
    drop(store);
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
