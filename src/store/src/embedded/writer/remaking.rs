//! The writer's part of an index that failed, as on a full disk: the store goes on without it, and makes another when the disk may take one.

use std::{
    io,
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::Writer;
use crate::embedded::{index, indexer::Indexer, shared::Gate};

/// How long it is done without an index, and between two tries to read the log; tests have no time.
const REST: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(30) };

impl Writer {
    /// Whether an index failed a short while ago.
    pub(super) fn index_is_out(&self) -> bool {
        self.index_rests.is_some_and(|until| Instant::now() < until)
    }

    /// How long it is until an index that failed is to be replaced.
    pub(super) fn until_remaking(&self) -> Option<Duration> {
        let failed = self.shared.index_has_failed() && self.dead.is_none();
        failed.then(|| self.index_rests.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now())))
    }

    /// Goes on without the index, if it has failed: all that it knew is in the log, and the overlay knows all keys (some 150 bytes each)
    /// until there is another.
    pub(super) fn remake_index(&mut self) {
        if self.until_remaking().is_none_or(|left| !left.is_zero()) {
            return;
        }
        self.index_rests = Some(Instant::now() + REST);
        self.sync();
        if self.dead.is_some() {
            return;
        }
        match self.forget_index() {
            Ok(keys) => tracing::info!(keys, "the store goes on without the index, and makes another"),
            Err(error) => tracing::error!(error = &*error, "the log cannot be read to replace the index that failed"),
        }
    }

    /// How many keys there are.
    fn forget_index(&mut self) -> Result<usize, Box<dyn std::error::Error>> {
        let recovered = self.log.read()?;
        let gone = || io::Error::other("the indexer is gone");
        let path = self.indexer.as_ref().ok_or_else(gone)?.path().to_owned();
        let next = Indexer::start(None, path.clone(), self.shared.clone())?;
        let failed = self.indexer.replace(next).and_then(Indexer::stop);
        self.reader = None;
        let mut gate = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        *gate = Gate::Unindexed;
        let mut state = self.shared.state();
        (state.overlay, state.segments) = (recovered.changes, recovered.segments);
        let tail = self.log.tail().clone();
        state.segments.insert(tail.id, tail);
        let keys = state.overlay.len();
        self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner).indexes_given_up += 1;
        self.shared.forgive_index();
        drop(state);
        drop(gate);
        index::discard(failed, &path);
        Ok(keys)
    }
}
