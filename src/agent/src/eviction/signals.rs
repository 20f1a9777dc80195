//! What is left of the node's memory, disk and pids, read from the kernel.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

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
    /// Bytes of the file system that has the images; of a runtime of ours the one above.
    pub image_disk: Level,
    /// Of the same.
    pub image_inodes: Level,
    /// Whether that is another one than the one of the data directory.
    pub images_apart: bool,
    /// Process ids.
    pub pids: Level,
}

/// Reads them. `images`: where another runtime keeps its images.
pub fn read(data_dir: &Path, images: Option<&Path>) -> Signals {
    let memory = |name| machine::memory(name).and_then(|b| u64::try_from(b).ok());
    let level = |available: Option<u64>, capacity: Option<u64>| match (available, capacity) {
        (Some(available), Some(capacity)) => Level { available, capacity },
        _ => Level::default(),
    };
    let (disk, inodes) = file_system(data_dir);
    let apart = images.filter(|images| device(images).is_some_and(|of| Some(of) != device(data_dir)));
    let (image_disk, image_inodes) = apart.map_or((disk, inodes), file_system);
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse::<u64>().ok());
    let used = || fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok();
    Signals {
        memory: level(memory("MemAvailable"), memory("MemTotal")),
        disk,
        inodes,
        image_disk,
        image_inodes,
        images_apart: apart.is_some(),
        pids: level(most.zip(used()).map(|(most, used)| most.saturating_sub(used)), most),
    }
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.dev())
}

/// Bytes and inodes of the file system there. What is kept for others counts neither as used nor as there: df's way.
pub fn file_system(path: &Path) -> (Level, Level) {
    let Ok(of) = nix::sys::statvfs::statvfs(path) else { return Default::default() };
    let level = |available: u64, all: u64, free: u64, size: u64| Level {
        available: available * size,
        capacity: (all.saturating_sub(free) + available) * size,
    };
    let bytes = level(of.blocks_available(), of.blocks(), of.blocks_free(), of.fragment_size());
    (bytes, level(of.files_available(), of.files(), of.files_free(), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_of_each() {
        let signals = read(Path::new("/"), None);
        for level in [signals.memory, signals.disk, signals.image_disk, signals.pids] {
            assert!(level.available > 0 && level.available <= level.capacity, "{signals:?}");
        }
    }

    #[test]
    fn images_may_be_on_a_disk_of_their_own() {
        let of = |images: &str| read(Path::new("/"), Some(Path::new(images)));
        assert!(!of("/").images_apart && !of("/no/such/place").images_apart);
        let apart = of("/dev");
        assert!(apart.images_apart && apart.image_disk.capacity != apart.disk.capacity, "{apart:?}");
    }
}
