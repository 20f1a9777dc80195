//! The thread that moves changes from the overlay into the index, in batches, off the writers' way.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, mpsc},
    thread::JoinHandle,
};

use super::{
    index::{Index, Position},
    segment::Slot,
    shared::{Gate, Shared},
};

/// A batch for the index. It is on the disk: the index never knows more than the log.
#[derive(Debug)]
pub struct Job {
    /// The states of the keys in the overlay.
    pub changes: Vec<(Arc<str>, Option<Slot>)>,
    /// Where in the log they hold.
    pub applied: Position,
    /// At which revision.
    pub revision: u64,
}

/// The writer's end of it.
#[derive(Debug)]
pub struct Indexer {
    jobs: Option<mpsc::SyncSender<Job>>,
    results: mpsc::Receiver<io::Result<()>>,
    thread: Option<JoinHandle<Option<Index>>>,
    path: PathBuf,
    busy: bool,
}

impl Indexer {
    /// Starts the thread. Without an index it makes one at `path` with the first job.
    pub fn start(mut index: Option<Index>, path: PathBuf, shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
        let (outbox, results) = mpsc::sync_channel(1);
        let to = path.clone();
        let work = move || {
            while let Ok(job) = inbox.recv() {
                let applied = apply(&mut index, &to, &shared, &job);
                let failure = applied.as_ref().err().map(|error| io::Error::new(error.kind(), error.to_string()));
                if outbox.send(applied).is_err() {
                    break;
                }
                if let Some(failure) = failure {
                    shared.fail_index(&failure); // after the result: whom this wakes finds it
                }
            }
            index
        };
        let thread = std::thread::Builder::new().name("store-index".to_owned()).spawn(work)?;
        Ok(Indexer { jobs: Some(jobs), results, thread: Some(thread), path, busy: false })
    }

    /// Where the index is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a job is under way; takes the result of one that has ended.
    pub fn is_busy(&mut self) -> io::Result<bool> {
        if self.busy {
            match self.results.try_recv() {
                Ok(result) => {
                    self.busy = false;
                    result?;
                }
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return Err(io::Error::other("the indexer is gone")),
            }
        }
        Ok(self.busy)
    }

    /// Hands over a job; waits for the one before it.
    pub fn submit(&mut self, job: Job) -> io::Result<()> {
        self.finish()?;
        let gone = || io::Error::other("the indexer is gone");
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        self.busy = true;
        Ok(())
    }

    /// Waits for the job that is under way.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.busy {
            return Ok(());
        }
        self.busy = false;
        self.results.recv().unwrap_or_else(|_| Err(io::Error::other("the indexer is gone")))
    }

    /// Ends the thread and gives the index back.
    pub fn stop(mut self) -> Option<Index> {
        self.jobs = None;
        self.thread.take()?.join().ok()?
    }
}

/// Keys that are applied at once: how long readers wait, a few milliseconds.
const KEYS_AT_ONCE: usize = 2048;

/// Applies the job in pieces. Until the last one the index counts as where it was, and a crash makes the next start apply them again.
fn apply(index: &mut Option<Index>, path: &Path, shared: &Shared, job: &Job) -> io::Result<()> {
    let index = match index {
        Some(index) => index,
        None => index.insert(Index::create(path)?),
    };
    if job.changes.is_empty() {
        return apply_piece(index, shared, &[], job.applied, job.revision);
    }
    let mut pieces = job.changes.chunks(KEYS_AT_ONCE).peekable();
    while let Some(piece) = pieces.next() {
        let before = index.summary();
        let (applied, revision) = if pieces.peek().is_none() { (job.applied, job.revision) } else { (before.applied, before.revision) };
        apply_piece(index, shared, piece, applied, revision)?;
    }
    Ok(())
}

/// Applies, then takes out of the overlay what has not changed meanwhile. Readers wait, as the index must not move beneath them.
fn apply_piece(index: &mut Index, shared: &Shared, piece: &[(Arc<str>, Option<Slot>)], applied: Position, revision: u64) -> io::Result<()> {
    let mut gate = shared.gate.write().unwrap_or_else(PoisonError::into_inner);
    *gate = Gate::Indexed(index.reader());
    index.apply(piece, applied, revision)?;
    let mut state = shared.state();
    for (key, applied) in piece {
        if state.overlay.get(key).is_some_and(|now| same(now.as_ref(), applied.as_ref())) {
            state.overlay.remove(key);
        }
    }
    drop(state);
    drop(gate);
    Ok(())
}

fn same(a: Option<&Slot>, b: Option<&Slot>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.modified == b.modified && a.place.offset == b.place.offset && a.place.segment.id == b.place.segment.id,
        _ => false,
    }
}
