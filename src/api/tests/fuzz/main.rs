//! Fuzzing of everything that reads what a client sends: samples of every kind, bent and broken, through every door of the vocabulary.
//!
//! A case is a door and a seed, nothing else, so that each can be had again: `CORACLE_FUZZ_CASE=yaml:4711`. `cargo test` takes a fixed
//! number of cases; `CORACLE_FUZZ_SECONDS=900` goes on for so long, with seeds that no run had before. Of each case it is asked that nothing
//! panics, that a worker's stack is enough, and that neither time nor memory grows beyond the bounds below.

mod dice;
mod doors;
mod expressions;
mod memory;
mod mutate;
mod sample;

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use dice::Dice;
use doors::DOORS;

/// Stack of a thread that answers requests: tokio's own figure, which the program leaves as it is.
const STACK_BYTES: usize = 2 << 20;
/// Time of one case on a processor, without optimisation.
const MAX_CASE: Duration = Duration::from_secs(10);
/// Time of one case by the clock, after which it is taken for endless: the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// Memory that one case may hold at a time; the largest body is 3 MiB, and a value of it some ten times as large.
const MAX_CASE_BYTES: usize = 192 << 20;

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

/// The case that is on its way, for who finds it dead or standing.
static DOOR: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
static CASES_BEGUN: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

fn name_of_case() -> String {
    let door = usize::try_from(DOOR.load(Ordering::Relaxed)).unwrap_or_default();
    format!("CORACLE_FUZZ_CASE={}:{}", DOORS[door].0, SEED.load(Ordering::Relaxed))
}

/// Time that this thread was on a processor: other work of the machine does not lengthen it.
fn effort() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts it");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

/// Runs one case; what is wrong with it, if anything.
fn case(door: usize, seed: u64) -> Result<(), String> {
    DOOR.store(door as u64, Ordering::Relaxed);
    SEED.store(seed, Ordering::Relaxed);
    CASES_BEGUN.fetch_add(1, Ordering::Relaxed);
    let (before, began) = (memory::restart(), effort());
    catch_unwind(AssertUnwindSafe(|| DOORS[door].1(&mut Dice::of(seed)))).map_err(|_| format!("{}: a panic", name_of_case()))?;
    let (peak, took) = (memory::peak() - before, effort() - began);
    if took > MAX_CASE {
        return Err(format!("{}: {took:?}", name_of_case()));
    }
    if peak > MAX_CASE_BYTES {
        return Err(format!("{}: {} MiB", name_of_case(), peak >> 20));
    }
    Ok(())
}

/// A case that never ends cannot tell it itself.
fn watch_over() {
    let mut last = 0;
    while !OVER.load(Ordering::Relaxed) {
        thread::park_timeout(PATIENCE);
        let begun = CASES_BEGUN.load(Ordering::Relaxed);
        if begun == last && !OVER.load(Ordering::Relaxed) {
            eprintln!("{}: no end", name_of_case());
            process::abort();
        }
        last = begun;
    }
}

fn all(seconds: Option<u64>) -> Vec<String> {
    // Half of what a hash may be, so that there is room to count on.
    let first = seconds.map_or(1, |_| RandomState::new().build_hasher().finish() / 2);
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut wrong = Vec::new();
    for seed in first.. {
        let goes_on = |cases: u64| until.map_or(seed < first + cases, |until| Instant::now() < until);
        let doors: Vec<usize> = (0..DOORS.len()).filter(|door| goes_on(DOORS[*door].2)).collect();
        if doors.is_empty() || wrong.len() > 20 {
            break;
        }
        wrong.extend(doors.into_iter().filter_map(|door| case(door, seed).err()));
    }
    wrong
}

/// The case that somebody wants to see again.
fn again(wanted: &str) -> Vec<String> {
    let (door, seed) = wanted.split_once(':').unwrap_or((wanted, "1"));
    let door = DOORS.iter().position(|(name, ..)| *name == door).unwrap_or_else(|| panic!("no door {door:?}"));
    case(door, seed.parse().expect("a seed")).err().into_iter().collect()
}

#[test]
fn whatever_is_sent_is_answered_in_bounds() {
    // The catalogue is read once; no case is to blame for its memory.
    let _ = coracle_api::catalogue::builtin();
    let worker = thread::Builder::new().stack_size(STACK_BYTES).spawn(|| match std::env::var("CORACLE_FUZZ_CASE") {
        Ok(wanted) => again(&wanted),
        Err(_) => all(std::env::var("CORACLE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok())),
    });
    let watch = thread::spawn(watch_over);
    let wrong = worker.expect("a thread").join().expect("no panic outside of cases");
    OVER.store(true, Ordering::Relaxed);
    watch.thread().unpark();
    watch.join().expect("no panic");
    println!("{} cases", CASES_BEGUN.load(Ordering::Relaxed));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
