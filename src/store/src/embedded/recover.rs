//! Opening the log: which segments there are, what they say, where writing goes on.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use super::{
    disk::Disk,
    index::{Position, Summary},
    log,
    record::{Kind, Record},
    scan::{self, End, Scanned},
    segment::{Place, Segment, Slot},
};
use crate::OpenError;

/// Newest bytes of the log whose checksums are verified at every start (half a second from a warm disk). What the index already knows
/// and is older is verified when it is read.
const VERIFIED_BYTES: u64 = 512 << 20;

/// What the log says.
#[derive(Debug)]
pub struct Recovered {
    /// All segments.
    pub segments: BTreeMap<u32, Arc<Segment>>,
    /// The last one.
    pub tail: Arc<Segment>,
    /// Bytes of the others.
    pub sealed_bytes: u64,
    /// The last one's length.
    pub tail_len: u32,
    /// Where the next record goes in the last one.
    pub end: u32,
    /// The newest revision.
    pub revision: u64,
    /// Whether the last thing that happened was a close in order.
    pub clean: bool,
    /// States of the keys that changed since the index was applied; `None` is deleted.
    pub changes: BTreeMap<Arc<str>, Option<Slot>>,
}

impl Recovered {
    /// What there is before the first write. It counts as closed in order: so the first write is synced, lazy or not.
    pub fn nothing(tail: Arc<Segment>) -> Self {
        let segments = BTreeMap::from([(tail.id, tail.clone())]);
        let (tail_len, end) = (0, log::first_offset());
        Recovered { segments, tail, sealed_bytes: 0, tail_len, end, revision: 0, clean: true, changes: BTreeMap::new() }
    }
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    from: Position,
    buffer: Vec<u8>,
    oldest: u32,
    recovered: Recovered,
}

/// Whether there is a log.
pub fn exists(disk: &dyn Disk) -> Result<bool, OpenError> {
    Ok(!segment_ids(disk)?.is_empty())
}

/// The first segment's number; 0 if there is none.
pub fn first(disk: &dyn Disk) -> Result<u32, OpenError> {
    Ok(segment_ids(disk)?.first().copied().unwrap_or(0))
}

/// Reads the log; `index` is how far the index has come.
pub fn recover(disk: &dyn Disk, index: Summary) -> Result<Recovered, OpenError> {
    let ids = segment_ids(disk)?;
    let mut files = Vec::new();
    for id in &ids {
        let name = Segment::name(*id);
        let file = disk.open(&name).map_err(|source| failed(disk, &name, "the segment cannot be opened", source))?;
        let len = file.len().map_err(|source| failed(disk, &name, "the segment cannot be measured", source))?;
        files.push((Arc::new(Segment { id: *id, file }), len));
    }
    let Some((tail, _)) = files.last().cloned() else { return Err(missing(disk, 1)) };
    let (segments, changes) = (BTreeMap::new(), BTreeMap::new());
    let recovered = Recovered { segments, tail, sealed_bytes: 0, tail_len: 0, end: 0, revision: index.revision, clean: false, changes };
    let mut reading = Reading { disk, from: index.applied, buffer: Vec::new(), oldest: 0, recovered };
    let mut beyond: u64 = files.iter().map(|(_, len)| len).sum();
    let mut ended = false;
    for (at, (segment, len)) in files.iter().enumerate() {
        let expected = files[0].0.id + at as u32;
        if segment.id != expected {
            return Err(missing(disk, expected));
        }
        beyond -= len;
        if ended {
            reading.unused(segment, *len)?;
        } else if segment.id < index.applied.0 && beyond > VERIFIED_BYTES {
            reading.recovered.segments.insert(segment.id, segment.clone());
            reading.recovered.sealed_bytes += len;
        } else {
            let scanned = reading.segment(segment, *len)?;
            ended = scanned.end != End::Sealed;
        }
    }
    reading.finish(&ids, ended, index)
}

