//! Watches the memory bound by default: every test that runs a server checks it at the end.

use std::fs;

/// What the main process may use after a small test (docs/SPECIFICATION.md), in KiB.
pub const BOUND_KIB: u64 = 120 * 1024;

/// Proportional set size of a process in KiB.
pub fn pss(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Fails the test when the process uses more than its bound. A process that is gone uses nothing.
pub fn check(pid: u32, bound_kib: u64) {
    if let Some(used) = pss(pid)
        && used > bound_kib
        && !std::thread::panicking()
    {
        panic!("the server uses {used} KiB, its bound is {bound_kib} KiB");
    }
}
