//! What a tree takes of its disk.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Entries of one tree that are counted; what is beyond is not, so that a pod with endless files costs the node a second at most.
const ENTRIES: usize = 1_000_000;

/// What a tree takes of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// In blocks.
    pub bytes: u64,
    /// Of files and directories, with its own.
    pub inodes: u64,
}

/// Counts all files below `root`: one with several names once, and nothing of other file systems.
pub fn of(root: &Path) -> Taken {
    let Ok(top) = fs::symlink_metadata(root) else { return Taken::default() };
    let mut taken = Taken { bytes: top.blocks() * 512, inodes: 1 };
    let mut linked = HashSet::new();
    let mut left = ENTRIES;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        // What goes while it is counted does not count.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Some(rest) = left.checked_sub(1) else { return taken };
            left = rest;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino())) {
                continue;
            }
            taken.bytes += meta.blocks() * 512;
            taken.inodes += 1;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_and_a_hole_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = of(dir.path()).bytes;
        fs::create_dir(dir.path().join("d")).expect("made");
        fs::write(dir.path().join("d/f"), vec![1; 1 << 20]).expect("written");
        let Taken { bytes: one, inodes } = of(dir.path());
        assert_eq!(inodes, 3);
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&(one - empty)), "{empty} {one}");
        fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).expect("linked");
        std::os::unix::fs::symlink("d/f", dir.path().join("s")).expect("linked");
        fs::File::create(dir.path().join("hole")).and_then(|f| f.set_len(1 << 30)).expect("made");
        let all = of(dir.path());
        assert!(all.bytes < one + (64 << 10) && all.inodes == 5, "{all:?}");
        assert_eq!(of(&dir.path().join("absent")), Taken::default());
    }
}
