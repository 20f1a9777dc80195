//! The content store: files named by the digest of what is in them, visible only when whole and verified.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    digest::{Digest, Hashed},
    room::{Meter, Room},
};

/// Bytes copied at once.
const COPY_BYTES: usize = 128 * 1024;

/// A directory of blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    blobs: PathBuf,
    incoming: PathBuf,
    room: Arc<Room>,
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// its bytes are not the ones that its name promises
    #[error("{expected} has the content of {found}: it was damaged or exchanged on its way")]
    Digest {
        /// The promise.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// more bytes than allowed
    #[error("a blob of more than {limit} bytes is refused")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// the disk
    #[error("could not store a blob")]
    Io(#[from] io::Error),
}

impl Blobs {
    pub(crate) fn open(root: &Path, room: &Arc<Room>) -> io::Result<Self> {
        let store = Self { blobs: root.join("blobs/sha256"), incoming: root.join("incoming"), room: room.clone() };
        fs::create_dir_all(&store.blobs)?;
        fs::create_dir_all(&store.incoming)?;
        Ok(store)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Reads a small blob (a manifest, a configuration) and checks it again.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        File::open(self.path(digest))?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(BlobError::Digest { expected: digest.clone(), found }) }
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that is stored.
    pub(crate) fn list(&self) -> io::Result<Vec<Digest>> {
        Ok(fs::read_dir(&self.blobs)?
            .flatten()
            .filter_map(|entry| format!("sha256:{}", entry.file_name().to_str()?).parse().ok())
            .collect())
    }

    /// A file that becomes a blob at its commit, and nothing before.
    pub(crate) fn writer(&self, limit: u64) -> io::Result<BlobWriter> {
        let path = self.incoming.join(unique());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(BlobWriter { to: self.clone(), path, file: Hashed::new(file), bytes: 0, limit, meter: Meter::of(&self.room) })
    }

    /// Stores all of `source` under its digest.
    pub(crate) fn store(&self, mut source: impl Read, expected: Option<&Digest>, limit: u64) -> Result<(Digest, u64), BlobError> {
        let mut writer = self.writer(limit)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let n = source.read(&mut buffer)?;
            if n == 0 {
                return writer.commit(expected);
            }
            writer.write(&buffer[..n])?;
        }
    }
}

/// A name that no other process or thread of this machine takes.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A blob on its way; gone when dropped.
pub(crate) struct BlobWriter {
    to: Blobs,
    path: PathBuf,
    file: Hashed<File>,
    bytes: u64,
    limit: u64,
    meter: Meter,
}

impl BlobWriter {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        self.meter.take(bytes.len() as u64)?;
        self.file.inner().write_all(bytes)?;
        self.file.update(bytes);
        Ok(())
    }

    /// How many it has so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Verifies and names it. It is not synced: a layer is unpacked and synced by its own path, and what is read again is checked again.
    pub(crate) fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let file = std::mem::replace(&mut self.file, Hashed::new(File::open("/dev/null")?));
        let (found, bytes) = file.finish();
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(BlobError::Digest { expected: expected.clone(), found });
        }
        fs::rename(&self.path, self.to.path(&found))?;
        Ok((found, bytes))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing of this name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_there_only_when_whole_and_true() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path(), &Room::new(dir.path())).unwrap();
        let (digest, bytes) = blobs.store(&b"hello"[..], None, 10).unwrap();
        assert_eq!((bytes, blobs.read(&digest, 10).unwrap()), (5, b"hello".to_vec()));
        assert!(matches!(blobs.store(&b"other"[..], Some(&digest), 10), Err(BlobError::Digest { .. })));
        assert!(matches!(blobs.store(&b"more than ten"[..], None, 10), Err(BlobError::TooLarge { limit: 10 })));
        fs::write(blobs.path(&digest), "damaged").unwrap();
        assert!(matches!(blobs.read(&digest, 10), Err(BlobError::Digest { .. })));
        assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0, "nothing half-written stays");
    }
}
