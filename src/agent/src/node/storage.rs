//! Whether the node's data can be written: a node that cannot is not ready, and says why.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::{task::JoinHandle, time::timeout};

/// The name of this trouble.
pub const STORAGE: &str = "storage";
/// What is written to see whether the disk takes it: a block of most file systems.
const PROBE_BYTES: usize = 4096;
/// Below that a pod's own small files do not fit.
const LEAST_BYTES: u64 = 1 << 20;

/// A file system as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disk {
    /// It takes no writes: mounted so, or by the kernel after an error of the disk.
    read_only: bool,
    /// Bytes that are left.
    free: u64,
    /// What the disk says to a file without a name that is written and let go: a file system that the kernel has closed after an error
    /// does not look read-only.
    refuses: Option<i32>,
}

/// How long a disk may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the disk, one question at a time: one that hangs keeps a thread, and no more than that.
#[derive(Debug, Default)]
pub struct Probe(Option<JoinHandle<Result<Disk, String>>>);

impl Probe {
    /// What is wrong with the directory's disk now.
    pub async fn look(&mut self, directory: &Path) -> Option<String> {
        let asked = self.0.get_or_insert_with(|| {
            let directory = directory.to_owned();
            tokio::task::spawn_blocking(move || read(&directory))
        });
        let Ok(answer) = timeout(PATIENCE, asked).await else {
            return Some(format!("the disk of {} does not answer", directory.display()));
        };
        self.0 = None;
        trouble(directory, answer.unwrap_or_else(|error| Err(error.to_string())))
    }
}

/// The file system of a directory; what is wrong with one that cannot be asked.
fn read(directory: &Path) -> Result<Disk, String> {
    let stat = statvfs(directory).map_err(|error| format!("{} cannot be read: {error}", directory.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    Ok(Disk { read_only: stat.flags().contains(FsFlags::ST_RDONLY), free, refuses: write(directory).err().and_then(|e| e.raw_os_error()) })
}

/// Nothing of it reaches the disk: the file is gone before the kernel writes it.
fn write(directory: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(directory)?;
    file.write_all(&[0; PROBE_BYTES])
}

/// Whether a disk that answers this takes no writes. Some file systems know no files without names; that is no trouble.
fn tells(code: i32) -> bool {
    [libc::EROFS, libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EPERM, libc::ESHUTDOWN].contains(&code)
}

/// Why nothing can be written there.
fn trouble(directory: &Path, disk: Result<Disk, String>) -> Option<String> {
    match disk {
        Err(why) => Some(why),
        Ok(Disk { read_only: true, .. }) => Some(format!("{} is read-only", directory.display())),
        Ok(Disk { free, .. }) if free < LEAST_BYTES => {
            Some(format!("{} has no room: less than {} KiB are left", directory.display(), LEAST_BYTES >> 10))
        }
        Ok(Disk { refuses: Some(code), .. }) if tells(code) => {
            Some(format!("{} takes no writes: {}", directory.display(), io::Error::from_raw_os_error(code)))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_written_is_a_trouble() {
        let check = |disk: Result<Disk, String>, want: Option<&str>| assert_eq!(trouble(Path::new("/data"), disk).as_deref(), want);
        let good = Disk { read_only: false, free: 1 << 30, refuses: None };
        check(Ok(good), None);
        check(Ok(Disk { read_only: true, ..good }), Some("/data is read-only"));
        check(Ok(Disk { free: 4096, ..good }), Some("/data has no room: less than 1024 KiB are left"));
        check(Ok(Disk { refuses: Some(libc::EROFS), ..good }), Some("/data takes no writes: Read-only file system (os error 30)"));
        check(Ok(Disk { refuses: Some(libc::EOPNOTSUPP), ..good }), None);
        check(read(Path::new("/no/such/directory")), Some("/no/such/directory cannot be read: ENOENT: No such file or directory"));
        check(read(Path::new("/dev/shm")).map(|disk| Disk { free: 1 << 30, ..disk }), None);
        assert_eq!(read(Path::new("/proc")).expect("it is there").refuses, Some(libc::EOPNOTSUPP));
    }
}
