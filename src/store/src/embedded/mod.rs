//! The embedded engine: a checksummed log with group commit as the truth, sled beside it as an index, a bounded window of recent changes.
//!
//! In memory: the changes that the index does not have yet (some 16,384 keys, at most 65,536), the recent changes without most of their values
//! ([`history::Bounds`]), sled's cache (8 MiB), the queue of writes (32 MiB). Objects stay on the disk; the API server's watch cache holds them.

mod cleaning;
mod disk;
mod form;
mod history;
mod index;
mod indexer;
mod log;
mod read;
mod record;
mod recover;
mod scan;
mod segment;
mod shared;
mod watching;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use self::{
    disk::{Directory, Disk, Lock},
    history::History,
    index::Index,
    indexer::Indexer,
    log::Log,
    record::Kind,
    recover::Recovered,
    segment::Slot,
    shared::{Ending, Operation, ReadOnly, Refused, Request, Shared, State},
    writer::{GATHER, Start, Writer},
};
use crate::{Announced, Durability, Entry, Event, Expect, OpenError, Page, Range, ReadError, Store, WriteError};

pub use self::{
    history::Bounds,
    record::{MAX_KEY_BYTES, MAX_VALUE_BYTES},
    shared::Statistics,
};

/// Waiting writes, in KiB: the queue's bound. Who comes later waits for a place.
const QUEUE_KIB: usize = 32 << 10;
/// Length of a segment: the step in which the log grows and is cleaned.
const SEGMENT_BYTES: u32 = 16 << 20;
/// See [`Options::unindexed_keys`]: 2 MiB. Moving a key into the index costs more than its write, and most keys change again before.
const UNINDEXED_KEYS: usize = 16_384;
/// Smallest segment; a value may take a quarter of one.
const MIN_SEGMENT_BYTES: u32 = 16 << 10;

/// How a store works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of new segments of the log.
    pub segment_bytes: u32,
    /// How much of the past can be watched and read.
    pub history: Bounds,
    /// Changed keys in memory (some 150 bytes each) from which on the index takes them. A store that never has so many has no index: reading
    /// so few from the log is quicker than opening one.
    pub unindexed_keys: usize,
    /// How long a write waits at most for others that are announced.
    pub gather: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: SEGMENT_BYTES, history: Bounds::default(), unindexed_keys: UNINDEXED_KEYS, gather: GATHER }
    }
}

