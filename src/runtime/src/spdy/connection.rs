//! The server's side of a SPDY/3.1 connection: streams that the client opens, each with data both ways.

use std::{collections::HashMap, io};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    frame::{self, Frame, PAYLOAD_BYTES},
    headers::{Decoder, Encoder, Headers},
};

/// Streams of one connection; kubectl opens five, or two a forwarded connection.
const STREAMS: usize = 512;
/// Data frames that wait for a slow stream; then the connection waits, as SPDY here has no windows.
pub(super) const QUEUE_FRAMES: usize = 16;
/// Bytes that are read at once.
pub(super) const READ_BYTES: usize = 32 << 10;
/// Largest data frame that is sent.
const CHUNK_BYTES: usize = 32 << 10;
/// Status of a stream that is refused.
const REFUSED: u32 = 3;

/// A stream that the client has opened.
#[derive(Debug)]
pub struct Stream {
    /// What it was opened with.
    pub headers: Headers,
    /// Data from the client; ends with its FIN.
    pub data: mpsc::Receiver<Bytes>,
    /// Data to the client.
    pub sender: Sender,
}

impl Stream {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Sends on one stream.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(super) stream: u32,
    pub(super) frames: mpsc::Sender<Outgoing>,
}

#[derive(Debug)]
pub(super) enum Outgoing {
    Frame(Frame),
    Open(u32, Headers),
    Accept(u32),
}

/// The connection is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is gone")]
pub struct Gone;

impl Sender {
    /// Sends data.
    pub async fn send(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES.min(PAYLOAD_BYTES)));
            self.frame(Frame::Data { stream: self.stream, fin: false, data: chunk }).await?;
        }
        Ok(())
    }

    /// Nothing more comes.
    pub async fn finish(&self) -> Result<(), Gone> {
        self.frame(Frame::Data { stream: self.stream, fin: true, data: Bytes::new() }).await
    }

    /// Breaks it off.
    pub async fn reset(&self) -> Result<(), Gone> {
        self.frame(Frame::RstStream { stream: self.stream, status: 5 }).await
    }

    async fn frame(&self, frame: Frame) -> Result<(), Gone> {
        self.frames.send(Outgoing::Frame(frame)).await.map_err(|_| Gone)
    }
}

/// Serves a connection until either side closes it; new streams go to `streams`.
pub async fn serve<S>(io: S, streams: mpsc::Sender<Stream>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let (frames, queue) = mpsc::channel(QUEUE_FRAMES);
    let writing = tokio::spawn(write(writer, queue));
    let read = read(reader, frames, streams).await;
    // What was queued before the end is sent; then the peer sees the end.
    let written = writing.await.map_err(io::Error::other)?;
    read.and(written)
}

pub(super) async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    let mut encoder = Encoder::new().map_err(io::Error::other)?;
    while let Some(outgoing) = queue.recv().await {
        let frame = match outgoing {
            Outgoing::Frame(frame) => frame,
            Outgoing::Open(stream, headers) => {
                let block = encoder.encode(&headers).map_err(io::Error::other)?;
                Frame::SynStream { stream, fin: false, block: block.into() }
            }
            Outgoing::Accept(stream) => {
                let block = encoder.encode(&Headers::new()).map_err(io::Error::other)?;
                Frame::SynReply { stream, fin: false, block: block.into() }
            }
        };
        writer.write_all(&frame::encode(&frame)).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}

async fn read(mut reader: impl AsyncRead + Unpin, frames: mpsc::Sender<Outgoing>, streams: mpsc::Sender<Stream>) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut open: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        while let Some(frame) = frame::decode(&mut buffer).map_err(io::Error::other)? {
            match frame {
                Frame::SynStream { stream, fin, block } => {
                    let headers = decoder.decode(&block).map_err(io::Error::other)?;
                    open.retain(|_, s| !s.is_closed());
                    if open.len() >= STREAMS || open.contains_key(&stream) {
                        let refusal = Frame::RstStream { stream, status: REFUSED };
                        frames.send(Outgoing::Frame(refusal)).await.map_err(|_| closed())?;
                        continue;
                    }
                    let (sender, data) = mpsc::channel(QUEUE_FRAMES);
                    if !fin {
                        open.insert(stream, sender);
                    }
                    frames.send(Outgoing::Accept(stream)).await.map_err(|_| closed())?;
                    let new = Stream { headers, data, sender: Sender { stream, frames: frames.clone() } };
                    if streams.send(new).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::Data { stream, fin, data } => {
                    if let Some(sender) = open.get(&stream) {
                        // A stream that nobody reads any more swallows what comes.
                        if !data.is_empty() && sender.send(data).await.is_err() {
                            open.remove(&stream);
                        }
                    }
                    if fin {
                        open.remove(&stream);
                    }
                }
                Frame::RstStream { stream, .. } => drop(open.remove(&stream)),
                // The client's are odd; an even one is an answer to a ping that we never send.
                Frame::Ping(id) if id % 2 == 1 => frames.send(Outgoing::Frame(Frame::Ping(id))).await.map_err(|_| closed())?,
                Frame::Headers { block, .. } | Frame::SynReply { block, .. } => drop(decoder.decode(&block).map_err(io::Error::other)?),
                Frame::GoAway { .. } | Frame::Ping(_) | Frame::Other => {}
            }
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = reader.read_buf(&mut buffer) => if read? == 0 {
                return Ok(());
            },
            () = streams.closed() => return Ok(()),
        }
    }
}
