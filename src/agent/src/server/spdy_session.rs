//! Exec and attach over SPDY/3.1: the client opens a stream for each of error, stdin, stdout, stderr and resize.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use coracle_runtime::spdy::connection::{self, Sender, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    session::{Client, Output, QUEUE_OUTPUTS},
    websocket,
};

/// How long a client may take to open its streams: upstream's figure.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// Streams that wait to be taken.
const QUEUE_STREAMS: usize = 8;
/// Bytes of a resize message without its end.
const RESIZE_BYTES: usize = 4096;

/// Which streams a client opens.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// stdin.
    pub stdin: bool,
    /// stdout.
    pub stdout: bool,
    /// stderr (never with a terminal).
    pub stderr: bool,
    /// A terminal, so resize.
    pub tty: bool,
}

/// Serves the connection: waits for the streams, hands the session to `start`, and carries it to its end.
pub async fn serve<S, F>(io: S, expected: Expected, start: impl FnOnce(Client) -> F)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut opened) = mpsc::channel(QUEUE_STREAMS);
    let serving = tokio::spawn(connection::serve(io, sender));
    let streams = tokio::time::timeout(STREAMS_WITHIN, collect(&mut opened, expected)).await;
    if let Ok(Some(mut streams)) = streams {
        let (output, outputs) = mpsc::channel(QUEUE_OUTPUTS);
        let stdin = streams.remove("stdin").map(|s| s.data);
        let resize = streams.remove("resize").map(|s| sizes(s.data));
        let senders = streams.into_iter().map(|(k, s)| (k, s.sender)).collect();
        let session = tokio::spawn(start(Client { stdin, resize, output }));
        tokio::select! {
            () = write(outputs, senders) => {}
            // A client that closes the connection is gone; one that opens more streams is not served twice.
            () = async { while opened.recv().await.is_some() {} } => {}
        }
        session.abort();
    }
    drop(opened);
    if let Ok(Err(error)) = serving.await {
        tracing::debug!(%error, "a SPDY connection broke");
    }
}

async fn collect(opened: &mut mpsc::Receiver<Stream>, expected: Expected) -> Option<HashMap<String, Stream>> {
    let wanted =
        [("error", true), ("stdin", expected.stdin), ("stdout", expected.stdout), ("stderr", expected.stderr), ("resize", expected.tty)];
    let count = wanted.iter().filter(|(_, w)| *w).count();
    let mut out = HashMap::new();
    while out.len() < count {
        let stream = opened.recv().await?;
        let kind = stream.header("streamtype").unwrap_or_default().to_ascii_lowercase();
        out.insert(kind, stream);
    }
    Some(out)
}

async fn write(mut outputs: mpsc::Receiver<Output>, senders: HashMap<String, Sender>) {
    while let Some(output) = outputs.recv().await {
        let (name, data) = match output {
            Output::Stdout(data) => ("stdout", data),
            Output::Stderr(data) => ("stderr", data),
            Output::Ended(data) => ("error", data),
        };
        if let Some(sender) = senders.get(name)
            && sender.send(data).await.is_err()
        {
            return;
        }
    }
    for sender in senders.values() {
        let _ = sender.finish().await;
    }
}

/// Sizes come as JSON objects, each on its line.
fn sizes(mut data: mpsc::Receiver<Bytes>) -> mpsc::Receiver<coracle_runtime::TerminalSize> {
    let (sender, sizes) = mpsc::channel(QUEUE_STREAMS);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        while let Some(more) = data.recv().await {
            buffer.extend_from_slice(&more);
            while let Some(end) = buffer.iter().position(|b| *b == b'}') {
                let text = buffer.split_to(end + 1);
                if let Some(size) = websocket::size(text.trim_ascii()) {
                    let _ = sender.try_send(size);
                }
            }
            if buffer.len() > RESIZE_BYTES {
                return;
            }
        }
    });
    sizes
}