/// A store in a directory of this machine.
///
/// Dropping it closes it in order, and waits for that; [`Store::close`] tells how it went.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    largest_value: usize,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made if it is missing. Blocks: reads the log.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let failed = |path: &Path, what: &'static str| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, what, source }
        };
        Directory::open(dir).map_err(failed(dir, "the directory of the store cannot be made"))?;
        let lock_path = dir.join("lock");
        let lock = Lock::take(&lock_path).map_err(failed(&lock_path, "the store cannot be locked"))?;
        let lock = lock.ok_or_else(|| OpenError::Locked(dir.to_owned()))?;
        let log_path = dir.join("log");
        let disk = Directory::open(&log_path).map_err(failed(&log_path, "the directory of the log cannot be made"))?;
        Self::open_on(Arc::new(disk), &dir.join("index"), Some(lock), options)
    }

    fn open_on(disk: Arc<dyn Disk>, index_path: &Path, lock: Option<Lock>, options: Options) -> Result<Self, OpenError> {
        let segment_bytes = options.segment_bytes.max(MIN_SEGMENT_BYTES).next_multiple_of(4096);
        let index = open_index(index_path)?;
        if !recover::exists(&*disk)? {
            let log = start_log(&disk, index.as_ref(), segment_bytes)?;
            let recovered = Recovered::nothing(log.tail().clone());
            return Self::start(log, recovered, None, index_path, lock, options);
        }
        let first = recover::first(&*disk)?;
        let index = index.filter(|index| index.summary().applied.0 >= first); // what another missed is no longer in the log
        let mut recovered = recover::recover(&*disk, index.as_ref().map(Index::summary).unwrap_or_default())?;
        let tail = recovered.tail.clone();
        let mut log = Log::resume(disk.clone(), segment_bytes, tail, recovered.tail_len, recovered.end);
        if !recovered.clean {
            mark_unclean_end(&*disk, &mut log, &mut recovered)?;
        }
        Self::start(log, recovered, index, index_path, lock, options)
    }

    fn start(
        log: Log,
        recovered: Recovered,
        index: Option<Index>,
        index_path: &Path,
        lock: Option<Lock>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let (live_bytes, sealed_bytes) = measure(index.as_ref(), &recovered).map_err(|source| index_failed(index_path, source))?;
        let Recovered { segments, changes, revision, clean, .. } = recovered;
        let state = State { overlay: changes, history: History::new(revision, options.history), segments };
        let shared = Arc::new(Shared::new(state, index.as_ref().map(Index::reader), QUEUE_KIB));
        let thread_failed = |source| OpenError::Io { path: index_path.to_owned(), what: "a thread of the store cannot be started", source };
        let indexer = Indexer::start(index, index_path.to_owned(), shared.clone()).map_err(thread_failed)?;
        let index_from = options.unindexed_keys;
        let start =
            Start { shared: shared.clone(), log, indexer, index_from, lock, live_bytes, sealed_bytes, clean, gather: options.gather };
        let (writer, until_gone) = (Writer::new(start), shared.clone());
        let thread =
            std::thread::Builder::new().name("store-log".to_owned()).spawn(move || run(writer, &until_gone)).map_err(thread_failed)?;
        let largest_value = MAX_VALUE_BYTES.min(options.segment_bytes.max(MIN_SEGMENT_BYTES) as usize / 4);
        Ok(EmbeddedStore { shared, largest_value, writer: Some(thread) })
    }

    /// What it has written since it was opened.
    pub fn statistics(&self) -> Statistics {
        *self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, key: &str, mut operation: Operation, expect: Expect, durability: Durability) -> Result<u64, WriteError> {
        let size = if let Operation::Put { value, .. } = &operation { value.len() } else { 0 };
        if key.len() > MAX_KEY_BYTES {
            return Err(WriteError::KeyTooLong { size: key.len(), bound: MAX_KEY_BYTES });
        }
        if size > self.largest_value {
            return Err(WriteError::TooLarge { size, bound: self.largest_value });
        }
        let closed = || WriteError::ReadOnly { reason: writer::CLOSED.to_owned(), source: None };
        if let Operation::Put { value, packed } = &mut operation {
            *packed = form::pack(value).map(Bytes::from);
        }
        let kib = (key.len() + operation.bytes()) / 1024 + 1;
        let permit = self.shared.permits.clone().acquire_many_owned(kib as u32).await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let request = Request { key: Arc::from(key), operation, expect, durability, answer, _permit: permit };
        {
            let mut queue = self.shared.queue();
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(closed()); // what comes after the last look into the tray would wait for ever
            }
            queue.requests.push_back(request);
            self.shared.notify_writer(&queue);
        }
        match answered.await {
            Ok(Ok(revision)) => Ok(revision),
            Ok(Err(Refused::ReadOnly(why))) => Err(WriteError::ReadOnly { reason: why.reason.to_string(), source: why.source() }),
            Ok(Err(Refused::Conflict(None))) => Err(WriteError::Conflict { current: None }),
            Ok(Err(Refused::Conflict(Some(slot)))) => Err(WriteError::Conflict { current: Some(load(key, slot).await?) }),
            Err(_) => Err(closed()),
        }
    }

    fn ask_to_end(&self, ending: Ending) {
        self.shared.permits.close();
        let mut queue = self.shared.queue();
        queue.ending = Some(ending);
        self.shared.notify_writer(&queue);
    }

    /// Ends as a killed process does: nothing synced, nothing marked.
    #[cfg(test)]
    fn abandon(mut self) {
        self.ask_to_end(Ending::Abandoned);
        self.writer.take().map(JoinHandle::join);
    }
}

/// Whatever ends the writer, nobody waits for it after.
fn run(writer: Writer, shared: &Shared) {
    struct Gone<'a>(&'a Shared);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            self.0.shut();
        }
    }
    let _gone = Gone(shared);
    writer.run();
}

fn start_log(disk: &Arc<dyn Disk>, index: Option<&Index>, segment_bytes: u32) -> Result<Log, OpenError> {
    if let Some(index) = index {
        let seen = index.summary().revision;
        let what = format!(
            "the log is gone, but the index beside it has seen revision {seen}; if the store is to start empty, remove {}",
            index.path().display()
        );
        return Err(OpenError::Damaged { path: disk.path(""), offset: 0, what });
    }
    Log::start(disk.clone(), segment_bytes).map_err(|source| OpenError::Io { path: disk.path(""), what: "the log cannot be made", source })
}

