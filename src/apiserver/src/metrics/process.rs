//! What the process takes of the machine, under the names that every Prometheus client has.

use std::fs;

use super::page::{Page, Stability};

/// Writes the families of this process.
pub fn write(page: &mut Page) {
    // SAFETY: sysconf(3) reads a constant of the system.
    let (ticks, page_bytes) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    let (ticks, page_bytes) = (ticks.max(1) as f64, page_bytes.max(1) as u64);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold spaces.
    let fields: Vec<u64> =
        stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    // proc(5) counts from 1 with the pid; what is left of the line begins with field 3.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok());
    let mut gauge = |name: &str, kind: &str, help: &str, value: f64| page.single(name, kind, Stability::Alpha, help, value);
    gauge(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        (field(14) + field(15)) as f64 / ticks,
    );
    gauge("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit.unwrap_or_default() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", open as f64);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", (field(24) * page_bytes) as f64);
    gauge("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", boot + field(22) as f64 / ticks);
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23) as f64);
}
