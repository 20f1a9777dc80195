//! Header blocks: names and values behind lengths, through one zlib stream a direction that begins with SPDY/3's dictionary.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes of a header block, uncompressed; kubectl's are some 200.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Adler-32 of the dictionary, by which both sides know that they have the same.
#[cfg(test)]
pub const DICTIONARY_ID: u32 = 0xe3c6_a7c2;

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// Words of the dictionary that stand behind their length.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The rest of the dictionary.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found\
500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3.
pub fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TEXT.as_bytes());
    out
}

/// Why a header block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// not compressed as SPDY/3 says
    #[error("the header block is not compressed as SPDY/3 says")]
    Compression,
    /// longer than 64 KiB
    #[error("the header block is longer than 64 KiB")]
    TooLong,
    /// lengths do not fit
    #[error("the lengths in the header block do not fit")]
    Malformed,
}

/// Writes header blocks of one direction.
#[derive(Debug)]
pub struct Encoder(Compress);

/// Reads header blocks of one direction.
#[derive(Debug)]
pub struct Decoder(Decompress);

impl Default for Decoder {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Encoder {
    /// Begins the stream.
    pub fn new() -> Result<Self, HeaderError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&dictionary()).map_err(|_| HeaderError::Compression)?;
        Ok(Self(compress))
    }

    /// The block of these headers.
    pub fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, HeaderError> {
        let mut plain = Vec::new();
        let length = |n: usize| u32::try_from(n).map_err(|_| HeaderError::TooLong);
        plain.extend_from_slice(&length(headers.len())?.to_be_bytes());
        for text in headers.iter().flat_map(|(n, v)| [n, v]) {
            plain.extend_from_slice(&length(text.len())?.to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        if plain.len() > BLOCK_BYTES {
            return Err(HeaderError::TooLong);
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let begin = self.0.total_in();
        loop {
            let used = usize::try_from(self.0.total_in() - begin).unwrap_or(plain.len());
            out.reserve(256);
            self.0.compress_vec(&plain[used..], &mut out, FlushCompress::Sync).map_err(|_| HeaderError::Compression)?;
            // Room left over means that the flush is complete.
            if out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

impl Decoder {
    /// The headers of a block. An error ends the connection: the stream of blocks is broken.
    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let mut plain = Vec::new();
        let mut used = 0;
        while used < block.len() || plain.len() == plain.capacity() {
            plain.reserve(4096);
            let before = (self.0.total_in(), plain.len());
            match self.0.decompress_vec(&block[used..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| HeaderError::Compression)?;
                    used += usize::try_from(self.0.total_in() - before.0).unwrap_or(0);
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
            }
            used += usize::try_from(self.0.total_in() - before.0).unwrap_or(0);
            if plain.len() > BLOCK_BYTES {
                return Err(HeaderError::TooLong);
            }
            if (self.0.total_in(), plain.len()) == before {
                break;
            }
        }
        parse(&plain)
    }
}

fn parse(plain: &[u8]) -> Result<Headers, HeaderError> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    // Every header has two lengths, so more than that cannot be.
    if count > plain.len() / 8 {
        return Err(HeaderError::Malformed);
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        out.push((name, text(&mut rest)?));
    }
    Ok(out)
}

fn number(rest: &mut &[u8]) -> Result<usize, HeaderError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| HeaderError::Malformed)
}

fn text(rest: &mut &[u8]) -> Result<String, HeaderError> {
    let length = number(rest)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(HeaderError::Malformed)?;
    *rest = after;
    String::from_utf8(bytes.to_vec()).map_err(|_| HeaderError::Malformed)
}
