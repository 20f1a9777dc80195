//! The one thread that writes: takes what waits, appends it, syncs once, shows it to the readers, answers all.

mod cleaning;
mod remaking;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    cleaning::Cleaning,
    disk::Lock,
    form::{Form, Stored},
    history::Past,
    index::Reader,
    indexer::{Indexer, Job},
    log::{Log, RotateError},
    record::{self, Kind},
    segment::Slot,
    shared::{Ending, Gate, Operation, Queue, ReadOnly, Refused, Request, Shared},
};
use crate::{Durability, Expect};

/// Bytes of one batch: bounds the memory of the writer and how long the first of a batch waits for the last.
const BATCH_BYTES: usize = 4 << 20;
/// A lazy write is on the disk after at most this.
const LAZY_SYNC: Duration = Duration::from_millis(800);
/// Lazy writes that may be visible and not on the disk; below [`REVISION_GAP`].
const LAZY_WRITES: u64 = 8192;
/// After an unclean end revisions go on this much further, so that none that a reader may have seen is given twice.
pub const REVISION_GAP: u64 = 16384;
/// Keys in the overlay from which on writes wait for the index.
const OVERLAY_BOUND: usize = 65_536;

const FULL: &str = "the disk takes no more of the log; free space on it, and writes go on";
const SYNC_FAILED: &str = "the log could not be synced; check the disk: writes go on as soon as it takes them";
/// Between two tries to write again what could not be synced; tests have no time.
const MEND_AGAIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
const INDEX_FAILED: &str = "the index failed and is made again from the log; writes of this key go on when it is";
/// After a batch of several, the next one waits for as many, but at most this part of what the sync took: who was answered asks again
/// at once, and the first of them shall not have a sync of its own.
const GATHER_DIVISOR: u32 = 2;
/// And never longer than this, however slow the disk.
pub const GATHER: Duration = Duration::from_millis(2);

/// After the close.
pub const CLOSED: &str = "it is closed";

/// The writer's own state.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    log: Log,
    /// The index, once there is one.
    reader: Option<Reader>,
    index_from: usize,
    indexer: Option<Indexer>,
    lock: Option<Lock>,
    revision: u64,
    /// Bytes in the log of the newest records of all keys.
    live_bytes: u64,
    /// Bytes of all sealed segments.
    sealed_bytes: u64,
    cleaning: Option<Cleaning>,
    /// From when on the log may be cleaned; never, if there is none.
    clean_from: Option<Instant>,
    /// Since when, and how many, lazy writes are visible and not synced.
    lazy: Option<(Instant, u64)>,
    /// The mark of a close in order is still the last word on the disk. The first write after it is synced, lazy or not.
    fresh: bool,
    /// How many requests the last batch had, and how long its sync took.
    gathering: (usize, Duration),
    /// How long a write waits at most for others that are announced.
    patience: Duration,
    /// Why there are no more writes.
    dead: Option<ReadOnly>,
    /// From when on it may be tried to end that.
    mend_from: Option<Instant>,
    /// Until when an index that failed is not made again.
    index_rests: Option<Instant>,
}

/// What the writer starts with.
#[derive(Debug)]
pub struct Start {
    /// Shared with the readers.
    pub shared: Arc<Shared>,
    /// The log's end.
    pub log: Log,
    /// The index's thread.
    pub indexer: Indexer,
    /// Keys in the overlay from which on the index takes them.
    pub index_from: usize,
    /// The lock on the directory; `None` on a disk of the tests.
    pub lock: Option<Lock>,
    /// Bytes of the newest records of all keys.
    pub live_bytes: u64,
    /// Bytes of all sealed segments.
    pub sealed_bytes: u64,
    /// Whether the log ends with the mark of a close in order.
    pub clean: bool,
    /// How long a write waits at most for others that are announced.
    pub gather: Duration,
}

/// A batch that is not on the disk yet.
#[derive(Default)]
struct Staged {
    keys: HashMap<Arc<str>, Option<Slot>>,
    pasts: Vec<Past>,
    answers: Vec<(Request, Result<u64, Refused>)>,
    sync: bool,
    live_bytes: i64,
}