/// Readers may have seen lazily written revisions that are lost. None of them is given again: so says the log, before anything else happens.
fn mark_unclean_end(disk: &dyn Disk, log: &mut Log, recovered: &mut Recovered) -> Result<(), OpenError> {
    let oldest = recovered.segments.keys().next().copied().unwrap_or(1);
    let next = recovered.revision + writer::REVISION_GAP;
    let marked = log.resync().and_then(|()| {
        if log.room() < record::MARK_BYTES {
            log.rotate(recovered.revision, oldest).map_err(log::RotateError::into_io)?;
        }
        log.stage(Kind::Resume, next, 0, "", form::Stored::default());
        log.append()?;
        log.sync()
    });
    marked.map_err(|source| OpenError::Io { path: disk.path(""), what: "the log cannot be written", source })?;
    recovered.revision = next;
    recovered.segments.insert(log.tail().id, log.tail().clone());
    Ok(())
}

/// The index; `None` if it is missing or damaged, then it is made again from the log when there are enough keys.
fn open_index(path: &Path) -> Result<Option<Index>, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), what: "the directory of the index cannot be read", source };
    if !path.try_exists().map_err(failed)? {
        return Ok(None);
    }
    match Index::open(path) {
        Ok(index) => Ok(Some(index).filter(|index| index.summary() != index::Summary::default())),
        Err(error) => {
            tracing::warn!(%error, "the index cannot be used and is made again from the log");
            Ok(None)
        }
    }
}

fn index_failed(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), what: "the index cannot be read", source }
}

/// Bytes of the records that live, and of the segments that are sealed.
fn measure(index: Option<&Index>, recovered: &Recovered) -> io::Result<(u64, u64)> {
    let (reader, mut live) = (index.map(Index::reader), index.map_or(0, |index| index.summary().live_bytes));
    for (key, slot) in &recovered.changes {
        let old = reader.as_ref().map_or(Ok(None), |reader| reader.get(key))?;
        live = live.saturating_sub(old.map_or(0, |old| u64::from(old.len)));
        live += slot.as_ref().map_or(0, |slot| u64::from(slot.place.len));
    }
    Ok((live, recovered.sealed_bytes))
}

/// Reads the value of a key that a write met.
async fn load(key: &str, slot: Slot) -> Result<Entry, WriteError> {
    let key = Arc::from(key);
    let loaded = tokio::task::spawn_blocking(move || slot.load(&key)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    loaded.map_err(|source| WriteError::ReadOnly { reason: "the state of the key cannot be read".to_owned(), source: Some(source) })
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, ReadError> + Send + 'static) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(ReadError::Io(io::Error::other(error))))
}

#[async_trait]
impl Store for EmbeddedStore {
    fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, ReadError> {
        let (shared, key) = (self.shared.clone(), Arc::from(key));
        blocking(move || read::get(&shared, &key)).await
    }

    async fn range(&self, range: Range) -> Result<Page, ReadError> {
        let shared = self.shared.clone();
        blocking(move || read::range(&shared, &range)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, durability: Durability) -> Result<u64, WriteError> {
        self.write(key, Operation::Put { value, packed: None }, expect, durability).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<u64, WriteError> {
        self.write(key, Operation::Delete, expect, Durability::Sync).await
    }

    fn announce(&self) -> Announced {
        Announced::at(self.shared.clone())
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<BoxStream<'static, Result<Event, ReadError>>, ReadError> {
        watching::watch(self.shared.clone(), prefix, after)
    }

    async fn compact(&self, revision: u64) -> Result<(), WriteError> {
        self.shared.state().history.compact(revision);
        Ok(())
    }

    async fn close(&self) -> Result<(), WriteError> {
        let (answer, answered) = oneshot::channel();
        if self.shared.permits.is_closed() {
            return Ok(()); // it is closed, or closing on somebody else's word
        }
        self.ask_to_end(Ending::InOrder(answer));
        match answered.await {
            Ok(Err(ReadOnly { reason, source })) => {
                Err(WriteError::ReadOnly { reason: reason.to_string(), source: ReadOnly { reason, source }.source() })
            }
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if !self.shared.permits.is_closed() {
            self.ask_to_end(Ending::InOrder(oneshot::channel().0));
        }
        if writer.join().is_err() {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("revision", &self.revision()).finish_non_exhaustive()
    }
}
