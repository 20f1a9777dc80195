//! Exec and attach over the channels of a WebSocket, in each of the protocols that clients speak, and SPDY in a tunnel.

use bytes::{Bytes, BytesMut};
use coracle_runtime::TerminalSize;
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    channels::Coding,
    session::{Client, Output},
    upgrade::UNNAMED,
};

/// SPDY frames in a WebSocket: what kubectl's port-forward speaks.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Channels of exec and attach, the newest first.
pub const CHANNELS: [&str; 6] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io", UNNAMED];
/// What port-forward speaks: kubectl's tunnel, then channels.
pub const FORWARDS: [&str; 4] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", UNNAMED];
/// Bytes of one message.
const MESSAGE_BYTES: usize = 4 << 20;
/// Bytes in a tunnel that are under way.
const TUNNEL_BYTES: usize = 64 << 10;
/// Messages that wait for a slow process.
const QUEUE_MESSAGES: usize = 8;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the client is done with the channel that follows.
const CLOSE: u8 = 255;

/// A size as clients send it.
#[derive(Deserialize)]
pub(super) struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// The size in a message of the resize channel or stream.
pub fn size(text: &[u8]) -> Option<TerminalSize> {
    serde_json::from_slice::<Size>(text).ok().map(|s| TerminalSize { width: s.width, height: s.height })
}

/// A WebSocket whose handshake is done.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES);
    config.max_frame_size = Some(MESSAGE_BYTES);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The last message in a protocol: since v4 the whole Status, before it the text of a failure, and nothing of a success.
fn last(protocol: &str, status: Bytes) -> Option<Bytes> {
    if protocol.starts_with('v') {
        return Some(status);
    }
    let status: serde_json::Value = serde_json::from_slice(&status).ok()?;
    status["message"].as_str().map(|text| Bytes::copy_from_slice(text.as_bytes()))
}

/// Serves a session: the client's side of it, and the task that carries it until the output ends.
pub fn session<S>(io: S, protocol: &'static str, stdin: bool, tty: bool) -> (Client, impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (output, mut outputs) = mpsc::channel(super::session::QUEUE_OUTPUTS);
    let (typed, stdin_data) = mpsc::channel(QUEUE_MESSAGES);
    let (resized, sizes) = mpsc::channel(QUEUE_MESSAGES);
    let client = Client { stdin: stdin.then_some(stdin_data), resize: tty.then_some(sizes), output };
    let carry = async move {
        let coding = Coding::of(protocol);
        let (mut sink, mut stream) = accept(io).await.split();
        // An empty message tells the client that the session stands.
        if sink.send(coding.message(STDOUT, &[])).await.is_err() {
            return;
        }
        let reading = async {
            let mut typed = Some(typed);
            while let Some(Ok(received)) = stream.next().await {
                if matches!(received, Message::Close(_)) {
                    return;
                }
                match coding.read(received) {
                    Some((STDIN, data)) if !data.is_empty() => {
                        if let Some(to) = &typed
                            && to.send(data).await.is_err()
                        {
                            typed = None;
                        }
                    }
                    Some((RESIZE, data)) => {
                        if let Some(size) = size(&data) {
                            let _ = resized.try_send(size);
                        }
                    }
                    Some((CLOSE, data)) if data[..] == [STDIN] => typed = None,
                    _ => {}
                }
            }
        };
        let writing = async {
            while let Some(output) = outputs.recv().await {
                let sent = match output {
                    Output::Stdout(data) => sink.send(coding.message(STDOUT, &data)).await,
                    Output::Stderr(data) => sink.send(coding.message(STDERR, &data)).await,
                    Output::Ended(data) => match last(protocol, data) {
                        Some(data) => sink.send(coding.message(ERROR, &data)).await,
                        None => Ok(()),
                    },
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = sink.send(goodbye()).await;
        };
        // The client's close ends a session; so does the last output.
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    (client, carry)
}

/// Clients take an end for an error unless it is called normal.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// The bytes that binary messages carry, as a connection, and the task that carries them.
pub fn tunnel<S>(io: S) -> (DuplexStream, impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    let carry = async move {
        let (mut sink, mut stream) = accept(io).await.split();
        let (mut from, mut to) = tokio::io::split(far);
        let reading = async {
            while let Some(Ok(received)) = stream.next().await {
                match received {
                    Message::Binary(data) if to.write_all(&data).await.is_err() => {
                        return;
                    }
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            let _ = to.shutdown().await;
        };
        let writing = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(TUNNEL_BYTES);
                match from.read_buf(&mut buffer).await {
                    Ok(read) if read > 0 => {
                        if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                            return;
                        }
                    }
                    _ => break,
                }
            }
            let _ = sink.send(goodbye()).await;
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    (near, carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in this protocol; what the client hears after the output and after this end.
    async fn check(protocol: &'static str, status: &'static str) -> Vec<(u8, Bytes)> {
        let coding = Coding::of(protocol);
        let (near, far) = tokio::io::duplex(4096);
        let (mut client, carry) = session(near, protocol, true, true);
        let carrying = tokio::spawn(carry);
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        assert_eq!(socket.next().await.expect("a message").expect("read"), coding.message(STDOUT, &[]));
        let mut stdin = client.stdin.take().expect("a stdin");
        let mut sizes = client.resize.take().expect("sizes");
        for (channel, sent) in [(STDIN, &b"in"[..]), (RESIZE, br#"{"Width":80,"Height":24}"#)] {
            socket.send(coding.message(channel, sent)).await.expect("sent");
        }
        assert_eq!(stdin.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        if coding == Coding::Binary {
            socket.send(coding.message(CLOSE, &[STDIN])).await.expect("sent");
            assert_eq!(stdin.recv().await, None, "the close signal ends stdin");
        }
        client.output.send(Output::Stderr(Bytes::from_static(b"e"))).await.expect("sent");
        client.output.send(Output::Ended(Bytes::from_static(status.as_bytes()))).await.expect("sent");
        drop(client);
        let mut heard = Vec::new();
        loop {
            let message = socket.next().await.expect("a message").expect("read");
            if message == goodbye() {
                carrying.await.expect("joined");
                return heard;
            }
            heard.push(coding.read(message).expect("a channel"));
        }
    }

    #[tokio::test]
    async fn each_protocol_ends_in_its_own_words() {
        let (good, bad) = (r#"{"status":"Success"}"#, r#"{"status":"Failure","message":"no"}"#);
        for (protocol, status, end) in [
            ("v5.channel.k8s.io", good, Some(good)),
            ("v4.channel.k8s.io", bad, Some(bad)),
            ("v4.base64.channel.k8s.io", good, Some(good)),
            ("channel.k8s.io", good, None),
            ("base64.channel.k8s.io", bad, Some("no")),
            (UNNAMED, bad, Some("no")),
        ] {
            let mut expected = vec![(STDERR, Bytes::from_static(b"e"))];
            expected.extend(end.map(|end| (ERROR, Bytes::from_static(end.as_bytes()))));
            assert_eq!(check(protocol, status).await, expected, "{protocol}");
        }
    }
}