impl Writer {
    /// A writer that goes on where the log ends.
    pub fn new(start: Start) -> Self {
        let revision = start.shared.state().history.newest();
        Writer {
            shared: start.shared,
            log: start.log,
            reader: None,
            index_from: start.index_from,
            gathering: (1, Duration::ZERO),
            patience: start.gather,
            indexer: Some(start.indexer),
            lock: start.lock,
            revision,
            live_bytes: start.live_bytes,
            sealed_bytes: start.sealed_bytes,
            cleaning: None,
            clean_from: Some(Instant::now()),
            lazy: None,
            fresh: start.clean,
            dead: None,
            mend_from: None,
            index_rests: None,
        }
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        self.feed_index();
        let ending = loop {
            let mut queue = self.wait();
            #[cfg(test)]
            if matches!(queue.ending, Some(Ending::Abandoned)) {
                break queue.ending.take();
            }
            let mut requests = std::mem::take(&mut queue.requests);
            let ending = if requests.is_empty() { queue.ending.take() } else { None };
            drop(queue);
            if ending.is_some() {
                break ending;
            }
            self.gathering = (requests.len().max(1), Duration::ZERO);
            while !requests.is_empty() {
                self.batch(&mut requests);
            }
            if self.lazy.is_some_and(|(since, _)| since.elapsed() >= LAZY_SYNC) {
                self.sync();
            }
            self.feed_index();
            self.clean();
            self.remake_index();
        };
        self.end(ending);
    }

