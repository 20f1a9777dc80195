//! The log's tail: appends, syncs, starts new segments. One thread writes it.

use std::{io, sync::Arc};

use super::{
    disk::{Disk, DiskFile},
    form::Stored,
    index::Summary,
    record::{self, Kind, Record},
    recover::{self, Recovered},
    segment::{Place, Segment},
};
use crate::OpenError;

/// How far zeros are written ahead of the records. Blocks that are only reserved are written together with the file's metadata: a sync
/// into blocks that were written before is one write of the disk instead of two or more, and takes about two thirds of the time.
const AHEAD: u32 = 256 << 10;
/// Bytes that a buffer keeps at most between batches.
const KEPT_BYTES: usize = 256 << 10;
/// What the kernel's cache is made of.
const PAGE: u32 = 4096;

/// The end of the log, where it grows.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u32,
    tail: Arc<Segment>,
    /// Capacity of the tail; a segment that an earlier run made may have another length than new ones.
    len: u32,
    /// Where the next record goes.
    end: u32,
    /// Up to where fdatasync has returned.
    synced: u32,
    /// Up to where a failed append may have left something.
    dirty: u32,
    /// Up to where zeros were written over that, and not synced yet.
    wiped: u32,
    /// Up to where the blocks have been written, with records or zeros.
    written: u32,
    /// From where on to [`written`](Self::written) the kernel may still cache zeros.
    cached: u32,
    /// The segment is the first of a new store and has neither a name nor a synced byte: the first sync gives it both.
    unborn: bool,
    /// Encoded records that go to `end` with the next append.
    buffer: Vec<u8>,
    /// What lies from `synced` to `end`, to be written again should its sync fail.
    unsynced: Vec<u8>,
}

impl Log {
    /// Goes on at `end` of `tail`. What lies before is on the disk.
    pub fn resume(disk: Arc<dyn Disk>, segment_bytes: u32, tail: Arc<Segment>, len: u32, end: u32) -> Self {
        Log {
            disk,
            segment_bytes,
            tail,
            len,
            end,
            synced: end,
            dirty: end,
            wiped: end,
            written: end,
            cached: end,
            unborn: false,
            buffer: Vec::new(),
            unsynced: Vec::new(),
        }
    }

    /// The log of a new store. Nothing of it is on the disk until the first sync, so a start costs no sync.
    pub fn start(disk: Arc<dyn Disk>, segment_bytes: u32) -> io::Result<Self> {
        let file = begin_segment(&*disk, 1, segment_bytes, 0, 1)?;
        let log = Log::resume(disk, segment_bytes, Arc::new(Segment { id: 1, file }), segment_bytes, first_offset());
        Ok(Log { unborn: true, ..log })
    }

    /// Reads all of it again, without what a failed append may have left.
    pub fn read(&mut self) -> Result<Recovered, OpenError> {
        let wiped = self.wipe();
        wiped.map_err(|source| OpenError::Io { path: self.disk.path(""), what: "a write that failed cannot be wiped", source })?;
        recover::recover(&*self.disk, Summary::default())
    }

    /// The segment that grows.
    pub fn tail(&self) -> &Arc<Segment> {
        &self.tail
    }

    /// Where the next record after the appended ones goes.
    pub fn position(&self) -> (u32, u32) {
        (self.tail.id, self.end)
    }

    /// Whether everything that was appended is on the disk.
    pub fn is_synced(&self) -> bool {
        self.synced == self.end && !self.unborn
    }

    /// Bytes that still fit in this segment; room for the marks that end it is kept back.
    pub fn room(&self) -> usize {
        (self.len as usize).saturating_sub(self.end as usize + self.buffer.len() + 4 * record::MARK_BYTES)
    }

    /// Length of the segment that grows.
    pub fn capacity(&self) -> u64 {
        u64::from(self.len)
    }

    /// Bytes of the records that wait to be appended.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Encodes a record that the next append writes. There must be [`room`](Self::room) for it.
    pub fn stage(&mut self, kind: Kind, revision: u64, created: u64, key: &str, stored: Stored<'_>) -> Place {
        let (offset, before) = (self.end + self.buffer.len() as u32, self.buffer.len());
        let record = Record { kind, revision, created, synced: self.synced, key, form: stored.form, value: stored.bytes };
        record::encode(&record, self.tail.id, offset, &mut self.buffer);
        Place { segment: self.tail.clone(), offset, len: (self.buffer.len() - before) as u32 }
    }

