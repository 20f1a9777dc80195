//! The writer's part of cleaning: one slice between two batches.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{Stored, Writer};
use crate::embedded::{
    cleaning::{self, Cleaning},
    record::{self, Kind},
    segment::{Place, Slot},
    shared::ReadOnly,
};

/// After a disk that did not take what cleaning writes, as one that is full: the next try.
const AGAIN: Duration = Duration::from_secs(60);

impl Writer {
    /// Writes what lives in the oldest segment again, a slice at a time, and drops the segment, while more than half of the log is dead.
    pub(super) fn clean(&mut self) {
        if self.cleaning.is_none() {
            self.cleaning = self.next_to_clean();
        }
        let Some(mut cleaning) = self.cleaning.take() else { return };
        match self.clean_slice(&mut cleaning) {
            Ok(false) => self.cleaning = Some(cleaning),
            Ok(true) => {}
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(error = %source, segment = cleaning.segment().id, "the log is not cleaned any more until the next start");
                self.clean_from = None;
            }
            Err(source) => {
                tracing::warn!(error = %source, segment = cleaning.segment().id, "the log cannot be cleaned now");
                self.clean_from = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn next_to_clean(&mut self) -> Option<Cleaning> {
        let may = self.dead.is_none() && self.clean_from.is_some_and(|from| Instant::now() >= from);
        let worth = may && cleaning::is_due(self.sealed_bytes, self.live_bytes, self.log.capacity());
        let oldest = worth.then(|| self.shared.state().segments.values().next().cloned())??;
        if oldest.id == self.log.tail().id {
            return None;
        }
        match Cleaning::start(oldest) {
            Ok(cleaning) => Some(cleaning),
            Err(error) => {
                tracing::warn!(%error, "the oldest segment cannot be read; the log is not cleaned any more until the next start");
                self.clean_from = None;
                None
            }
        }
    }

    /// Whether the segment is done.
    fn clean_slice(&mut self, cleaning: &mut Cleaning) -> io::Result<bool> {
        let refused = |why: ReadOnly| why.source().unwrap_or_else(|| io::Error::other(&*why.reason));
        let segment = cleaning.segment().clone();
        let mut kept: Vec<(Arc<str>, Option<Slot>)> = Vec::new();
        let mut full = false;
        let until = cleaning.offset() + cleaning::SCAN_BYTES;
        while cleaning.offset() < until
            && let Some((offset, found)) = cleaning.peek()?
        {
            let lives = match found.kind {
                Kind::Put | Kind::Keep => self.current(found.key)?.filter(|slot| lies_at(&slot.place, segment.id, offset)),
                _ => None,
            };
            if let Some(slot) = lives {
                full = self.log.room() < record::padded(found.key.len(), found.value.len());
                if full || self.log.pending() > cleaning::SLICE_BYTES {
                    break;
                }
                let place = self.log.stage(Kind::Keep, slot.modified, slot.created, found.key, found.stored());
                kept.push((Arc::from(found.key), Some(Slot { place, ..slot })));
            }
            cleaning.advance();
        }
        if !kept.is_empty() {
            self.write(true, 0).map_err(refused)?;
            self.shared.state().overlay.extend(kept);
        }
        if full {
            self.rotate().map_err(refused)?;
        }
        if cleaning.peek()?.is_some() {
            return Ok(false);
        }
        self.drop_segment(segment.id, cleaning.len())?;
        Ok(true)
    }

    /// The index lets go of the segment first, then the log says that it is gone, then it goes.
    fn drop_segment(&mut self, id: u32, len: u64) -> io::Result<()> {
        self.sync();
        self.apply_overlay()?;
        if let Some(indexer) = &mut self.indexer {
            indexer.finish()?;
        }
        if self.log.room() < record::MARK_BYTES {
            self.rotate().map_err(|why| why.source().unwrap_or_else(|| io::Error::other(&*why.reason)))?;
        }
        self.log.stage(Kind::Drop, self.revision, u64::from(id) + 1, "", Stored::default());
        self.write(true, 0).map_err(|why| why.source().unwrap_or_else(|| io::Error::other(&*why.reason)))?;
        let gate = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.shared.state().segments.remove(&id);
        drop(gate);
        self.sealed_bytes = self.sealed_bytes.saturating_sub(len);
        self.log.remove(id)
    }
}

fn lies_at(place: &Place, segment: u32, offset: usize) -> bool {
    place.segment.id == segment && place.offset as usize == offset
}
