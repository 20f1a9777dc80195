//! Takes the authority out of requests that come over a unix socket, where it means nothing.
//!
//! Programs in Go that dial a path name that path, `%2Frun%2Fx.sock`, as the authority: the usual way for device plugins. It is no authority
//! that a URI may have, so the HTTP library ends the request as malformed. Here every authority becomes `localhost` before it is read. The
//! client is told to keep no table of headers (`TABLE_BYTES`), so that a header block can be changed without knowing those before it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of the client's table of headers.
pub(super) const TABLE_BYTES: u32 = 0;
/// What HTTP/2 begins with.
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream.
const HEAD_BYTES: usize = 9;
/// The longest frame that is allowed to a client who was told of no other length.
const FRAME_BYTES: usize = 16 << 10;
/// Read at a time.
const CHUNK_BYTES: usize = 4 << 10;

const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Where `:authority` is in the table that every client has.
const AUTHORITY: usize = 1;
const INSTEAD: &[u8] = b"localhost";

/// A server's side of a connection.
#[derive(Debug)]
pub(super) struct Local<S> {
    inner: S,
    /// As it came.
    raw: BytesMut,
    /// To be read.
    ready: BytesMut,
    /// Bytes that follow and are passed on as they are.
    pass: usize,
}

impl<S> Local<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, raw: BytesMut::new(), ready: BytesMut::new(), pass: PREFACE_BYTES }
    }

    /// Moves what is complete on.
    fn sort(&mut self) {
        loop {
            let now = self.pass.min(self.raw.len());
            self.ready.extend_from_slice(&self.raw[..now]);
            self.raw.advance(now);
            self.pass -= now;
            let Some(head) = self.raw.first_chunk::<HEAD_BYTES>().copied() else { return };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            // What is longer than allowed is for the library to refuse.
            if kind != HEADERS || length > FRAME_BYTES {
                self.pass = HEAD_BYTES + length;
                continue;
            }
            let Some(payload) = self.raw.get(HEAD_BYTES..HEAD_BYTES + length) else { return };
            match rewritten(payload, flags) {
                Some(payload) => {
                    let new = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
                    self.ready.extend_from_slice(&new[1..]);
                    self.ready.extend_from_slice(&head[3..]);
                    self.ready.extend_from_slice(&payload);
                    self.raw.advance(HEAD_BYTES + length);
                }
                None => self.pass = HEAD_BYTES + length,
            }
        }
    }
}

/// A HEADERS frame's payload with another authority; `None` where it is not as it should be, which the library will say.
fn rewritten(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let (mut start, mut padding) = (0, 0);
    if flags & PADDED != 0 {
        padding = usize::from(*payload.first()?);
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let end = payload.len().checked_sub(padding)?;
    let mut block = payload.get(start..end)?;
    let mut out = Vec::with_capacity(payload.len() + INSTEAD.len());
    out.extend_from_slice(&payload[..start]);
    while let Some(first) = block.first() {
        // An index; a change of the table's size; a literal that is kept, is not, or never is.
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (number, mut used) = integer(block, bits)?;
        if literal {
            let named = if number == 0 { Some(string(block.get(used..)?)?) } else { None };
            used += named.map_or(0, <[u8]>::len);
            let value = string(block.get(used..)?)?;
            if number == AUTHORITY || named.is_some_and(|name| name == b"\x0a:authority") {
                out.extend_from_slice(&block[..used]);
                out.push(INSTEAD.len() as u8);
                out.extend_from_slice(INSTEAD);
                block = &block[used + value.len()..];
                continue;
            }
            used += value.len();
        }
        out.extend_from_slice(&block[..used]);
        block = &block[used..];
    }
    out.extend_from_slice(&payload[end..]);
    Some(out)
}

/// A number in the last so many bits of the first byte, and in those after it; and how many bytes that took (RFC 7541, 5.1).
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*bytes.first()?) & most;
    if value < most {
        return Some((value, 1));
    }
    for (at, byte) in bytes.iter().enumerate().skip(1).take(4) {
        value += usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// A string with its length before it, as it stands (RFC 7541, 5.2).
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, used) = integer(bytes, 7)?;
    bytes.get(..used.checked_add(length)?)
}

impl<S: AsyncRead + Unpin> AsyncRead for Local<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.ready.is_empty() {
            let this = &mut *self;
            let mut chunk = [0; CHUNK_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // What is cut is cut.
                let rest = this.raw.split();
                this.ready.extend_from_slice(&rest);
                break;
            }
            this.raw.extend_from_slice(read.filled());
            this.sort();
        }
        let now = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready[..now]);
        self.ready.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Local<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        out.extend_from_slice(payload);
        out
    }

    /// POST, http, a path, an authority, a header of its own.
    fn block(authority: &[u8]) -> Vec<u8> {
        [b"\x83\x86\x44\x04/a/b\x41".as_slice(), &[authority.len() as u8], authority, b"\x40\x01x\x81\x0f\x0f\x00\x01y"].concat()
    }

    fn through(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut local = Local::new(());
        let mut at = 0;
        for cut in cuts.iter().chain([&bytes.len()]) {
            let next = (*cut).clamp(at, bytes.len());
            local.raw.extend_from_slice(&bytes[at..next]);
            local.sort();
            at = next;
        }
        let mut out = local.ready.to_vec();
        out.extend_from_slice(&local.raw);
        out
    }

    #[test]
    fn an_authority_is_replaced_wherever_it_stands() {
        let with = |payload: &[u8], flags| [PREFACE, &frame(4, 0, &[]), &frame(HEADERS, flags, payload), &frame(0, 1, b"data")].concat();
        let path = b"%2Frun%2Fkubelet.sock";
        assert_eq!(through(&with(&block(path), 4), &[]), with(&block(INSTEAD), 4));
        let padded = |authority: &[u8]| [&[3, 0, 0, 0, 0, 9][..], &block(authority), &[0, 0, 0]].concat();
        assert_eq!(through(&with(&padded(path), 0x2c), &[]), with(&padded(INSTEAD), 0x2c));
        let named = |authority: &[u8]| [b"\x00\x0a:authority".as_slice(), &[authority.len() as u8], authority].concat();
        assert_eq!(through(&with(&named(path), 4), &[]), with(&named(INSTEAD), 4));
        // What is malformed is left for the library to judge.
        for bad in [&b"\x41"[..], b"\x41\x05abc", b"\xff\xff\xff\xff\xff\xff", b"\x41\x7f\xff\xff\xff\xff\x7f"] {
            assert_eq!(through(&with(bad, 4), &[]), with(bad, 4));
        }
        let cut = &with(&block(path), 4)[..40];
        assert_eq!(through(cut, &[]), cut);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_it_comes(cuts in prop::collection::vec(0..160usize, 0..12), tail in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let bytes = [PREFACE, &frame(4, 0, &[0, 1, 0, 0, 16, 0]), &frame(HEADERS, 4, &block(b"%2Fx")), &frame(0, 0, b"abc"), &tail].concat();
            prop_assert_eq!(through(&bytes, &cuts), through(&bytes, &[]));
        }
    }
}
