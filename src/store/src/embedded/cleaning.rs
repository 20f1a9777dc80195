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
/// Bytes looked through between two batches of requests.
pub const SCAN_BYTES: usize = 1 << 20;
/// Bytes of a segment in memory: fresh memory costs more than what is read into it.
const WINDOW_BYTES: usize = 256 << 10;
/// Sealed segments that are never worth the work.
const SPARED_SEGMENTS: u64 = 3;

/// Whether more than half of the log is dead, and enough of it. So the log is at most twice what lives plus a few segments, and every
/// byte that is put is written again about once.
pub fn is_due(sealed_bytes: u64, live_bytes: u64, segment_bytes: u64) -> bool {
    sealed_bytes > (2 * live_bytes).max(SPARED_SEGMENTS * segment_bytes)
}

/// A segment that is being cleaned, a part of it in memory at a time.
#[derive(Debug)]
pub struct Cleaning {
    segment: Arc<Segment>,
    len: usize,
    /// What lies from `base` on.
    window: Vec<u8>,
    base: usize,
    offset: usize,
    /// Behind the record that was looked at last.
    next: usize,
}

impl Cleaning {
    /// Begins at the front of the segment.
    pub fn start(segment: Arc<Segment>) -> io::Result<Self> {
        let len = segment.file.len()? as usize;
        Ok(Cleaning { segment, len, window: Vec::new(), base: 0, offset: 0, next: 0 })
    }

    /// Which.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes of the segment.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// How far it is, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The next record and where it lies; `None` at the end.
    pub fn peek(&mut self) -> io::Result<Option<(usize, Record<'_>)>> {
        self.load(record::HEADER)?;
        self.load(record::length(&self.window[self.offset - self.base..]))?;
        match record::read_alone(&self.window[self.offset - self.base..], self.segment.id, self.offset as u32) {
            Found::Record(found, _) if found.kind == record::Kind::Seal => Ok(None),
            Found::Record(found, next) => {
                self.next = next;
                Ok(Some((self.offset, found)))
            }
            Found::Blank | Found::Torn => Err(damaged(&self.segment, self.offset, "sectors are blank")),
            Found::Damaged(what) => Err(damaged(&self.segment, self.offset, what)),
        }
    }

    /// Goes behind the record that was looked at.
    pub fn advance(&mut self) {
        self.offset = self.next;
    }

    /// Makes so many bytes from the offset on be in the window, or all that are left.
    fn load(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.len.saturating_sub(self.offset);
        let wanted = bytes.min(left);
        if self.offset >= self.base && self.offset + wanted <= self.base + self.window.len() {
            return Ok(());
        }
        self.window.resize(wanted.max(WINDOW_BYTES).min(left), 0);
        self.base = self.offset;
        self.segment.file.read_at(&mut self.window, self.base as u64)
    }
}

fn damaged(segment: &Segment, offset: usize, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("segment {}, byte {offset}: {what}", segment.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{form::Form, record::Kind};

    #[test]
    fn records_are_read_whole_wherever_a_window_ends() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let values: Vec<Vec<u8>> = [1, WINDOW_BYTES - 200, 100, 3 * WINDOW_BYTES, 0, WINDOW_BYTES, 7].map(|bytes| vec![b'x'; bytes]).into();
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (number, value) in values.iter().enumerate() {
            let key = format!("/key/{number}");
            places.push(bytes.len());
            let found = Record { kind: Kind::Put, revision: number as u64, created: 1, synced: 0, key: &key, form: Form::Plain, value };
            record::encode(&found, 4, bytes.len() as u32, &mut bytes);
        }
        std::fs::write(&path, &bytes).expect("written");
        let file = Box::new(std::fs::File::open(&path).expect("opened"));
        let mut cleaning = Cleaning::start(Arc::new(Segment { id: 4, file })).expect("a segment");
        for (number, value) in values.iter().enumerate() {
            let (offset, found) = cleaning.peek().expect("whole").expect("a record");
            assert_eq!((offset, found.revision, found.value), (places[number], number as u64, &value[..]));
            cleaning.advance();
        }
        assert!(cleaning.peek().is_err(), "a segment ends with its seal");
    }

    #[test]
    fn cleaning_is_due_when_more_than_half_of_the_log_is_dead() {
        let cases = [((0, 0), false), ((3, 0), false), ((4, 1), true), ((20, 10), false), ((21, 10), true)];
        for ((sealed, live), due) in cases {
            assert_eq!(is_due(sealed * 16, live * 16, 16), due, "{sealed} sealed, {live} live");
        }
    }
}
