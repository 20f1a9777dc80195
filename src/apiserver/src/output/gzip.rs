//! gzip for answers that are worth it: a list's items are compressed on their own, so that they can be sent again under another head.

use std::{io::Write as _, sync::Arc};

use bytes::Bytes;
use flate2::{
    Compression, Crc,
    write::{DeflateEncoder, GzEncoder},
};
use http::{HeaderMap, HeaderValue, Response, header};

use super::packed::Record;
use crate::body::{Body, full};

/// Smaller answers are sent as they are: compressing costs more than it saves. Upstream's bound.
pub const MIN_BYTES: usize = 128 << 10;
/// RFC 1952: deflate, no name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Whether the client takes gzip.
pub fn accepted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|clause| clause.split(';').next().is_some_and(|name| name.trim() == "gzip") && !clause.replace(' ', "").ends_with(";q=0"))
}

/// A document that is there as a whole, compressed if that is worth it and the client takes it.
pub fn whole(headers: &HeaderMap, mut answer: Response<Body>, document: Bytes) -> Response<Body> {
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if document.len() < MIN_BYTES || !accepted(headers) {
        *answer.body_mut() = full(document);
        return answer;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a Vec does not fail.
    let _ = encoder.write_all(&document);
    *answer.body_mut() = full(encoder.finish().unwrap_or_default());
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

/// Part of a deflate stream, or what it was made of.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Compressed bytes.
    Deflated(Bytes),
    /// The end: the checksum and the size of what was compressed.
    End(Arc<Crc>),
}

/// At the level that upstream takes for speed.
fn encoder() -> DeflateEncoder<Vec<u8>> {
    DeflateEncoder::new(Vec::new(), Compression::fast())
}

/// Compresses a sequence of chunks piece by piece, up to the end of the deflate stream.
#[derive(Debug)]
pub struct Items<I> {
    chunks: I,
    encoder: Option<DeflateEncoder<Vec<u8>>>,
    crc: Option<Crc>,
    record: Record,
}

impl<I: Iterator<Item = Bytes>> Items<I> {
    /// `record` gets all of it, once it is complete.
    pub fn new(chunks: I, record: Record) -> Self {
        Self { chunks, encoder: Some(encoder()), crc: Some(Crc::new()), record }
    }

    fn piece(&mut self) -> Option<Piece> {
        let (Some(encoder), Some(crc)) = (&mut self.encoder, &mut self.crc) else {
            return Some(Piece::End(Arc::new(self.crc.take()?)));
        };
        // Writing to a Vec does not fail.
        for chunk in &mut self.chunks {
            crc.update(&chunk);
            let _ = encoder.write_all(&chunk);
            if !encoder.get_ref().is_empty() {
                return Some(Piece::Deflated(std::mem::take(encoder.get_mut()).into()));
            }
        }
        let rest = self.encoder.take()?.finish().unwrap_or_default();
        Some(Piece::Deflated(rest.into()))
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Items<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let piece = self.piece()?;
        self.record.add(&piece);
        Some(piece)
    }
}

/// A gzip stream of a head and of items that are compressed already, or will be.
#[derive(Debug)]
pub struct Stream<I> {
    head: Option<Bytes>,
    crc: Crc,
    items: I,
}

impl<I: Iterator<Item = Piece>> Stream<I> {
    /// Begins with `head`, which is compressed here.
    pub fn new(head: &[u8], items: I) -> Self {
        let mut crc = Crc::new();
        crc.update(head);
        let mut encoder = encoder();
        let mut begun = HEADER.to_vec();
        // Flushed, not finished: it ends at a whole byte, and the items' blocks follow.
        if encoder.write_all(head).and_then(|()| encoder.flush()).is_ok() {
            begun.extend_from_slice(encoder.get_ref());
        }
        Self { head: Some(begun.into()), crc, items }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for Stream<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        Some(match self.items.next()? {
            Piece::Deflated(bytes) => bytes,
            Piece::End(crc) => {
                self.crc.combine(&crc);
                [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat().into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn a_document_is_compressed_for_who_takes_it_and_where_it_is_worth_it() {
        use http_body_util::BodyExt as _;
        let large = Bytes::from("all the same ".repeat(MIN_BYTES / 10));
        for (accepts, document, compressed) in [
            ("gzip", large.clone(), true),
            ("br;q=1, gzip;q=0.5", large.clone(), true),
            ("gzip;q=0", large.clone(), false),
            ("identity", large.clone(), false),
            ("gzip", large.slice(..1000), false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accepts))]);
            let answer = whole(&headers, Response::new(full("")), document.clone());
            assert_eq!(answer.headers().contains_key(header::CONTENT_ENCODING), compressed, "{accepts}");
            assert_eq!(answer.headers()[header::VARY], "Accept-Encoding", "{accepts}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len() < document.len(), compressed, "{accepts}");
            let mut plain = Vec::new();
            match compressed {
                true => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap()),
                false => plain.extend_from_slice(&body),
            }
            assert!(plain == document, "{accepts}: what was compressed is the document");
        }
    }

    #[test]
    fn what_is_compressed_can_be_read_also_under_another_head() {
        let chunks: Vec<Bytes> = (0..50u8).map(|i| Bytes::from(vec![i; 10_000])).collect();
        let pieces: Vec<Piece> = Items::new(chunks.clone().into_iter(), Record::default()).collect();
        for head in ["{\"resourceVersion\":\"1\"}", "{\"resourceVersion\":\"22\"}", ""] {
            let packed: Vec<u8> = Stream::new(head.as_bytes(), pieces.clone().into_iter()).flatten().collect();
            let mut plain = Vec::new();
            // Checks the sum and the size at the end.
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, [head.as_bytes(), &chunks.concat()].concat());
            assert!(packed.len() < plain.len() / 10);
        }
    }
}