impl Reading<'_> {
    fn load(&mut self, segment: &Segment, len: u64) -> Result<(), OpenError> {
        let name = Segment::name(segment.id);
        self.buffer.resize(len as usize, 0);
        segment.file.read_at(&mut self.buffer, 0).map_err(|source| failed(self.disk, &name, "the segment cannot be read", source))
    }

    fn segment(&mut self, segment: &Arc<Segment>, len: u64) -> Result<Scanned, OpenError> {
        self.load(segment, len)?;
        let (from, oldest, recovered) = (self.from, &mut self.oldest, &mut self.recovered);
        let visit = |offset: usize, next: usize, record: &Record<'_>| {
            recovered.revision = recovered.revision.max(record.revision);
            recovered.clean = record.kind == Kind::Close;
            if matches!(record.kind, Kind::Begin | Kind::Drop) {
                *oldest = (*oldest).max(record.created as u32);
            }
            if (segment.id, offset as u32) >= from {
                let place = Place { segment: segment.clone(), offset: offset as u32, len: (next - offset) as u32 };
                take_in(&mut recovered.changes, record, place);
            }
        };
        let scanned = scan::scan(&self.buffer, segment.id, visit).map_err(|damage| damaged(self.disk, segment.id, &damage))?;
        if let End::Torn(until) = scanned.end {
            self.wipe(segment, scanned.next, until)?;
        }
        self.recovered.segments.insert(segment.id, segment.clone());
        self.recovered.tail = segment.clone();
        self.recovered.sealed_bytes += if scanned.end == End::Sealed { len } else { 0 };
        (self.recovered.tail_len, self.recovered.end) = (len as u32, scanned.next as u32);
        Ok(scanned)
    }

    /// Takes a torn write off the disk, so that its remains cannot be taken for records later.
    fn wipe(&self, segment: &Segment, from: usize, until: usize) -> Result<(), OpenError> {
        tracing::info!(segment = segment.id, from, until, "cut a torn write that was never acknowledged");
        let wiped = segment.file.write_at(&vec![0; until - from], from as u64).and_then(|()| segment.file.sync());
        wiped.map_err(|source| failed(self.disk, &Segment::name(segment.id), "a torn write cannot be wiped", source))
    }

    /// A segment after one without a seal was made just before the end; there can be nothing in it.
    fn unused(&mut self, segment: &Segment, len: u64) -> Result<(), OpenError> {
        self.load(segment, len)?;
        let scanned = scan::scan(&self.buffer, segment.id, |_, _, _| {}).map_err(|damage| damaged(self.disk, segment.id, &damage))?;
        if scanned.next as u32 != log::first_offset() || scanned.end != End::Clean {
            let (id, end) = (self.recovered.tail.id, self.recovered.end);
            let what = "the segment is not complete, and another follows".to_owned();
            return Err(damaged(self.disk, id, &scan::Damage { offset: end as usize, what }));
        }
        self.remove(segment.id)
    }

    fn remove(&self, id: u32) -> Result<(), OpenError> {
        let name = Segment::name(id);
        let removed = self.disk.remove(&name).and_then(|()| self.disk.sync_directory());
        removed.map_err(|source| failed(self.disk, &name, "a segment that is no longer used cannot be removed", source))
    }

    fn finish(mut self, ids: &[u32], ended: bool, index: Summary) -> Result<Recovered, OpenError> {
        let (first, last) = (ids[0], ids[ids.len() - 1]);
        if !ended {
            return Err(missing(self.disk, last + 1));
        }
        if first > self.oldest {
            return Err(missing(self.disk, self.oldest));
        }
        for id in first..self.oldest {
            if self.recovered.segments.remove(&id).is_some() {
                self.recovered.sealed_bytes = self.recovered.sealed_bytes.saturating_sub(u64::from(self.recovered.tail_len));
            }
            self.remove(id)?;
        }
        let tail = self.recovered.tail.id;
        if index.applied > (tail, self.recovered.end) {
            let what = format!(
                "the log ends here, but the index beside it has seen revision {} further on; if an older log was put here on purpose, remove the index",
                index.revision
            );
            return Err(damaged(self.disk, tail, &scan::Damage { offset: self.recovered.end as usize, what }));
        }
        Ok(self.recovered)
    }
}

/// Folds a record into the states of the keys: the last one in the log's order counts.
fn take_in(changes: &mut BTreeMap<Arc<str>, Option<Slot>>, record: &Record<'_>, place: Place) {
    let state = match record.kind {
        Kind::Put | Kind::Keep => Some(Slot { created: record.created, modified: record.revision, place }),
        Kind::Delete => None,
        Kind::Resume | Kind::Close | Kind::Seal | Kind::Drop | Kind::Begin => return,
    };
    match changes.get_mut(record.key) {
        Some(old) => *old = state,
        None => drop(changes.insert(Arc::from(record.key), state)),
    }
}

fn segment_ids(disk: &dyn Disk) -> Result<Vec<u32>, OpenError> {
    let names = disk.list().map_err(|source| failed(disk, "", "the directory cannot be read", source))?;
    let mut ids: Vec<u32> = names.iter().filter_map(|name| Segment::id_of(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

fn failed(disk: &dyn Disk, name: &str, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: disk.path(name), what, source }
}

fn missing(disk: &dyn Disk, id: u32) -> OpenError {
    OpenError::Damaged { path: disk.path(&Segment::name(id)), offset: 0, what: "the segment is missing".to_owned() }
}

fn damaged(disk: &dyn Disk, id: u32, damage: &scan::Damage) -> OpenError {
    let path: PathBuf = disk.path(&Segment::name(id));
    OpenError::Damaged { path, offset: damage.offset as u64, what: damage.what.clone() }
}
