//! 100 kills (-9) of a writing process at random moments: whatever it acknowledged on its standard output is there afterwards.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use coracle_store::{
    Durability, Expect, Range, Store,
    embedded::{EmbeddedStore, Options},
};

/// Tells the child, which is this same program, where to write.
const CHILD: &str = "CORACLE_STORE_KILL_TEST";
const KILLS: u64 = 100;
const WRITERS: usize = 8;
/// Small, so that kills also hit new segments, cleaning and index batches.
const SEGMENT_BYTES: u32 = 256 << 10;

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, unindexed_keys: 64, ..Options::default() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The value of a key's `turn`; its length differs from turn to turn.
fn value(key: &str, turn: u64) -> Bytes {
    format!("{key} {turn} {}", "x".repeat((turn as usize * 37) % 900)).into()
}

fn key(writer: usize, turn: u64) -> String {
    format!("/w/{writer}/{}", turn % 97)
}

/// What a turn does: puts, and now and then deletes.
fn record(states: &mut BTreeMap<String, u64>, writer: usize, turn: u64) {
    if turn.is_multiple_of(11) {
        states.remove(&key(writer, turn));
    } else {
        states.insert(key(writer, turn), turn);
    }
}

/// Writes for ever: each writer counts up the turns of its own keys, from what it finds. A deletion is a turn too.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    runtime().block_on(async {
        let store = Arc::new(EmbeddedStore::open(Path::new(&dir), options()).expect("the store opens after a kill"));
        println!("open");
        let first: u64 = std::env::var("FIRST_TURN").ok().and_then(|turn| turn.parse().ok()).expect("a turn");
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            async move {
                for turn in first.. {
                    let key = key(writer, turn);
                    if turn % 11 == 0 {
                        let _ = store.delete(&key, Expect::Any).await;
                    } else {
                        store.put(&key, value(&key, turn), Expect::Any, Durability::Sync).await.expect("a put");
                    }
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {writer} {turn}").and_then(|()| out.flush()).expect("the parent reads");
                }
            }
        });
        futures::future::join_all(writers).await;
    });
}

/// Kills and reaps on every way out.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the child until `after` past its opening, kills it, and returns the newest turn that each writer had acknowledged.
fn run_and_kill(dir: &Path, first: u64, after: Duration) -> [Option<u64>; WRITERS] {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CHILD, dir).env("FIRST_TURN", first.to_string());
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().expect("the child starts"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("its output")).lines();
    let opened = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("open"));
    assert!(opened, "the child could not open the store");
    let reader = std::thread::spawn(move || {
        let mut acknowledged = [None; WRITERS];
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ').skip(1).map_while(|word| word.parse::<u64>().ok());
            if let (true, Some(writer), Some(turn)) = (line.starts_with("ack "), words.next(), words.next()) {
                acknowledged[writer as usize] = Some(turn);
            }
        }
        acknowledged
    });
    std::thread::sleep(after); // the moment of the kill, not a wait for something
    drop(child);
    reader.join().expect("no panic")
}

/// The turn of each key as the store has it.
fn turns(dir: &Path, what: &str) -> BTreeMap<String, u64> {
    let store = EmbeddedStore::open(dir, options()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let page = runtime().block_on(store.range(Range { prefix: String::new(), after: None, limit: 0, at: None })).expect("a page");
    let turn = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    let turns = page.entries.iter().map(|entry| {
        let turn = turn(&entry.value).unwrap_or_else(|| panic!("{what}: {} has a value that nobody wrote", entry.key));
        assert_eq!(entry.value, value(&entry.key, turn), "{what}: {} is torn", entry.key);
        (entry.key.to_string(), turn)
    });
    turns.collect()
}

#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64) | 1;
    println!("seed {seed}");
    let mut next = 1;
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut acknowledgements = 0;
    for kill in 0..KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let first = next;
        let acknowledged = run_and_kill(dir.path(), first, Duration::from_micros(seed % 60_000));
        if kill % 10 == 9 {
            let _ = std::fs::remove_dir_all(dir.path().join("index"));
        }
        let found = turns(dir.path(), &format!("kill {kill}"));
        for (writer, last) in acknowledged.into_iter().enumerate() {
            let uncertain = last.map_or(first, |last| last + 1); // it was under way, and may have happened or not
            acknowledgements += uncertain - first;
            for turn in first..uncertain {
                record(&mut expected, writer, turn);
            }
            let key = key(writer, uncertain);
            if found.get(&key) != expected.get(&key) {
                record(&mut expected, writer, uncertain);
            }
            let last = uncertain;
            next = next.max(last + 1);
        }
        assert_eq!(found, expected, "kill {kill}");
    }
    println!("{acknowledgements} acknowledged writes in {KILLS} lives");
    assert!(acknowledgements > KILLS, "too few writes for a test: {acknowledgements}");
}
