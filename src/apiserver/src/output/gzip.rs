//! gzip for answers that are worth it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};

/// Smaller answers are sent as they are: compressing costs more than it saves. Upstream's bound.
pub const MIN_BYTES: usize = 128 << 10;

/// Whether the client takes gzip.
pub fn accepted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|clause| clause.split(';').next().is_some_and(|name| name.trim() == "gzip") && !clause.replace(' ', "").ends_with(";q=0"))
}

/// Compresses a sequence of chunks piece by piece.
#[derive(Debug)]
pub struct Chunks<I> {
    chunks: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I: Iterator<Item = Bytes>> Chunks<I> {
    /// At the level that upstream takes for speed.
    pub fn new(chunks: I) -> Self {
        Self { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Chunks<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            // Writing to a Vec does not fail.
            let finished = match self.chunks.next() {
                Some(chunk) => encoder.write_all(&chunk).is_err(),
                None => true,
            };
            if finished {
                return self.encoder.take()?.finish().ok().map(Bytes::from);
            }
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_compressed_can_be_read() {
        let chunks: Vec<Bytes> = (0..50u8).map(|i| Bytes::from(vec![i; 10_000])).collect();
        let packed: Vec<u8> = Chunks::new(chunks.clone().into_iter()).flatten().collect();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, chunks.concat());
        assert!(packed.len() < plain.len() / 10);
    }
}
