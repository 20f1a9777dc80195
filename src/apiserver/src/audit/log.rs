//! The audit log's writer: a thread of its own behind a bounded queue. Who answers a request never waits for it; what finds no place is counted.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    event::Event,
    file::{Bounds, LogFile},
};
use crate::catalogue::Live;

/// Events that wait: a burst of seconds.
const QUEUE_EVENTS: usize = 4096;
/// Bytes that waiting events hold on to.
const QUEUE_BYTES: usize = 16 << 20;
/// After the first event of a batch others may come: then one wake-up and one write are for all.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes written at a time.
const BATCH_BYTES: usize = 256 << 10;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("the audit log {path} cannot be written")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread.
    #[error("the audit log's writer cannot be started")]
    Thread(#[source] io::Error),
}

/// What became of events.
#[derive(Debug, Default)]
pub struct Counts {
    /// Recorded or not.
    pub events: AtomicU64,
    /// Not recorded: the queue was full, or the disk refused them.
    pub lost: AtomicU64,
}

/// Where events go. The thread ends, and has written all, when this is dropped.
#[derive(Debug)]
pub struct Log {
    sender: Option<SyncSender<Box<Event>>>,
    waiting_bytes: Arc<AtomicUsize>,
    pub counts: Arc<Counts>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the file (`-` is standard output) and starts the writer.
    pub fn open(path: &Path, bounds: Bounds, catalogue: Live) -> Result<Self, LogError> {
        let failed = |source| LogError::Open { path: path.to_owned(), source };
        let file = if path.as_os_str() == "-" { None } else { Some(LogFile::open(path, bounds).map_err(failed)?) };
        let (sender, receiver) = sync_channel(QUEUE_EVENTS);
        let (waiting_bytes, counts) = (Arc::new(AtomicUsize::new(0)), Arc::new(Counts::default()));
        let writer =
            Writer { file, receiver, waiting_bytes: Arc::clone(&waiting_bytes), counts: Arc::clone(&counts), catalogue, troubled: false };
        let thread = std::thread::Builder::new().name("audit-log".into()).spawn(move || writer.run()).map_err(LogError::Thread)?;
        Ok(Self { sender: Some(sender), waiting_bytes, counts, thread: Mutex::new(Some(thread)) })
    }

    /// Hands an event over, if there is a place for it.
    pub fn send(&self, event: Event) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let weight = event.weight();
        let room = self.waiting_bytes.fetch_add(weight, Ordering::Relaxed) + weight <= QUEUE_BYTES;
        let taken = room && self.sender.as_ref().is_some_and(|sender| sender.try_send(Box::new(event)).is_ok());
        if !taken {
            self.waiting_bytes.fetch_sub(weight, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    file: Option<LogFile>,
    receiver: Receiver<Box<Event>>,
    waiting_bytes: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    catalogue: Live,
    /// The last batch was refused: told once.
    troubled: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::new();
        let mut behind = false;
        while let Ok(first) = self.receiver.recv() {
            if !behind {
                std::thread::sleep(GATHER);
            }
            let mut events = 0;
            let mut next = Some(first);
            let catalogue = self.catalogue.now();
            while let Some(event) = next {
                self.waiting_bytes.fetch_sub(event.weight(), Ordering::Relaxed);
                event.write(&catalogue, &mut lines);
                events += 1;
                if lines.len() >= BATCH_BYTES {
                    break;
                }
                next = self.receiver.try_recv().ok();
            }
            // A full batch leaves others waiting: they have gathered.
            behind = lines.len() >= BATCH_BYTES;
            let written = match &mut self.file {
                Some(file) => file.append(&lines, Timestamp::now()),
                None => io::stdout().lock().write_all(&lines),
            };
            self.settle(written, events);
            lines.clear();
            // A large object's line need not stay.
            lines.shrink_to(BATCH_BYTES);
        }
    }

    fn settle(&mut self, written: io::Result<()>, events: u64) {
        match written {
            Ok(()) => self.troubled = false,
            Err(error) => {
                self.counts.lost.fetch_add(events, Ordering::Relaxed);
                if !std::mem::replace(&mut self.troubled, true) {
                    tracing::error!(%error, "audit events are lost: the log cannot be written");
                }
            }
        }
    }
}
