//! What the writer and the readers share: the changes that the index does not have yet, the recent past, the segments.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    history::History,
    index::{Located, Reader},
    segment::{Place, Segment, Slot},
};
use crate::{Durability, Expect, announced::Announcements};

/// What a request asks of the writer.
#[derive(Debug)]
pub enum Operation {
    /// This value.
    Put {
        /// As readers want it.
        value: Bytes,
        /// Compressed, if that is shorter.
        packed: Option<Bytes>,
    },
    /// That it be gone.
    Delete,
}

impl Operation {
    /// Bytes that it holds while it waits.
    pub fn bytes(&self) -> usize {
        match self {
            Operation::Put { value, packed } => value.len() + packed.as_ref().map_or(0, Bytes::len),
            Operation::Delete => 0,
        }
    }
}

/// A write that waits for its batch.
#[derive(Debug)]
pub struct Request {
    /// Of which key.
    pub key: Arc<str>,
    /// What.
    pub operation: Operation,
    /// On which condition.
    pub expect: Expect,
    /// When it is answered.
    pub durability: Durability,
    /// Where the revision goes. Nobody may be there any more; the write happens all the same.
    pub answer: oneshot::Sender<Result<u64, Refused>>,
    /// Its share of the queue's bound, given back with the answer.
    pub _permit: OwnedSemaphorePermit,
}

/// A write that did not happen.
#[derive(Debug)]
pub enum Refused {
    /// The key is in this state.
    Conflict(Option<Slot>),
    /// The store takes none.
    ReadOnly(ReadOnly),
}

/// Why the store takes no writes.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    /// In words.
    pub reason: Arc<str>,
    /// The operating system's error.
    pub source: Option<Arc<io::Error>>,
}

impl ReadOnly {
    /// A refusal that an I/O error is behind.
    pub fn because(reason: &str, source: io::Error) -> Self {
        ReadOnly { reason: reason.into(), source: Some(Arc::new(source)) }
    }

    /// A copy of the cause, which cannot be cloned.
    pub fn source(&self) -> Option<io::Error> {
        let source = self.source.as_ref()?;
        Some(source.raw_os_error().map_or_else(|| io::Error::new(source.kind(), source.to_string()), io::Error::from_raw_os_error))
    }
}

/// The writer's in-tray. `Shared::permits` bounds it.
#[derive(Debug, Default)]
pub struct Queue {
    /// In the order of their arrival.
    pub requests: VecDeque<Request>,
    /// The writer wants to be woken when there are so many.
    pub wanted: usize,
    /// The writer waits for those that are announced.
    pub gathers: bool,
    /// Asked to end; who asked hears from it when all is on the disk and the lock is free.
    pub ending: Option<Ending>,
}

/// How the writer is to end.
#[derive(Debug)]
pub enum Ending {
    /// Everything synced and the index flushed.
    InOrder(oneshot::Sender<Result<(), ReadOnly>>),
    /// At once, as if killed.
    #[cfg(test)]
    Abandoned,
}

/// What readers see; behind one lock that is never held during I/O.
#[derive(Debug)]
pub struct State {
    /// States of keys that the index does not have yet; they hide the index's.
    pub overlay: BTreeMap<Arc<str>, Option<Slot>>,
    /// The recent changes; its newest revision is the store's.
    pub history: History,
    /// The segments of the log.
    pub segments: BTreeMap<u32, Arc<Segment>>,
}

/// The way to the index.
#[derive(Debug)]
pub enum Gate {
    /// There is none yet: the overlay knows all keys.
    Unindexed,
    /// This one.
    Indexed(Reader),
    /// The store is closed.
    Closed,
}

/// What the writer did since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Times that fdatasync returned.
    pub syncs: u64,
    /// Bytes that were appended to the log.
    pub appended_bytes: u64,
    /// Indexes that failed and were given up, to be made again from the log.
    pub indexes_given_up: u64,
}

/// Shared by the store's handle, its streams, the writer and the indexer.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    /// The index. Who reads index and state together holds it for reading, and the index does not move beneath
    /// them; the indexer holds it for writing while it applies, the writer while it drops a segment.
    pub gate: RwLock<Gate>,
    /// The newest visible revision; every change of it wakes the watchers.
    pub revision: watch::Sender<u64>,
    /// Set when the store is closed, and seen with the next change of `revision`.
    pub closed: AtomicBool,
    /// The index failed, and the writer has not replaced it yet.
    index_failed: AtomicBool,
    /// Writes that were announced and are not answered; some of them wait in the queue.
    announced: AtomicUsize,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// What the writer did.
    pub statistics: Mutex<Statistics>,
    /// Bounds the queue, in KiB.
    pub permits: Arc<Semaphore>,
}

