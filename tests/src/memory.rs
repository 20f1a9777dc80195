//! Watches the memory bound by default: every test that runs a server checks it at the end.

use std::fs;

/// What the main process may use after a small test (docs/SPECIFICATION.md), in KiB.
pub const BOUND_KIB: u64 = 120 * 1024;

/// Proportional set size of a process in KiB.
pub fn pss(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Fails the test when a process used more than its bound, both in KiB. One that was gone used nothing.
pub fn check(used: Option<u64>, bound: u64) {
    if let Some(used) = used
        && used > bound
        && !std::thread::panicking()
    {
        panic!("the server uses {used} KiB, its bound is {bound} KiB");
    }
}