    /// Waits until there is something to do: a batch worth its sync, a lazy write whose time has come, or the end.
    fn wait(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.shared.queue();
        let (wanted, gather) = (self.gathering.0, (self.gathering.1 / GATHER_DIVISOR).min(GATHER));
        let until = Instant::now() + gather;
        while wanted > 1 && queue.requests.len() < wanted && queue.ending.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue.wanted = wanted;
            queue = self.shared.wait(queue, Some(left));
        }
        queue.wanted = 1;
        while queue.requests.is_empty() && queue.ending.is_none() && self.cleaning.is_none() {
            let lazy = self.lazy.map(|(since, _)| LAZY_SYNC.saturating_sub(since.elapsed()));
            let timeout = lazy.into_iter().chain(self.until_remaking()).min();
            if timeout.is_some_and(|left| left.is_zero()) {
                break;
            }
            queue = self.shared.wait(queue, timeout);
        }
        self.gather(queue)
    }

    /// Waits for the writes that are announced, when there is something to sync: one sync costs as much for all of them.
    fn gather<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let until = Instant::now() + self.patience;
        while !queue.requests.is_empty() && queue.requests.len() < self.shared.announced() && queue.ending.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue.gathers = true;
            queue = self.shared.wait(queue, Some(left));
        }
        queue.gathers = false;
        queue
    }

    /// Takes as many of `requests` as fit into one batch, and answers them.
    fn batch(&mut self, requests: &mut std::collections::VecDeque<Request>) {
        self.mend();
        let mut staged = Staged { sync: self.fresh, ..Staged::default() };
        while let Some(request) = requests.pop_front() {
            if self.log.room() < need(&request) || self.log.pending() > BATCH_BYTES {
                requests.push_front(request);
                break;
            }
            let refused = self.dead.clone();
            let answer = match refused {
                Some(why) => Err(Refused::ReadOnly(why)),
                None => self.stage(&mut staged, &request),
            };
            staged.answers.push((request, answer));
        }
        if !staged.answers.is_empty() {
            return self.commit(staged);
        }
        if let Err(why) = self.rotate()
            && let Some(request) = requests.pop_front()
        {
            let _ = request.answer.send(Err(Refused::ReadOnly(why)));
        }
    }

    fn stage(&mut self, staged: &mut Staged, request: &Request) -> Result<u64, Refused> {
        let before = match staged.keys.get(&request.key) {
            Some(state) => state.clone(),
            None => self.current_for_sure(&request.key).map_err(|source| Refused::ReadOnly(ReadOnly::because(INDEX_FAILED, source)))?,
        };
        let deletes = matches!(request.operation, Operation::Delete);
        let holds = match request.expect {
            Expect::Any => true,
            Expect::Absent => before.is_none(),
            Expect::Revision(revision) => before.as_ref().is_some_and(|slot| slot.modified == revision),
        };
        if !holds || (deletes && before.is_none()) {
            return Err(Refused::Conflict(before));
        }
        let revision = self.revision + staged.pasts.len() as u64 + 1;
        let created = before.as_ref().map_or(revision, |slot| slot.created);
        let (after, value) = match &request.operation {
            Operation::Put { value, packed } => {
                let place = self.log.stage(Kind::Put, revision, created, &request.key, stored(value, packed.as_ref()));
                staged.live_bytes += i64::from(place.len);
                (Some(Slot { created, modified: revision, place }), Some(value.clone()))
            }
            Operation::Delete => {
                self.log.stage(Kind::Delete, revision, created, &request.key, Stored::default());
                (None, None)
            }
        };
        staged.live_bytes -= before.as_ref().map_or(0, |slot| i64::from(slot.place.len));
        staged.sync |= request.durability == Durability::Sync;
        staged.keys.insert(request.key.clone(), after.clone());
        staged.pasts.push(Past { key: request.key.clone(), before, after, value, at: Instant::now() });
        Ok(revision)
    }

    /// The key's state before this batch. The index takes a change in before the overlay lets go of it, so one of them has it.
    fn current(&mut self, key: &str) -> io::Result<Option<Slot>> {
        if let Some(state) = self.shared.state().overlay.get(key) {
            return Ok(state.clone());
        }
        if self.reader.is_none()
            && let Gate::Indexed(reader) = &*self.shared.index()
        {
            self.reader = Some(reader.clone());
        }
        let Some(reader) = &self.reader else { return Ok(None) };
        let located = reader.get(key)?;
        located.map(|located| self.shared.state().slot(located)).transpose()
    }

    /// The same; an index that does not answer is replaced first.
    fn current_for_sure(&mut self, key: &str) -> io::Result<Option<Slot>> {
        self.current(key).or_else(|source| {
            self.shared.fail_index(&source);
            self.remake_index();
            self.current(key)
        })
    }

    fn commit(&mut self, mut staged: Staged) {
        let changes = staged.pasts.len() as u64;
        let written = if changes == 0 { Ok(()) } else { self.write(staged.sync, changes) };
        if let Err(why) = written {
            for (request, _) in staged.answers {
                let _ = request.answer.send(Err(Refused::ReadOnly(why.clone())));
            }
            return;
        }
        self.live_bytes = self.live_bytes.saturating_add_signed(staged.live_bytes);
        self.revision += changes;
        let mut state = self.shared.state();
        state.overlay.extend(staged.keys.drain());
        for past in staged.pasts {
            state.history.push(past);
        }
        drop(state);
        if changes > 0 {
            self.shared.revision.send_replace(self.revision);
        }
        for (request, answer) in staged.answers {
            let _ = request.answer.send(answer);
        }
        self.log.write_ahead(); // now: the disk has nothing to do until some of them ask again
    }

    /// Appends what is staged, and syncs unless all of it is lazy.
    fn write(&mut self, sync: bool, changes: u64) -> Result<(), ReadOnly> {
        if let Some(why) = self.dead.clone() {
            self.log.discard();
            return Err(why);
        }
        let (bytes, (_, end)) = (self.log.pending() as u64, self.log.position());
        self.log.append().map_err(|source| ReadOnly::because(FULL, source))?;
        self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner).appended_bytes += bytes;
        let (since, lazy) = self.lazy.unwrap_or((Instant::now(), 0));
        self.lazy = Some((since, lazy + changes));
        if sync || lazy + changes > LAZY_WRITES {
            self.sync();
        }
        let Some(why) = self.dead.clone() else { return Ok(()) };
        self.log.take_back(end);
        Err(why)
    }

    /// Syncs the log. If that fails there are no more writes until [`mend`](Self::mend) was possible.
    fn sync(&mut self) {
        if self.dead.is_some() {
            return;
        }
        let start = Instant::now();
        match self.log.sync() {
            Ok(()) => {
                (self.lazy, self.fresh, self.gathering.1) = (None, false, start.elapsed());
                self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner).syncs += 1;
            }
            Err(source) => self.die(source),
        }
    }

    /// Writes again what could not be synced: who could read it must not lose it, and who was refused must not find it.
    fn mend(&mut self) {
        if self.mend_from.is_none_or(|from| Instant::now() < from) {
            return;
        }
        match self.log.mend() {
            Ok(()) => {
                tracing::info!("the store takes writes again");
                (self.dead, self.mend_from) = (None, None);
            }
            Err(source) => {
                self.dead = Some(ReadOnly::because(SYNC_FAILED, source));
                self.mend_from = Some(Instant::now() + MEND_AGAIN);
            }
        }
    }

    fn die(&mut self, source: io::Error) {
        tracing::error!(error = %source, "the store takes no more writes: {SYNC_FAILED}");
        (self.lazy, self.cleaning, self.mend_from) = (None, None, Some(Instant::now()));
        self.dead = Some(ReadOnly::because(SYNC_FAILED, source));
    }

    fn rotate(&mut self) -> Result<(), ReadOnly> {
        self.sync();
        if let Some(why) = &self.dead {
            return Err(why.clone());
        }
        let oldest = self.shared.state().segments.keys().next().copied().unwrap_or(1);
        let (old, (_, end)) = (self.log.capacity(), self.log.position());
        match self.log.rotate(self.revision, oldest) {
            Ok(()) => {
                let tail = self.log.tail().clone();
                self.shared.state().segments.insert(tail.id, tail);
                self.sealed_bytes += old;
                Ok(())
            }
            Err(RotateError::Create(source)) => Err(ReadOnly::because(FULL, source)),
            Err(RotateError::Seal(source)) => {
                self.log.take_back(end);
                self.die(source);
                self.dead.clone().map_or(Ok(()), Err)
            }
        }
    }

    /// Gives the overlay to the index when there is enough of it. Only what is synced: the index must not know more than the log.
    fn feed_index(&mut self) {
        let keys = self.shared.state().overlay.len();
        if keys < self.index_from || self.dead.is_some() || self.index_is_out() {
            return;
        }
        let Some(indexer) = &mut self.indexer else { return };
        match indexer.is_busy() {
            Ok(true) if keys < OVERLAY_BOUND => {}
            Ok(_) => {
                self.sync();
                if let Err(source) = self.apply_overlay() {
                    self.shared.fail_index(&source);
                }
            }
            Err(source) => self.shared.fail_index(&source),
        }
    }

    /// Starts to apply the whole overlay; everything in it must be synced.
    fn apply_overlay(&mut self) -> io::Result<()> {
        let unindexed = matches!(*self.shared.index(), Gate::Unindexed);
        let least = if self.index_is_out() { usize::MAX } else { self.index_from };
        let Some(indexer) = &mut self.indexer else { return Ok(()) };
        indexer.finish()?;
        if !self.log.is_synced() {
            return Ok(());
        }
        if unindexed && self.shared.state().overlay.len() < least {
            return Ok(()); // no index: the log tells all that an opening needs
        }
        let state = self.shared.state();
        let changes = state.overlay.iter().map(|(key, slot)| (key.clone(), slot.clone())).collect();
        drop(state);
        indexer.submit(Job { changes, applied: self.log.position(), revision: self.revision })
    }

    fn end(mut self, ending: Option<Ending>) {
        let orderly = matches!(ending, Some(Ending::InOrder(_)));
        let result = if orderly { self.finish() } else { Ok(()) };
        self.shared.shut();
        if let Some(index) = self.indexer.take().and_then(Indexer::stop)
            && let Err(error) = index.flush()
        {
            tracing::warn!(%error, "the index could not be written out; the next start makes it again from the log");
        }
        let Writer { reader, lock, .. } = self;
        drop(reader);
        drop(lock);
        if let Some(Ending::InOrder(answer)) = ending {
            let _ = answer.send(result);
        }
    }

    /// Everything synced, the index complete and in the kernel's hands, and the log says so.
    fn finish(&mut self) -> Result<(), ReadOnly> {
        self.mend_from = self.mend_from.map(|_| Instant::now());
        self.mend();
        self.sync();
        if let Some(why) = &self.dead {
            return Err(why.clone());
        }
        let behind = !self.shared.state().overlay.is_empty();
        let applied = if behind { self.apply_overlay() } else { Ok(()) };
        let finished = applied.and_then(|()| self.indexer.as_mut().map_or(Ok(()), Indexer::finish));
        if let Err(error) = finished {
            tracing::warn!(%error, "the index is not complete; the next start makes it again from the log");
        }
        if self.fresh {
            return Ok(()); // nothing was written, and the mark is there
        }
        self.log.stage(Kind::Close, self.revision, 0, "", Stored::default());
        self.write(true, 0)
    }
}

/// How a value goes into the log.
fn stored<'a>(value: &'a Bytes, packed: Option<&'a Bytes>) -> Stored<'a> {
    match packed {
        Some(packed) => Stored { form: Form::Lz4, bytes: packed },
        None => Stored { form: Form::Plain, bytes: value },
    }
}

fn need(request: &Request) -> usize {
    let value = match &request.operation {
        Operation::Put { value, packed } => stored(value, packed.as_ref()).bytes.len(),
        Operation::Delete => 0,
    };
    record::padded(request.key.len(), value)
}
