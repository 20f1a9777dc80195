//! Reads a whole segment and judges its end: clean, torn by a power cut, or damaged. Pure: bytes in, verdict out.

use super::record::{self, Found, Kind, Record};

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a seal: complete.
    Sealed,
    /// Nothing but zeros after the last record.
    Clean,
    /// The bytes up to this one are left over from a write that was never acknowledged. They must be overwritten with zeros.
    Torn(usize),
}

/// The verdict on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Where the next record would start.
    pub next: usize,
    /// How it ends.
    pub end: End,
}

/// Why a segment cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {what}")]
pub struct Damage {
    /// The first byte that cannot be read.
    pub offset: usize,
    /// What is wrong there.
    pub what: String,
}

/// Visits the records of `segment` with their place and the place after them, and judges the end.
pub fn scan<'a>(bytes: &'a [u8], segment: u32, mut visit: impl FnMut(usize, usize, &Record<'a>)) -> Result<Scanned, Damage> {
    let mut offset = 0;
    loop {
        match record::read(bytes, segment, offset) {
            Found::Record(found, next) => {
                check_begin(&found, offset, bytes.len())?;
                visit(offset, next, &found);
                offset = next;
                if found.kind == Kind::Seal {
                    return Ok(Scanned { next, end: End::Sealed });
                }
            }
            Found::Damaged(what) => return Err(Damage { offset, what: what.to_owned() }),
            Found::Blank | Found::Torn if offset == 0 => {
                return Err(Damage { offset, what: "the segment does not begin as one".to_owned() });
            }
            Found::Blank | Found::Torn => return Ok(Scanned { next: offset, end: judge(bytes, segment, offset)? }),
        }
    }
}

/// A segment begins with its length, so that a file that was cut short shows.
fn check_begin(found: &Record<'_>, offset: usize, len: usize) -> Result<(), Damage> {
    match (offset == 0, found.kind == Kind::Begin) {
        (false, false) => Ok(()),
        (true, true) if found.value == (len as u64).to_le_bytes() => Ok(()),
        (true, true) => Err(Damage { offset: len, what: "the file has been cut".to_owned() }),
        _ => Err(Damage { offset, what: "the segment does not begin as one".to_owned() }),
    }
}

/// What follows the last readable record. Everything before `synced` of any later record had been acknowledged, and is missing.
fn judge(bytes: &[u8], segment: u32, from: usize) -> Result<End, Damage> {
    const CHUNK: usize = 4096;
    let mut dirty = None;
    let mut offset = from;
    while offset < bytes.len() {
        let chunk = &bytes[offset..(offset - offset % CHUNK + CHUNK).min(bytes.len())];
        if record::is_blank(chunk) {
            offset += chunk.len();
            continue;
        }
        let slot = &bytes[offset..(offset + record::ALIGN).min(bytes.len())];
        if !record::is_blank(slot) {
            dirty = Some(offset + slot.len());
        }
        if let Found::Record(later, _) = record::read(bytes, segment, offset)
            && later.synced as usize > from
        {
            return Err(Damage {
                offset: from,
                what: format!("sectors are missing, and a record at byte {offset} was written after them"),
            });
        }
        offset += slot.len();
    }
    Ok(dirty.map_or(End::Clean, End::Torn))
}

#[cfg(test)]
mod tests;
