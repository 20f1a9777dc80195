//! A revisioned key-value store: every answer to a write comes after its fdatasync.
//!
//! The engine of this crate keeps a checksummed, append-only log as the truth and sled beside it as an index that can be rebuilt (ADR 0002).
//! Engines that live elsewhere (etcd) implement the same [`Store`], and [`encryption`] wraps any of them (ADR 0006).

mod announced;
pub mod embedded;
pub mod encryption;

use std::{fmt, path::PathBuf, sync::Arc};

pub use announced::Announced;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, for example `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// The bytes as they were put.
    pub value: Bytes,
    /// Revision of the put that made the key exist.
    pub created: u64,
    /// Revision of the last put.
    pub modified: u64,
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key's `modified` is this.
    Revision(u64),
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync of the log.
    Sync,
    /// As soon as it is ordered and visible; it reaches the disk with the next sync, at most a second later.
    /// For what is written again anyway: Lease heartbeats, Events.
    Lazy,
}

/// A part of the keyspace, in key order.
#[derive(Clone, Debug)]
pub struct Range {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys after this one (continuation).
    pub after: Option<String>,
    /// At most this many; 0 is no limit.
    pub limit: usize,
    /// As of this revision; `None` is now.
    pub at: Option<u64>,
}

/// Answer to a [`Range`].
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The revision that they are consistent at.
    pub revision: u64,
    /// Entries beyond the limit.
    pub remaining: u64,
}

/// One change, in revision order; never two of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// What happened.
    pub change: Change,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was created (`entry.created == entry.modified`) or updated.
    Put(Entry),
    /// The key was deleted; the entry is its last state.
    Delete(Entry),
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// revision {wanted} is compacted; the oldest that can be read is {oldest}
    #[error("revision {wanted} is compacted; the oldest that can be read is {oldest}")]
    Compacted {
        /// Asked for.
        wanted: u64,
        /// Still there.
        oldest: u64,
    },
    /// revision {wanted} is in the future; the store is at {current}
    #[error("revision {wanted} is in the future; the store is at {current}")]
    Future {
        /// Asked for.
        wanted: u64,
        /// Newest.
        current: u64,
    },
    /// the store cannot read its files
    #[error("the store cannot read its files")]
    Io(#[source] std::io::Error),
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// the key is not as expected
    #[error("the key is not as expected")]
    Conflict {
        /// What is there now.
        current: Option<Entry>,
    },
    /// the value has {size} bytes, the bound is {bound}
    #[error("the value has {size} bytes, the bound is {bound}")]
    TooLarge {
        /// Of the value.
        size: usize,
        /// Allowed.
        bound: usize,
    },
    /// the key has {size} bytes, the bound is {bound}
    #[error("the key has {size} bytes, the bound is {bound}")]
    KeyTooLong {
        /// Of the key.
        size: usize,
        /// Allowed.
        bound: usize,
    },
    /// the value cannot be encrypted: {reason}
    #[error("the value cannot be encrypted: {reason}")]
    Encryption {
        /// What is wrong with the keys, and what to do about it.
        reason: String,
    },
    /// the store takes no writes: {reason}
    #[error("the store takes no writes: {reason}")]
    ReadOnly {
        /// Disk full, log damaged, shutting down: what to do about it.
        reason: String,
        /// The operating system's word.
        #[source]
        source: Option<std::io::Error>,
    },
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// another process has the store at {0} open
    #[error("another process has the store at {0} open")]
    Locked(PathBuf),
    /// {path}: the log is damaged at byte {offset} and records that were acknowledged follow it: {what}
    #[error("{path}: the log is damaged at byte {offset} and records that were acknowledged follow it: {what}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// {path}: {what}
    #[error("{path}: {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A revisioned key-value store with watches. Revisions are one sequence over all keys and start at 1.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// The newest revision that readers can see.
    fn revision(&self) -> u64;
    /// The key now.
    async fn get(&self, key: &str) -> Result<Option<Entry>, ReadError>;
    /// A consistent part of the keyspace.
    async fn range(&self, range: Range) -> Result<Page, ReadError>;
    /// Puts and returns the new revision.
    async fn put(&self, key: &str, value: Bytes, expect: Expect, durability: Durability) -> Result<u64, WriteError>;
    /// Deletes and returns the new revision. A missing key is `Conflict { current: None }`.
    async fn delete(&self, key: &str, expect: Expect) -> Result<u64, WriteError>;
    /// Every change of keys under `prefix` with a revision above `after`, in order, without a gap.
    /// A reader that falls too far behind gets one `Compacted` error and the stream ends.
    async fn watch(&self, prefix: &str, after: u64) -> Result<BoxStream<'static, Result<Event, ReadError>>, ReadError>;
    /// Forgets what is older than `revision` (the newest state of each key stays).
    async fn compact(&self, revision: u64) -> Result<(), WriteError>;
    /// Syncs everything, refuses further writes, releases the lock.
    async fn close(&self) -> Result<(), WriteError>;
    /// Says that a write will come soon, so that the others may share its sync; held until the write is answered or is not to be.
    fn announce(&self) -> Announced {
        Announced::default()
    }
    /// The encryption that its values pass, if they do.
    fn encryption(&self) -> Option<&encryption::Encrypted> {
        None
    }
}
