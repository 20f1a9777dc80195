//! The client's side of a SPDY/3.1 connection: opens a stream for each of the given headers, and reads what comes on them.

use std::{collections::HashMap, io};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::mpsc,
};

use super::{
    connection::{Outgoing, QUEUE_FRAMES, READ_BYTES, Sender, Stream, write},
    frame::{self, Frame},
    headers::{Decoder, Headers},
};

/// Opens a stream for each of the headers, in their order. The connection ends when all senders are dropped, or the peer ends it.
pub async fn open<S>(io: S, streams: Vec<Headers>) -> io::Result<Vec<Stream>>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let (frames, queue) = mpsc::channel(QUEUE_FRAMES.max(streams.len()));
    let mut opened = Vec::with_capacity(streams.len());
    let mut known = HashMap::new();
    // A client's streams have odd numbers.
    for (stream, headers) in (1_u32..).step_by(2).zip(streams) {
        let (sender, data) = mpsc::channel(QUEUE_FRAMES);
        known.insert(stream, sender);
        frames.send(Outgoing::Open(stream, headers.clone())).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        opened.push(Stream { headers, data, sender: Sender { stream, frames: frames.clone() } });
    }
    // The reader only answers pings: it does not keep the connection open.
    let answers = frames.downgrade();
    tokio::spawn(async move {
        if let Err(error) = write(writer, queue).await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    });
    tokio::spawn(async move {
        if let Err(error) = read(reader, known, answers).await {
            tracing::debug!(%error, "a SPDY connection broke");
        }
    });
    Ok(opened)
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    mut open: HashMap<u32, mpsc::Sender<Bytes>>,
    answers: mpsc::WeakSender<Outgoing>,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        while let Some(frame) = frame::decode(&mut buffer).map_err(io::Error::other)? {
            match frame {
                Frame::Data { stream, fin, data } => {
                    if let Some(sender) = open.get(&stream)
                        && !data.is_empty()
                        && sender.send(data).await.is_err()
                    {
                        // What nobody reads is swallowed.
                        open.remove(&stream);
                    }
                    if fin {
                        open.remove(&stream);
                    }
                }
                Frame::RstStream { stream, .. } => drop(open.remove(&stream)),
                // The server's are even.
                Frame::Ping(id) if id % 2 == 0 => {
                    if let Some(answers) = answers.upgrade() {
                        let _ = answers.send(Outgoing::Frame(Frame::Ping(id))).await;
                    }
                }
                Frame::SynReply { stream, fin, block } | Frame::Headers { stream, fin, block } => {
                    decoder.decode(&block).map_err(io::Error::other)?;
                    if fin {
                        open.remove(&stream);
                    }
                }
                Frame::SynStream { block, .. } => drop(decoder.decode(&block).map_err(io::Error::other)?),
                Frame::GoAway { .. } | Frame::Ping(_) | Frame::Other => {}
            }
        }
        buffer.reserve(READ_BYTES);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::connection, *};

    fn kind(name: &str) -> Headers {
        vec![("streamtype".to_owned(), name.to_owned())]
    }

    #[tokio::test]
    async fn streams_go_both_ways_and_end_on_both_sides() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (sender, mut accepted) = mpsc::channel(4);
        let served = tokio::spawn(connection::serve(theirs, sender));
        let mut streams = open(ours, vec![kind("error"), kind("stdin")]).await.unwrap();
        let error = accepted.recv().await.unwrap();
        let mut stdin = accepted.recv().await.unwrap();
        assert_eq!((error.header("streamtype"), stdin.header("streamtype")), (Some("error"), Some("stdin")));

        streams[1].sender.send(Bytes::from_static(b"typed")).await.unwrap();
        streams[1].sender.finish().await.unwrap();
        assert_eq!(stdin.data.recv().await.unwrap(), "typed");
        assert_eq!(stdin.data.recv().await, None);
        error.sender.send(Bytes::from_static(b"over")).await.unwrap();
        error.sender.finish().await.unwrap();
        assert_eq!(streams[0].data.recv().await.unwrap(), "over");
        assert_eq!(streams[0].data.recv().await, None);

        // Nobody sends any more: the server sees the end.
        drop(streams);
        assert!(accepted.recv().await.is_none());
        drop((error, stdin));
        served.await.unwrap().unwrap();
    }
}
