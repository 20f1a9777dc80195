//! Exec and attach: the runtime names a URL once, where the streams are had over SPDY/3.1.

use std::{collections::HashMap, io};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use crate::{
    Streams, TerminalSize,
    spdy::{
        client,
        connection::{Sender, Stream},
    },
};

/// Bytes of stdin that wait for the runtime.
const STDIN_BYTES: usize = 64 << 10;
/// Sizes of a terminal that wait to be sent.
const SIZES: usize = 8;
/// Bytes of a status or a refusal.
const STATUS_BYTES: usize = 16 << 10;
/// What the runtime and clients of the API speak over SPDY: the exit code comes as a Status.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// Which streams are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Why there are no streams.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// not a URL that can be used
    #[error("the runtime streams at {0:?}, which is no http:// URL")]
    Url(String),
    /// refused
    #[error("the runtime's streaming server says {0}: {1}")]
    Refused(StatusCode, String),
    /// the connection
    #[error("the runtime's streaming server does not answer")]
    Io(#[from] io::Error),
    /// HTTP
    #[error("the runtime's streaming server does not speak HTTP")]
    Http(#[from] hyper::Error),
}

/// Opens the streams.
pub(super) async fn open(url: &str, wanted: Wanted) -> Result<Streams, StreamError> {
    let upgraded = upgrade(url).await?;
    let kinds = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty),
    ];
    let kinds = kinds.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind);
    let headers = kinds.clone().map(|kind| vec![("streamtype".to_owned(), kind.to_owned())]).collect();
    let opened = client::open(upgraded, headers).await?;
    Ok(join(kinds.zip(opened).collect()))
}

async fn upgrade(url: &str) -> Result<TokioIo<hyper::upgrade::Upgraded>, StreamError> {
    let bad = || StreamError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), STATUS_BYTES).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(StreamError::Refused(status, text));
    }
    Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
}

/// Streams of a connection as the agent wants them. One task holds the connection until the end is told or nobody waits for it.
fn join(mut streams: HashMap<&'static str, Stream>) -> Streams {
    let (exited, exit) = oneshot::channel();
    let stdin = streams.remove("stdin").map(|stream| typed(stream.sender));
    let resize = streams.remove("resize").map(|stream| sized(stream.sender));
    let mut held = Vec::new();
    let mut output = |kind| -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        let stream: Stream = streams.remove(kind)?;
        held.push(stream.sender);
        Some(Box::new(StreamReader::new(ReceiverStream::new(stream.data).map(Ok::<_, io::Error>))))
    };
    let (stdout, stderr) = (output("stdout"), output("stderr"));
    if let Some(error) = streams.remove("error") {
        tokio::spawn(end(error, held, exited));
    }
    Streams { stdin, stdout, stderr, resize, exit }
}

async fn end(mut error: Stream, held: Vec<Sender>, mut exited: oneshot::Sender<i32>) {
    let mut text = BytesMut::new();
    let status = async {
        while let Some(more) = error.data.recv().await {
            if text.len() + more.len() <= STATUS_BYTES {
                text.extend_from_slice(&more);
            }
        }
    };
    tokio::select! {
        () = status => {
            if let Some(code) = exit_code(&text) {
                let _ = exited.send(code);
            }
        }
        () = exited.closed() => {}
    }
    drop(held);
}

/// The exit code that a Status tells; `None` when it tells none. The older runtimes' attach ends without any: it went well.
fn exit_code(status: &[u8]) -> Option<i32> {
    if status.is_empty() {
        return Some(0);
    }
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    if status["status"] == "Success" {
        return Some(0);
    }
    let cause = status["details"]["causes"].as_array()?.iter().find(|cause| cause["reason"] == "ExitCode")?;
    cause["message"].as_str()?.parse().ok()
}

fn typed(sender: Sender) -> Box<dyn AsyncWrite + Send + Unpin> {
    let (ours, mut theirs) = tokio::io::duplex(STDIN_BYTES);
    tokio::spawn(async move {
        let mut buffer = BytesMut::with_capacity(STDIN_BYTES);
        loop {
            buffer.reserve(STDIN_BYTES);
            match theirs.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => {
                    if sender.send(buffer.split().freeze()).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
        let _ = sender.finish().await;
    });
    Box::new(ours)
}

fn sized(sender: Sender) -> mpsc::Sender<TerminalSize> {
    let (sizes, mut wanted) = mpsc::channel::<TerminalSize>(SIZES);
    tokio::spawn(async move {
        while let Some(size) = wanted.recv().await {
            let text = format!("{{\"Width\":{},\"Height\":{}}}\n", size.width, size.height);
            if sender.send(text.into()).await.is_err() {
                return;
            }
        }
    });
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_exit_code() {
        for (status, code) in [
            ("", Some(0)),
            (r#"{"metadata":{},"status":"Success"}"#, Some(0)),
            (r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#, Some(7)),
            (r#"{"status":"Failure","reason":"InternalError","message":"no such container"}"#, None),
            ("not JSON", None),
        ] {
            assert_eq!(exit_code(status.as_bytes()), code, "{status}");
        }
    }

    #[tokio::test]
    async fn only_plain_http_is_asked() {
        for url in ["", "https://127.0.0.1:1/exec/x", "/exec/x"] {
            let wanted = Wanted { stdin: false, stdout: true, stderr: false, tty: false };
            assert!(matches!(open(url, wanted).await, Err(StreamError::Url(_))), "{url}");
        }
    }
}
