//! Tests of the judgement on a segment's end.

use super::*;
use crate::embedded::form::Form;

const LEN: usize = 16 << 10;

/// A segment with `batches` of records of about 700 bytes; each batch knows that the one before was synced. Also the end of each batch.
fn segment(batches: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let len = (LEN as u64).to_le_bytes();
    record::encode(&Record { value: &len, ..Record::mark(Kind::Begin, 0, 1, 0) }, 1, 0, &mut bytes);
    let mut ends = vec![bytes.len()];
    let mut revision = 0;
    for size in batches {
        let synced = bytes.len() as u32;
        for _ in 0..*size {
            revision += 1;
            let offset = bytes.len() as u32;
            let value = [b'a' + revision as u8; 600];
            record::encode(
                &Record { kind: Kind::Put, revision, created: revision, synced, key: "/registry/pods/a", form: Form::Plain, value: &value },
                1,
                offset,
                &mut bytes,
            );
        }
        ends.push(bytes.len());
    }
    bytes.resize(LEN, 0);
    (bytes, ends)
}

fn revisions(bytes: &[u8]) -> (Vec<u64>, Result<Scanned, Damage>) {
    let mut seen = Vec::new();
    let verdict = scan(bytes, 1, |_, _, record| {
        if record.kind == Kind::Put {
            seen.push(record.revision);
        }
    });
    (seen, verdict)
}

#[test]
fn a_whole_segment_ends_clean() {
    let (bytes, ends) = segment(&[1, 3, 2]);
    assert_eq!(revisions(&bytes), (vec![1, 2, 3, 4, 5, 6], Ok(Scanned { next: ends[3], end: End::Clean })));
}

#[test]
fn a_flip_of_any_byte_of_the_last_records_is_damage_or_harmless() {
    let (bytes, ends) = segment(&[1, 3, 2]);
    for at in ends[1]..ends[3] {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let (seen, verdict) = revisions(&bad);
        assert!(verdict.is_err() || seen.len() == 6, "byte {at}: {verdict:?}");
    }
}

#[test]
fn a_cut_at_any_byte_is_damage() {
    let (bytes, ends) = segment(&[1, 3, 2]);
    for at in (0..ends[3]).rev().chain([ends[3], LEN - 1]) {
        assert!(revisions(&bytes[..at]).1.is_err(), "cut at byte {at}");
    }
}

#[test]
fn any_sectors_missing_from_the_last_batch_are_a_tear_that_takes_nothing_older() {
    let (bytes, ends) = segment(&[2, 3]);
    let sectors: Vec<usize> = (ends[1] / 512..=ends[2] / 512).collect();
    for mask in 1u32..1 << sectors.len() {
        let mut torn = bytes.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            let from = (sector * 512).max(ends[1]);
            if mask & 1 << bit != 0 {
                torn[from..((sector + 1) * 512).max(from)].fill(0);
            }
        }
        let (seen, verdict) = revisions(&torn);
        assert!(verdict.is_ok(), "sectors {mask:b}: {verdict:?}");
        assert!(seen.starts_with(&[1, 2]) && seen.iter().eq([1, 2, 3, 4, 5][..seen.len()].iter()), "sectors {mask:b}: {seen:?}");
    }
}

#[test]
fn a_missing_sector_before_the_last_batch_is_damage() {
    let (bytes, ends) = segment(&[2, 3, 1]);
    for sector in ends[1].div_ceil(512)..ends[2] / 512 {
        let mut bad = bytes.clone();
        bad[sector * 512..(sector + 1) * 512].fill(0);
        assert!(revisions(&bad).1.is_err(), "sector {sector}");
    }
}

#[test]
fn a_seal_ends_the_segment() {
    let (mut bytes, ends) = segment(&[1]);
    let mut seal = Vec::new();
    record::encode(&Record::mark(Kind::Seal, 1, 0, ends[1] as u32), 1, ends[1] as u32, &mut seal);
    bytes[ends[1]..ends[1] + seal.len()].copy_from_slice(&seal);
    assert_eq!(revisions(&bytes), (vec![1], Ok(Scanned { next: ends[1] + seal.len(), end: End::Sealed })));
}
