//! The index: for each key where its newest record lies, in sled, so that memory does not grow with the number of keys.
//!
//! Never the truth. With every batch it stores how far into the log it has come and a digest over its entries; an index that does not add up,
//! does not open or panics is thrown away and made again from the log.

use std::{
    fs,
    hash::{Hash, Hasher},
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::segment::Slot;

/// sled's cache in bytes. 100,000 keys of 60 bytes take about as much; the API server's watch cache answers the reads.
const CACHE_BYTES: u64 = 8 << 20;
/// sled's segment in bytes: its file grows in such steps.
const SLED_SEGMENT_BYTES: usize = 512 << 10;
/// First byte of the entries; the summary has another.
const ENTRY: u8 = b'k';
/// Key of the [`Summary`].
const SUMMARY: &[u8] = b"m";

/// A place in the log: segment, then byte.
pub type Position = (u32, u32);

/// What the index says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Revision of the put that made the key exist.
    pub created: u64,
    /// Revision of its last put.
    pub modified: u64,
    /// Segment of the record.
    pub segment: u32,
    /// Its first byte.
    pub offset: u32,
    /// Its length.
    pub len: u32,
}

/// What the index says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Every record before this is in the index, none after it is.
    pub applied: Position,
    /// The store's revision there.
    pub revision: u64,
    /// Bytes in the log of the records that the index names.
    pub live_bytes: u64,
    /// Sum of the entries' hashes.
    digest: u64,
}

/// The index of one store.
#[derive(Debug)]
pub struct Index {
    tree: sled::Db,
    path: PathBuf,
    summary: Summary,
}

impl Located {
    fn of(slot: &Slot) -> Self {
        let place = &slot.place;
        Located { created: slot.created, modified: slot.modified, segment: place.segment.id, offset: place.offset, len: place.len }
    }

    fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[0..8].copy_from_slice(&self.created.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.modified.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let bytes: &[u8; 28] = bytes.try_into().map_err(|_| broken("an entry has the wrong length"))?;
        let (created, modified) = (long(&bytes[0..8]), long(&bytes[8..16]));
        Ok(Located { created, modified, segment: short(&bytes[16..20]), offset: short(&bytes[20..24]), len: short(&bytes[24..28]) })
    }
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn short(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the index is damaged: {what}"))
}

/// Fixed keys, so the same in every run of one build; another build's digest costs one rebuild at most.
fn hash_of(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// sled panics on some damage; here that is an error like any other.
fn guarded<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(broken(what.unwrap_or("it panicked")))
    })
}

fn entry_key(key: &str) -> Vec<u8> {
    [&[ENTRY], key.as_bytes()].concat()
}

impl Index {
    /// Opens and verifies the index at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        guarded(|| {
            let tree = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_BYTES)
                .segment_size(SLED_SEGMENT_BYTES)
                .flush_every_ms(None) // an idle store writes nothing and wakes nobody
                .open()?;
            let summary = match tree.get(SUMMARY)? {
                Some(bytes) => Summary::from_bytes(&bytes)?,
                None => Summary::default(),
            };
            let index = Index { tree, path: path.to_owned(), summary };
            index.verify()?;
            Ok(index)
        })
    }

    /// Throws away what is at `path` and starts an empty index.
    pub fn create(path: &Path) -> io::Result<Self> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Index::open(path),
        }
    }

    fn verify(&self) -> io::Result<()> {
        let (mut digest, mut live_bytes) = (0u64, 0);
        for entry in self.tree.range([ENTRY]..[ENTRY + 1]) {
            let (key, value) = entry?;
            digest = digest.wrapping_add(hash_of(&key, &value));
            live_bytes += u64::from(Located::from_bytes(&value)?.len);
        }
        if (digest, live_bytes) == (self.summary.digest, self.summary.live_bytes) { Ok(()) } else { Err(broken("it does not add up")) }
    }

    /// How far it has come when it was opened or last applied to.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// A handle that reads.
    pub fn reader(&self) -> Reader {
        Reader { tree: self.tree.clone() }
    }

    /// Takes in the states of keys (`None` is deleted) that hold at `applied`, all or none.
    pub fn apply(&mut self, changes: &[(Arc<str>, Option<Slot>)], applied: Position, revision: u64) -> io::Result<()> {
        let mut summary = Summary { applied, revision, ..self.summary };
        guarded(|| {
            let mut batch = sled::Batch::default();
            for (key, slot) in changes {
                let key = entry_key(key);
                if let Some(old) = self.tree.get(&key)? {
                    summary.digest = summary.digest.wrapping_sub(hash_of(&key, &old));
                    summary.live_bytes -= u64::from(Located::from_bytes(&old)?.len);
                }
                if let Some(slot) = slot {
                    let value = Located::of(slot).to_bytes();
                    summary.digest = summary.digest.wrapping_add(hash_of(&key, &value));
                    summary.live_bytes += u64::from(slot.place.len);
                    batch.insert(key, &value[..]);
                } else {
                    batch.remove(key);
                }
            }
            batch.insert(SUMMARY, &summary.to_bytes()[..]);
            Ok(self.tree.apply_batch(batch)?)
        })?;
        self.summary = summary;
        Ok(())
    }

    /// Hands everything to the kernel, so that the next opening finds it. No fdatasync: what a power cut takes is noticed and made again.
    pub fn flush(&self) -> io::Result<()> {
        guarded(|| self.tree.flush().map(drop).map_err(io::Error::from))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Summary {
    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..4].copy_from_slice(&self.applied.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.applied.1.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.revision.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.live_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| broken("its summary has the wrong length"))?;
        let applied = (short(&bytes[0..4]), short(&bytes[4..8]));
        Ok(Summary { applied, revision: long(&bytes[8..16]), live_bytes: long(&bytes[16..24]), digest: long(&bytes[24..32]) })
    }
}

/// Throws away an index that failed. What cannot be removed now is when another is made in its place.
pub fn discard(index: Option<Index>, path: &Path) {
    let gone = guarded(|| {
        drop(index);
        fs::remove_dir_all(path)
    });
    match gone {
        Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "the index that failed cannot be removed"),
        _ => {}
    }
}

/// Reads the index.
#[derive(Clone, Debug)]
pub struct Reader {
    tree: sled::Db,
}

impl Reader {
    /// What it says about `key`.
    pub fn get(&self, key: &str) -> io::Result<Option<Located>> {
        guarded(|| self.tree.get(entry_key(key))?.map(|bytes| Located::from_bytes(&bytes)).transpose())
    }

    /// The keys that start with `prefix` and come after `after`, in order.
    pub fn range(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = io::Result<(Arc<str>, Located)>> + use<> {
        let prefix = entry_key(prefix);
        let start = match after.map(entry_key) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let mut entries = self.tree.range::<Vec<u8>, _>((start, Bound::Excluded(vec![ENTRY + 1])));
        std::iter::from_fn(move || {
            guarded(|| {
                let Some(entry) = entries.next() else { return Ok(None) };
                let (key, value) = entry?;
                if !key.starts_with(&prefix) {
                    return Ok(None);
                }
                let key = std::str::from_utf8(&key[1..]).map_err(|_| broken("a key is not UTF-8"))?;
                Ok(Some((Arc::from(key), Located::from_bytes(&value)?)))
            })
            .transpose()
        })
    }
}
