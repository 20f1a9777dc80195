//! What is left of the node's memory, disk and pids, read from the kernel.

use std::{fs, path::Path};

use crate::node::machine;

/// How much of a thing there is, and how much is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Left.
    pub available: u64,
    /// In all; 0 where the kernel does not say, and then nothing is short.
    pub capacity: u64,
}

/// The node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Bytes.
    pub memory: Level,
    /// Bytes of the file system that has the data directory.
    pub disk: Level,
    /// Of the same.
    pub inodes: Level,
    /// Process ids.
    pub pids: Level,
}

/// Reads them.
pub fn read(data_dir: &Path) -> Signals {
    let memory = |name| machine::memory(name).and_then(|b| u64::try_from(b).ok());
    let level = |available: Option<u64>, capacity: Option<u64>| match (available, capacity) {
        (Some(available), Some(capacity)) => Level { available, capacity },
        _ => Level::default(),
    };
    let disk = nix::sys::statvfs::statvfs(data_dir).ok();
    let of_disk = |of: fn(&nix::sys::statvfs::Statvfs) -> (u64, u64)| {
        disk.as_ref().map(of).map_or(Level::default(), |(available, capacity)| Level { available, capacity })
    };
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse::<u64>().ok());
    let used = || fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok();
    Signals {
        memory: level(memory("MemAvailable"), memory("MemTotal")),
        // What is kept for others counts neither as used nor as there: df's way.
        disk: of_disk(|d| {
            let used = d.blocks().saturating_sub(d.blocks_free());
            (d.blocks_available() * d.fragment_size(), (used + d.blocks_available()) * d.fragment_size())
        }),
        inodes: of_disk(|d| (d.files_available(), d.files().saturating_sub(d.files_free()) + d.files_available())),
        pids: level(most.zip(used()).map(|(most, used)| most.saturating_sub(used)), most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_of_each() {
        let signals = read(Path::new("/"));
        for level in [signals.memory, signals.disk, signals.pids] {
            assert!(level.available > 0 && level.available <= level.capacity, "{signals:?}");
        }
    }
}
