//! Frames of SPDY/3.1 as values: bytes to frames and back, without headers' compression.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes of one frame's payload; what kubectl sends is 32 KiB at most.
pub const PAYLOAD_BYTES: usize = 4 << 20;
const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
/// Flag: nothing more comes from this side on the stream.
pub const FIN: u8 = 1;

/// A frame. Header blocks are still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Odd from clients.
        stream: u32,
        /// FIN at once.
        fin: bool,
        /// Compressed headers.
        block: Bytes,
    },
    /// Accepts a stream.
    SynReply {
        /// Which.
        stream: u32,
        /// FIN at once.
        fin: bool,
        /// Compressed headers.
        block: Bytes,
    },
    /// Breaks a stream off.
    RstStream {
        /// Which.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// Is answered with the same number.
    Ping(u32),
    /// Nothing new from here on.
    GoAway {
        /// The last stream that counts.
        last: u32,
    },
    /// More headers.
    Headers {
        /// Of this stream.
        stream: u32,
        /// FIN.
        fin: bool,
        /// Compressed.
        block: Bytes,
    },
    /// Data of a stream.
    Data {
        /// Which.
        stream: u32,
        /// FIN.
        fin: bool,
        /// The data.
        data: Bytes,
    },
    /// Settings, window updates and the like: nobody here needs them.
    Other,
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// not SPDY/3
    #[error("the peer does not speak SPDY/3")]
    Version,
    /// longer than 4 MiB
    #[error("a frame is longer than 4 MiB")]
    TooLong,
    /// too short for its kind
    #[error("a frame is too short for its kind")]
    Short,
}

/// Takes the next frame off the front of `buffer`; `None` when it is not all there.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEAD_BYTES {
        return Ok(None);
    }
    let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
    if length > PAYLOAD_BYTES {
        return Err(FrameError::TooLong);
    }
    if buffer[0] & 0x80 != 0 && (u16::from(buffer[0] & 0x7f) << 8 | u16::from(buffer[1])) != VERSION {
        return Err(FrameError::Version);
    }
    if buffer.len() < HEAD_BYTES + length {
        buffer.reserve(HEAD_BYTES + length - buffer.len());
        return Ok(None);
    }
    let mut head = buffer.split_to(HEAD_BYTES);
    let payload = buffer.split_to(length).freeze();
    let (first, flags) = (head.get_u32(), head[0]);
    if first & 0x8000_0000 == 0 {
        return Ok(Some(Frame::Data { stream: first, fin: flags & FIN != 0, data: payload }));
    }
    control(first as u16, flags & FIN != 0, payload).map(Some)
}

fn control(kind: u16, fin: bool, mut payload: Bytes) -> Result<Frame, FrameError> {
    let word = |payload: &mut Bytes| if payload.len() < 4 { Err(FrameError::Short) } else { Ok(payload.get_u32() & 0x7fff_ffff) };
    Ok(match kind {
        1 => {
            let stream = word(&mut payload)?;
            word(&mut payload)?;
            if payload.len() < 2 {
                return Err(FrameError::Short);
            }
            payload.advance(2);
            Frame::SynStream { stream, fin, block: payload }
        }
        2 => Frame::SynReply { stream: word(&mut payload)?, fin, block: payload },
        3 => Frame::RstStream { stream: word(&mut payload)?, status: word(&mut payload)? },
        6 => {
            if payload.len() < 4 {
                return Err(FrameError::Short);
            }
            Frame::Ping(payload.get_u32())
        }
        7 => Frame::GoAway { last: word(&mut payload)? },
        8 => Frame::Headers { stream: word(&mut payload)?, fin, block: payload },
        _ => Frame::Other,
    })
}

/// A frame as bytes. `Other` is none.
pub fn encode(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    match frame {
        Frame::Data { stream, fin, data } => {
            out.put_u32(*stream);
            length(&mut out, *fin, data.len());
            out.put_slice(data);
        }
        Frame::SynStream { stream, fin, block } => {
            head(&mut out, 1, *fin, 10 + block.len());
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(block);
        }
        Frame::SynReply { stream, fin, block } | Frame::Headers { stream, fin, block } => {
            head(&mut out, if matches!(frame, Frame::SynReply { .. }) { 2 } else { 8 }, *fin, 4 + block.len());
            out.put_u32(*stream);
            out.put_slice(block);
        }
        Frame::RstStream { stream, status } => {
            head(&mut out, 3, false, 8);
            out.put_u32(*stream);
            out.put_u32(*status);
        }
        Frame::Ping(id) => {
            head(&mut out, 6, false, 4);
            out.put_u32(*id);
        }
        Frame::GoAway { last } => {
            head(&mut out, 7, false, 8);
            out.put_u32(*last);
            out.put_u32(0);
        }
        Frame::Other => {}
    }
    out.freeze()
}

fn head(out: &mut BytesMut, kind: u16, fin: bool, bytes: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    length(out, fin, bytes);
}

fn length(out: &mut BytesMut, fin: bool, bytes: usize) {
    let bytes = bytes.min(PAYLOAD_BYTES) as u32;
    out.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | bytes);
}
