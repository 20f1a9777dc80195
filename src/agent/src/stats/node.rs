//! What the node as a whole uses.

use std::fs;

use crate::node::machine;

/// Nanoseconds of a tick of /proc/stat.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// The node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// CPU time of all cores since the start of the machine.
    pub cpu_nanoseconds: u64,
    /// Bytes in use.
    pub memory_working_set: u64,
    /// Bytes that are left.
    pub memory_available: u64,
    /// Bytes, anonymous.
    pub memory_rss: u64,
    /// Seconds since the epoch.
    pub started_at: i64,
}

/// Reads it.
pub fn read() -> NodeUse {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let memory = |name| machine::memory(name).and_then(|b| u64::try_from(b).ok()).unwrap_or(0);
    let (total, available) = (memory("MemTotal"), memory("MemAvailable"));
    NodeUse {
        cpu_nanoseconds: busy(&stat) * TICK_NANOSECONDS,
        memory_working_set: total.saturating_sub(available),
        memory_available: available,
        memory_rss: memory("AnonPages"),
        started_at: stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0),
    }
}

/// Ticks that were neither idle nor spent in waiting. Guests' time is in that of users already.
fn busy(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|l| l.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().map_while(|t| t.parse().ok()).collect();
    ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4) && *at < 8).map(|(_, t)| t).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used() {
        assert_eq!(busy("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9\n"), 63);
        let now = read();
        assert!(now.cpu_nanoseconds > 0 && now.memory_working_set > 0 && now.started_at > 0, "{now:?}");
    }
}
