//! Bytes that a tree takes on its disk.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Entries of one tree that are counted; what is beyond is not, so that a pod with endless files costs the node a second at most.
const ENTRIES: usize = 1_000_000;

/// Counts the blocks of all files below `root`: a file with several names once, and nothing of other file systems.
pub(super) fn of(root: &Path) -> u64 {
    let Ok(top) = fs::symlink_metadata(root) else { return 0 };
    let mut bytes = top.blocks() * 512;
    let mut linked = HashSet::new();
    let mut left = ENTRIES;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        // What goes while it is counted does not count.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Some(rest) = left.checked_sub(1) else { return bytes };
            left = rest;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino())) {
                continue;
            }
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_and_a_hole_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = of(dir.path());
        fs::create_dir(dir.path().join("d")).expect("made");
        fs::write(dir.path().join("d/f"), vec![1; 1 << 20]).expect("written");
        let one = of(dir.path());
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&(one - empty)), "{empty} {one}");
        fs::hard_link(dir.path().join("d/f"), dir.path().join("g")).expect("linked");
        std::os::unix::fs::symlink("d/f", dir.path().join("s")).expect("linked");
        fs::File::create(dir.path().join("hole")).and_then(|f| f.set_len(1 << 30)).expect("made");
        assert!(of(dir.path()) < one + (64 << 10));
        assert_eq!(of(&dir.path().join("absent")), 0);
    }
}
