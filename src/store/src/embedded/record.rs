//! The records of the log: how they lie on the disk, and how a torn one is told from a damaged one.
//!
//! A record starts at a multiple of 32, so its 32-byte header lies in one 512-byte sector, which a disk writes whole or not at all. The header
//! has a checksum of its own (seeded with the record's place, so that a misplaced record is not one), which makes its lengths trustworthy; the
//! body has another. After the body come 1 to 32 bytes of padding that are not zero. A fresh segment reads as zeros. So a power cut leaves
//! sectors of zeros in a record, and a changed byte does not: see [`read`].
//!
//! Every record carries `synced`: up to which byte of its segment fdatasync had returned when it was written. A readable record after
//! an unreadable place proves by it whether that place had been acknowledged.

use std::ops::Range;

use super::form::{Form, Stored};

/// Records start at multiples of this, which divides [`SECTOR`].
pub const ALIGN: usize = 32;
/// Length of a record's header.
pub const HEADER: usize = 32;
/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// Bytes of the body before the key.
const CREATED: usize = 8;
/// Padding; not zero, so that the last sector of a record is never all zeros.
const PAD: u8 = 0xA5;
/// Longest key in bytes. A Kubernetes key has two names of at most 253 bytes, a group and a resource.
pub const MAX_KEY_BYTES: usize = 4096;
/// Largest value in bytes. The API server's bound for a body is 3 MiB; the stored form may grow by defaults.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value from this revision on.
    Put = 1,
    /// The key is gone from this revision on.
    Delete = 2,
    /// The key's present state, written again so that an old segment can go.
    Keep = 3,
    /// Revisions go on from this one: an unclean end may have lost lazily written ones that readers had seen.
    Resume = 4,
    /// The store was closed in order; nothing was lost.
    Close = 5,
    /// The segment is complete, the next one follows.
    Seal = 6,
    /// Segments before `created` hold nothing that lives.
    Drop = 7,
    /// First record of a segment: the revision it starts after, and in `created` the oldest segment of that time.
    Begin = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Delete,
            3 => Self::Keep,
            4 => Self::Resume,
            5 => Self::Close,
            6 => Self::Seal,
            7 => Self::Drop,
            8 => Self::Begin,
            _ => return None,
        })
    }
}

/// A record, borrowed from the bytes of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// Its revision; for a `Keep`, that of the key's last put.
    pub revision: u64,
    /// Revision of the put that made the key exist; another number for the kinds without a key.
    pub created: u64,
    /// Up to where the segment was synced when this was written.
    pub synced: u32,
    /// The key; empty for the kinds without one.
    pub key: &'a str,
    /// How to read the value.
    pub form: Form,
    /// The value; empty for all but `Put` and `Keep`.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record without key and value.
    pub fn mark(kind: Kind, revision: u64, created: u64, synced: u32) -> Self {
        Record { kind, revision, created, synced, key: "", form: Form::Plain, value: &[] }
    }

    /// Its value, to be written elsewhere as it is.
    pub fn stored(&self) -> Stored<'a> {
        Stored { form: self.form, bytes: self.value }
    }
}

/// Bytes from the start of a record to the start of the next.
pub fn padded(key: usize, value: usize) -> usize {
    (HEADER + CREATED + key + value + 1).next_multiple_of(ALIGN)
}

/// Bytes of a record without key and value.
pub const MARK_BYTES: usize = (HEADER + CREATED + 1).next_multiple_of(ALIGN);

/// Where the value lies in a record that starts at 0.
pub fn value_range(key: usize, value: usize) -> Range<usize> {
    let start = HEADER + CREATED + key;
    start..start + value
}

/// How long the record is whose header `bytes` begin with, if that is one; nothing of it is checked.
pub fn length(bytes: &[u8]) -> usize {
    bytes.get(..HEADER).map_or(0, |header| padded(usize::from(u16::from_le_bytes([header[10], header[11]])), number32(header, 12) as usize))
}

fn header_sum(header: &[u8], segment: u32, offset: u32) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&segment.to_le_bytes());
    sum.update(&offset.to_le_bytes());
    sum.update(header);
    sum.finalize()
}

/// Appends `record` to `out`, to be written at `offset` of `segment`.
pub fn encode(record: &Record<'_>, segment: u32, offset: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let mut body = crc32fast::Hasher::new();
    body.update(&record.created.to_le_bytes());
    body.update(record.key.as_bytes());
    body.update(record.value);
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&body.finalize().to_le_bytes());
    header[8] = record.kind as u8;
    header[9] = record.form as u8;
    header[10..12].copy_from_slice(&(record.key.len() as u16).to_le_bytes());
    header[12..16].copy_from_slice(&(record.value.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&record.revision.to_le_bytes());
    header[24..28].copy_from_slice(&record.synced.to_le_bytes());
    let sum = header_sum(&header[4..], segment, offset);
    header[0..4].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&record.created.to_le_bytes());
    out.extend_from_slice(record.key.as_bytes());
    out.extend_from_slice(record.value);
    out.resize(start + padded(record.key.len(), record.value.len()), PAD);
}