    /// Writes the staged records. After an error none of them counts, and the next append first wipes what is left of them.
    /// The last page is written whole: what is behind the records there need not be read first.
    pub fn append(&mut self) -> io::Result<()> {
        let (end, records) = (self.end + self.buffer.len() as u32, self.buffer.len());
        self.buffer.resize((end.next_multiple_of(PAGE).min(self.len) - self.end) as usize, 0);
        let written = self.wipe().and_then(|()| self.tail.file.write_at(&self.buffer, u64::from(self.end)));
        match written {
            Ok(()) => {
                self.unsynced.extend_from_slice(&self.buffer[..records]);
                self.end = end;
            }
            Err(_) => self.dirty = self.dirty.max(end),
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        written
    }

    fn wipe(&mut self) -> io::Result<()> {
        if self.dirty > self.end {
            self.tail.file.write_at(&vec![0; (self.dirty - self.end) as usize], u64::from(self.end))?;
            self.wiped = self.wiped.max(self.dirty);
        }
        self.dirty = self.end;
        Ok(())
    }

    /// Writes zeros behind the records when a quarter of those there is used up, for the disk to take while nobody waits for it.
    /// If that fails, the next syncs take longer, that is all.
    pub fn write_ahead(&mut self) {
        if self.is_synced() && self.cached < self.written {
            // One write of many pages made one large folio of them; a small write into it would be accounted as one of all of it.
            // The page of the last record stays: the next one begins in it.
            let from = self.end.next_multiple_of(PAGE).max(self.cached).min(self.written);
            self.tail.file.forget(from.into(), (self.written - from).into());
            self.cached = self.written;
        }
        let enough = (self.end + AHEAD / 4 * 3).min(self.len);
        if self.written >= enough || self.dirty > self.end {
            return;
        }
        let to = (self.end + AHEAD).next_multiple_of(PAGE).min(self.len);
        let from = self.end.next_multiple_of(PAGE).max(self.written).min(to);
        if self.tail.file.write_at(&vec![0; (to - from) as usize], from.into()).is_ok() {
            self.tail.file.begin_writing(from.into(), (to - from).into());
            (self.cached, self.written) = (from, to);
        }
    }

    /// Returns when everything appended is on the disk. After an error nobody knows what is: the kernel may have dropped the pages and
    /// call the next sync a success, so nothing may be appended before [`mend`](Self::mend) has written all of it anew.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.is_synced() {
            self.tail.file.sync()?;
            if self.unborn {
                name_segment(&*self.disk, self.tail.id)?;
                self.unborn = false;
            }
            self.all_is_synced();
        }
        Ok(())
    }

    fn all_is_synced(&mut self) {
        (self.synced, self.wiped) = (self.end, self.end);
        self.unsynced.clear();
        self.unsynced.shrink_to(KEPT_BYTES);
    }

    /// After a failed sync: what was appended from this offset on does not count.
    pub fn take_back(&mut self, end: u32) {
        self.dirty = self.dirty.max(self.end).max(self.wiped);
        self.end = end;
        self.unsynced.truncate((end - self.synced) as usize);
    }

    /// Writes all that counts and is not synced again, zeros over what does not count, and syncs. What a failed sync left in the kernel's
    /// hands does not matter any more then. After an error nothing has changed.
    pub fn mend(&mut self) -> io::Result<()> {
        if self.unborn {
            return Err(io::Error::other("the first sync of the store failed"));
        }
        let to = self.dirty.max(self.wiped).max(self.end).next_multiple_of(PAGE).min(self.len);
        let mut bytes = self.unsynced.clone();
        bytes.resize((to - self.synced) as usize, 0);
        self.tail.file.write_at(&bytes, u64::from(self.synced))?;
        self.tail.file.sync()?;
        self.dirty = self.end;
        self.all_is_synced();
        Ok(())
    }

    /// Syncs what an earlier process may have left in the kernel's hands.
    pub fn resync(&mut self) -> io::Result<()> {
        self.tail.file.sync()
    }

    /// Forgets the staged records.
    pub fn discard(&mut self) {
        self.buffer.clear();
    }

    /// Starts the next segment, then seals this one, which must be synced: so a segment without a seal is always the last, and a seal
    /// always has a successor.
    pub fn rotate(&mut self, revision: u64, oldest: u32) -> Result<(), RotateError> {
        self.wipe().map_err(RotateError::Create)?;
        let id = self.tail.id + 1;
        let next = create_segment(&*self.disk, id, self.segment_bytes, revision, oldest).map_err(RotateError::Create)?;
        self.stage(Kind::Seal, revision, 0, "", Stored::default());
        self.append().map_err(RotateError::Seal)?;
        self.sync().map_err(RotateError::Seal)?;
        *self = Log::resume(self.disk.clone(), self.segment_bytes, next, self.segment_bytes, first_offset());
        Ok(())
    }

    /// Removes a segment that nothing in the index names any more.
    pub fn remove(&self, id: u32) -> io::Result<()> {
        self.disk.remove(&Segment::name(id))?;
        self.disk.sync_directory()
    }
}

