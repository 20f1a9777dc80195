//! The disk as the log sees it: a directory of files that are allocated whole, written in place and synced.
//!
//! A trait, so that the tests can put a disk beneath the log that tears, forgets and fills up (`tests/fault_disk.rs`).

use std::{
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// The directory of the log.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Names of the files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file of `size` zeros whose blocks are allocated; an old one of the name is replaced.
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file its final name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Who has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Where this is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file of the log.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. After an error any part of it may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Says that the disk may begin to write what was written there; a sync is needed all the same.
    fn begin_writing(&self, _offset: u64, _len: u64) {}
    /// Says that nobody will read what was written and synced there.
    fn forget(&self, _offset: u64, _len: u64) {}
    /// Returns when the data is on the disk (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Whether the way to it is on the disk; this or an earlier process may have just made it.
    reachable: AtomicBool,
}

impl Directory {
    /// The directory at `path`, made if it is missing, readable by the owner alone: the store holds Secrets.
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Directory { path: path.to_owned(), reachable: false.into() })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(self.path.join(name))?;
        allocate(&file, size)?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()?;
        if !self.reachable.load(Ordering::Relaxed) {
            for above in self.path.canonicalize()?.ancestors().skip(1) {
                match fs::File::open(above) {
                    // Who may not read a directory has not made anything in it either.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    opened => opened?.sync_all()?,
                }
            }
            self.reachable.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn begin_writing(&self, offset: u64, len: u64) {
        use std::os::fd::AsRawFd;
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
        // SAFETY: a plain system call on a descriptor that `self` keeps open. What goes wrong shows with the next sync.
        unsafe { libc::sync_file_range(self.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn forget(&self, offset: u64, len: u64) {
        use std::os::fd::AsRawFd;
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
        // SAFETY: a plain system call on a descriptor that `self` keeps open; advice that may be ignored.
        unsafe { libc::posix_fadvise(self.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reserves the blocks now, so that a full disk shows when a segment is made and not in the middle of a batch.
fn allocate(file: &fs::File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let size_of = libc::off_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size_of) } {
        0 => Ok(()),
        libc::EOPNOTSUPP | libc::EINVAL => file.set_len(size),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The lock of a data directory; released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

impl Lock {
    /// The lock, or `None` if another process (or another store of this one) has it.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Some(Lock { _file: file }));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }
}
