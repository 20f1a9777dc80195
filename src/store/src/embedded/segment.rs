//! A segment of the log, and places in it.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;

use super::{
    disk::DiskFile,
    form,
    record::{self, Found, Kind},
};
use crate::Entry;

/// One file of the log. Whoever holds it can read it, also after the log has dropped it.
#[derive(Debug)]
pub struct Segment {
    /// Segments are numbered from 1 without a gap.
    pub id: u32,
    /// Its bytes.
    pub file: Box<dyn DiskFile>,
}

impl Segment {
    /// The file's name.
    pub fn name(id: u32) -> String {
        format!("{id:010}.log")
    }

    /// The number in a file's name.
    pub fn id_of(name: &str) -> Option<u32> {
        let digits = name.strip_suffix(".log")?;
        (digits.len() == 10).then(|| digits.parse().ok()).flatten()
    }
}

/// Where a record lies.
#[derive(Clone)]
pub struct Place {
    /// In which segment.
    pub segment: Arc<Segment>,
    /// From which byte.
    pub offset: u32,
    /// How many bytes, padding included.
    pub len: u32,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}+{}", self.segment.id, self.offset, self.len)
    }
}

/// The state of a key that exists; its value is in the log.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Revision of the put that made it exist.
    pub created: u64,
    /// Revision of the last put.
    pub modified: u64,
    /// The record with the value.
    pub place: Place,
}

impl Slot {
    /// Reads the value, and takes nothing that is not what was written.
    pub fn load(&self, key: &Arc<str>) -> io::Result<Entry> {
        let Place { segment, offset, len } = &self.place;
        let mut bytes = vec![0; *len as usize];
        segment.file.read_at(&mut bytes, u64::from(*offset))?;
        let damaged = |what: &str| {
            let what = format!("segment {}, byte {offset}: the record of {key} cannot be read: {what}", segment.id);
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let (form, value) = match record::read_alone(&bytes, segment.id, *offset) {
            Found::Record(found, _)
                if found.key == &**key && found.revision == self.modified && matches!(found.kind, Kind::Put | Kind::Keep) =>
            {
                (found.form, record::value_range(found.key.len(), found.value.len()))
            }
            Found::Record(..) => return Err(damaged("another record is there")),
            Found::Blank | Found::Torn => return Err(damaged("sectors are blank")),
            Found::Damaged(what) => return Err(damaged(what)),
        };
        let value = form::unpack(form, Bytes::from(bytes).slice(value)).map_err(damaged)?;
        Ok(Entry { key: key.clone(), value, created: self.created, modified: self.modified })
    }
}