/// What lies at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A whole record, and where the next one starts.
    Record(Record<'a>, usize),
    /// Nothing was ever written here, or the sector with the header did not reach the disk.
    Blank,
    /// A record whose sectors did not all reach the disk.
    Torn,
    /// All sectors are there and the bytes are not those that were written.
    Damaged(&'static str),
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Reads what lies at `offset` of `segment`, whose whole content is `bytes`.
pub fn read(bytes: &[u8], segment: u32, offset: usize) -> Found<'_> {
    match bytes.get(offset..) {
        Some(from) => read_alone(from, segment, offset as u32),
        None => Found::Blank,
    }
}

/// Reads the record that `bytes` starts with and that lies at `offset` of `segment`.
pub fn read_alone(bytes: &[u8], segment: u32, offset: u32) -> Found<'_> {
    let Some(header) = bytes.get(..HEADER) else {
        return Found::Blank; // the segment is full
    };
    if is_blank(header) {
        return Found::Blank;
    }
    if number32(header, 0) != header_sum(&header[4..], segment, offset) {
        return Found::Damaged("the header's checksum is wrong");
    }
    let Some(kind) = Kind::from_byte(header[8]) else {
        return Found::Damaged("a kind of record that this version does not know");
    };
    let Some(form) = Form::from_byte(header[9]) else {
        return Found::Damaged("a value in a form that this version does not know");
    };
    let (key_len, value_len) = (usize::from(u16::from_le_bytes([header[10], header[11]])), number32(header, 12) as usize);
    let len = padded(key_len, value_len);
    let Some(whole) = bytes.get(..len) else {
        return Found::Damaged("the record goes beyond the end of the file");
    };
    let body = &whole[HEADER..HEADER + CREATED + key_len + value_len];
    if crc32fast::hash(body) != number32(header, 4) {
        return if lacks_a_sector(whole, offset as usize) { Found::Torn } else { Found::Damaged("the body's checksum is wrong") };
    }
    let Ok(key) = std::str::from_utf8(&body[CREATED..CREATED + key_len]) else {
        return Found::Damaged("the key is not UTF-8");
    };
    let record = Record {
        kind,
        revision: number64(header, 16),
        created: number64(body, 0),
        synced: number32(header, 24),
        key,
        form,
        value: &body[CREATED + key_len..],
    };
    Found::Record(record, offset as usize + len)
}

/// Whether one of the sectors that `record` lies in shows only zeros where the record is.
fn lacks_a_sector(record: &[u8], offset: usize) -> bool {
    let first = (SECTOR - offset % SECTOR).min(record.len());
    let (head, rest) = record.split_at(first);
    is_blank(head) || rest.chunks(SECTOR).any(is_blank)
}

/// Whether all bytes are zero.
pub fn is_blank(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(key: &str, value: &[u8], offset: usize) -> Vec<u8> {
        let mut bytes = vec![0; offset];
        encode(&Record { kind: Kind::Put, revision: 7, created: 3, synced: 64, key, form: Form::Lz4, value }, 9, offset as u32, &mut bytes);
        bytes
    }

    #[test]
    fn every_flipped_byte_is_damage_and_never_a_tear() {
        let bytes = encoded("/registry/pods/default/web", &[b'x'; 1200], 480);
        for at in 480..480 + HEADER + CREATED + 26 + 1200 {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(matches!(read(&bad, 9, 480), Found::Damaged(_)), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_missing_sector_is_a_tear() {
        let bytes = encoded("/registry/pods/default/web", &[b'x'; 2000], 480);
        let len = bytes.len();
        for sector in 1..len.div_ceil(SECTOR) {
            let mut bad = bytes.clone();
            bad[sector * SECTOR..((sector + 1) * SECTOR).min(len)].fill(0);
            assert_eq!(read(&bad, 9, 480), Found::Torn, "sector {sector}");
        }
    }

    #[test]
    fn a_record_at_another_place_or_of_another_segment_is_none() {
        let bytes = encoded("k", b"v", 0);
        assert!(matches!(read(&bytes, 8, 0), Found::Damaged(_)));
        let moved = [vec![0; 32], bytes].concat();
        assert!(matches!(read(&moved, 9, 32), Found::Damaged(_)));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(key in "[a-z/]{0,300}", value in proptest::collection::vec(any::<u8>(), 0..3000), slot in 0usize..40) {
            let offset = slot * ALIGN;
            let bytes = encoded(&key, &value, offset);
            prop_assert_eq!(bytes.len() % ALIGN, 0);
            let expected = Record { kind: Kind::Put, revision: 7, created: 3, synced: 64, key: &key, form: Form::Lz4, value: &value };
            prop_assert_eq!(read(&bytes, 9, offset), Found::Record(expected, bytes.len()));
            prop_assert_eq!(&bytes[offset..][value_range(key.len(), value.len())], &value[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0usize..8) {
            let _ = read(&bytes, 1, offset * ALIGN);
        }
    }
}
