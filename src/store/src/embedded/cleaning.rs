//! Cleaning the log: the oldest segment's living records are written again at the end, then the segment goes.
//!
//! Always the oldest: so whatever a deletion's record hides lies before it, and the record can go with its segment.

use std::{io, sync::Arc};

use super::{
    record::{self, Found, Record},
    segment::Segment,
};

/// Bytes written again between two batches of requests: what cleaning adds to a write's time.
pub const SLICE_BYTES: usize = 256 << 10;
/// Sealed segments that are never worth the work.
const SPARED_SEGMENTS: u64 = 3;

/// Whether more than half of the log is dead, and enough of it. So the log is at most twice what lives plus a few segments, and every
/// byte that is put is written again about once.
pub fn is_due(sealed_bytes: u64, live_bytes: u64, segment_bytes: u64) -> bool {
    sealed_bytes > (2 * live_bytes).max(SPARED_SEGMENTS * segment_bytes)
}

/// A segment that is being cleaned, in memory for that time.
#[derive(Debug)]
pub struct Cleaning {
    segment: Arc<Segment>,
    bytes: Vec<u8>,
    offset: usize,
}

impl Cleaning {
    /// Reads the segment.
    pub fn start(segment: Arc<Segment>) -> io::Result<Self> {
        let mut bytes = vec![0; segment.file.len()? as usize];
        segment.file.read_at(&mut bytes, 0)?;
        Ok(Cleaning { segment, bytes, offset: 0 })
    }

    /// Which.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes of the segment.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The next record and where it lies; `None` at the end.
    pub fn peek(&self) -> io::Result<Option<(usize, Record<'_>)>> {
        match record::read(&self.bytes, self.segment.id, self.offset) {
            Found::Record(found, _) if found.kind == record::Kind::Seal => Ok(None),
            Found::Record(found, _) => Ok(Some((self.offset, found))),
            Found::Blank | Found::Torn => Err(self.damaged("sectors are blank")),
            Found::Damaged(what) => Err(self.damaged(what)),
        }
    }

    /// Goes to the next record.
    pub fn advance(&mut self) {
        if let Found::Record(_, next) = record::read(&self.bytes, self.segment.id, self.offset) {
            self.offset = next;
        }
    }

    fn damaged(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("segment {}, byte {}: {what}", self.segment.id, self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn cleaning_is_due_when_more_than_half_of_the_log_is_dead() {
        let cases = [((0, 0), false), ((3, 0), false), ((4, 1), true), ((20, 10), false), ((21, 10), true)];
        for ((sealed, live), due) in cases {
            assert_eq!(is_due(sealed * 16, live * 16, 16), due, "{sealed} sealed, {live} live");
        }
    }
}