impl RotateError {
    /// The cause.
    pub fn into_io(self) -> io::Error {
        match self {
            RotateError::Create(error) | RotateError::Seal(error) => error,
        }
    }
}

/// Why there is no next segment.
#[derive(Debug)]
pub enum RotateError {
    /// It could not be made; nothing has changed.
    Create(io::Error),
    /// The old one could not be sealed: what was tried must be [taken back](Log::take_back) before the log goes on.
    Seal(io::Error),
}

/// The name of a segment that is not complete: it gets its own last, so a segment that exists begins as one.
const UNFINISHED: &str = "next.new";

/// Makes a segment, durably, with its first record.
fn create_segment(disk: &dyn Disk, id: u32, len: u32, revision: u64, oldest: u32) -> io::Result<Arc<Segment>> {
    let file = begin_segment(disk, id, len, revision, oldest)?;
    file.sync()?;
    name_segment(disk, id)?;
    Ok(Arc::new(Segment { id, file }))
}

fn begin_segment(disk: &dyn Disk, id: u32, len: u32, revision: u64, oldest: u32) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(UNFINISHED, u64::from(len))?;
    let mut begin = Vec::new();
    let value = u64::from(len).to_le_bytes();
    record::encode(&Record { value: &value, ..Record::mark(Kind::Begin, revision, u64::from(oldest), 0) }, id, 0, &mut begin);
    file.write_at(&begin, 0)?;
    Ok(file)
}

fn name_segment(disk: &dyn Disk, id: u32) -> io::Result<()> {
    disk.rename(UNFINISHED, &Segment::name(id))?;
    disk.sync_directory()
}

/// Where the first record after the beginning goes.
pub fn first_offset() -> u32 {
    record::padded(0, size_of::<u64>()) as u32
}

#[cfg(test)]
mod tests {
    use super::{
        super::{disk::Directory, form::Form},
        *,
    };

    #[test]
    fn zeros_are_written_ahead_of_the_records_and_never_over_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Directory::open(dir.path()).expect("a disk");
        let segment_bytes = (1 << 20) + 100; // no whole pages: whoever made it
        let mut log = Log::start(Arc::new(disk), segment_bytes).expect("a log");
        let value = vec![0x5A; 60_000];
        let mut revision = 0;
        while log.room() > 64_000 {
            revision += 1;
            let place = log.stage(Kind::Put, revision, revision, "/key", Stored { form: Form::Plain, bytes: &value });
            log.append().expect("appended");
            log.write_ahead();
            assert!(log.written >= log.end + AHEAD / 4 * 3 || log.written == segment_bytes, "{} behind {}", log.written, log.end);
            let mut bytes = vec![0; (segment_bytes - place.offset) as usize];
            place.segment.file.read_at(&mut bytes, u64::from(place.offset)).expect("read");
            let (own, behind) = bytes.split_at(place.len as usize);
            let found = record::read_alone(own, 1, place.offset);
            assert!(matches!(&found, record::Found::Record(found, _) if found.revision == revision && found.value == value), "{found:?}");
            assert!(behind.iter().all(|byte| *byte == 0));
        }
        assert!(revision > 10);
    }
}