impl Shared {
    /// Of a store that was just opened.
    pub fn new(state: State, index: Option<Reader>, queue_kib: usize) -> Self {
        let revision = watch::Sender::new(state.history.newest());
        Shared {
            state: Mutex::new(state),
            gate: RwLock::new(index.map_or(Gate::Unindexed, Gate::Indexed)),
            revision,
            closed: false.into(),
            index_failed: false.into(),
            announced: AtomicUsize::new(0),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            statistics: Mutex::default(),
            permits: Arc::new(Semaphore::new(queue_kib)),
        }
    }

    /// The state. A panic elsewhere does not take it away: every change of it is complete before it can panic.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody writes any more: waiting writes and watchers hear of it.
    pub fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.permits.close();
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Closed;
        self.queue().requests.clear();
        self.revision.send_modify(|_| {});
    }

    /// The index failed: the writer is to replace it.
    pub fn fail_index(&self, why: &io::Error) {
        if self.closed.load(Ordering::Acquire) || self.index_failed.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(error = %why, "the index of the store failed");
        let _queue = self.queue(); // the writer is not between its look at this and its wait
        self.arrived.notify_one();
    }

    /// Whether the index failed and is not replaced yet.
    pub fn index_has_failed(&self) -> bool {
        self.index_failed.load(Ordering::Acquire)
    }

    /// The index that failed is not used any more.
    pub fn forgive_index(&self) {
        self.index_failed.store(false, Ordering::Release);
    }

    /// The in-tray.
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the writer that there is something in its tray; that is, what it gave leave for waits.
    pub fn notify_writer(&self, queue: &Queue) {
        let enough = queue.requests.len() >= queue.wanted && (!queue.gathers || queue.requests.len() >= self.announced());
        if enough || queue.ending.is_some() {
            self.arrived.notify_one();
        }
    }

    /// How many writes are announced, those in the queue among them.
    pub fn announced(&self) -> usize {
        self.announced.load(Ordering::Relaxed)
    }

    /// Waits until something arrives or `timeout` has passed.
    pub fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, timeout: Option<std::time::Duration>) -> MutexGuard<'a, Queue> {
        match timeout {
            None => self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.arrived.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// The index, held still.
    pub fn index(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcements for Shared {
    fn count(&self) -> &AtomicUsize {
        &self.announced
    }

    fn fewer(&self) {
        let queue = self.queue();
        if queue.gathers && queue.requests.len() >= self.announced() {
            self.arrived.notify_one();
        }
    }
}

impl Gate {
    /// What the index says about `key`.
    pub fn get(&self, key: &str) -> io::Result<Option<Located>> {
        match self {
            Gate::Unindexed => Ok(None),
            Gate::Indexed(index) => index.get(key),
            Gate::Closed => Err(closed()),
        }
    }

    /// The keys of the index that start with `prefix` and come after `after`, in order.
    pub fn range(&self, prefix: &str, after: Option<&str>) -> io::Result<impl Iterator<Item = io::Result<(Arc<str>, Located)>> + use<>> {
        let entries = match self {
            Gate::Unindexed => None,
            Gate::Indexed(index) => Some(index.range(prefix, after)),
            Gate::Closed => return Err(closed()),
        };
        Ok(entries.into_iter().flatten())
    }
}

impl State {
    /// The slot that the index speaks of.
    pub fn slot(&self, located: Located) -> io::Result<Slot> {
        slot_in(&self.segments, located)
    }
}

/// Turns the index's word into a place of one of `segments`.
pub fn slot_in(segments: &BTreeMap<u32, Arc<Segment>>, located: Located) -> io::Result<Slot> {
    let Located { created, modified, segment, offset, len } = located;
    let segment = segments.get(&segment).cloned().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the index names segment {segment}, which the log does not have"))
    })?;
    Ok(Slot { created, modified, place: Place { segment, offset, len } })
}

/// The error of a reader that comes after the close.
fn closed() -> io::Error {
    io::Error::other("the store is closed")
}
