//! A small disk of a test's own, in a file: it can be filled, and closed to writes, without harm to the machine.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::statvfs,
};
use tempfile::TempDir;

/// A mounted ext4 file system; unmounted and removed with this.
#[derive(Debug)]
pub struct Disk {
    directory: TempDir,
}

impl Disk {
    /// One of so many MiB, empty.
    pub fn new(mebibytes: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("coracle-disk-").tempdir_in("/var/tmp").expect("a directory");
        let (file, root) = (directory.path().join("file"), directory.path().join("root"));
        File::create(&file).and_then(|f| f.set_len(mebibytes << 20)).expect("a file");
        fs::create_dir(&root).expect("a directory");
        // Nothing is kept for root, so that a full disk is full for everybody.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-N", "16384"]).arg(&file));
        run(Command::new("mount").args(["-o", "loop,data=ordered"]).arg(&file).arg(&root));
        Self { directory }
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Takes all that is left of it.
    pub fn fill(&self) -> Ballast {
        let path = self.root().join("ballast");
        let most = statvfs(&self.root()).expect("the disk is there");
        // What the file needs for itself is not known; the rest is written.
        let most = (most.blocks_available() * most.fragment_size()).saturating_sub(16 << 20);
        run(Command::new("fallocate").arg(format!("--length={most}")).arg(&path));
        let mut file = File::options().append(true).open(&path).expect("a file");
        let piece = vec![1; 1 << 16];
        for size in [piece.len(), 4096, 1] {
            while file.write_all(&piece[..size]).and_then(|()| file.sync_data()).is_ok() {}
        }
        let left = statvfs(&self.root()).expect("the disk is there").blocks_available();
        assert!(left <= 8, "{left} blocks are left");
        Ballast { path }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that is about to end may still stand in it.
        let _ = umount2(&self.root(), MntFlags::MNT_DETACH);
    }
}

/// A file that takes what is left of a disk; gone with this.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.path).expect("it is there");
    }
}

/// A directory that is closed to writes, for all who come to it by its path; open again when this is dropped.
#[derive(Debug)]
pub struct ReadOnly {
    path: PathBuf,
}

impl ReadOnly {
    /// Closes it.
    pub fn new(path: &Path) -> Self {
        const NOTHING: Option<&str> = None;
        mount(Some(path), path, NOTHING, MsFlags::MS_BIND, NOTHING).expect("mounted over itself");
        let closed = ReadOnly { path: path.to_owned() };
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NOTHING, path, NOTHING, flags, NOTHING).expect("closed to writes");
        closed
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        umount2(&self.path, MntFlags::MNT_DETACH).expect("it was mounted");
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("it can be run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
