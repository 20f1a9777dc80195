//! Exec, attach and port-forward over WebSocket: `v5.channel.k8s.io`, `v4.channel.k8s.io`, and SPDY in a tunnel.

use bytes::{BufMut as _, Bytes, BytesMut};
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

use super::session::{Client, Output};

/// SPDY frames in a WebSocket: what kubectl's port-forward speaks.
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Channels, the newest first.
pub const CHANNELS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
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

async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES);
    config.max_frame_size = Some(MESSAGE_BYTES);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Serves a session: the client's side of it, and the task that carries it until the output ends.
pub fn session<S>(io: S, stdin: bool, tty: bool) -> (Client, impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (output, mut outputs) = mpsc::channel(super::session::QUEUE_OUTPUTS);
    let (typed, stdin_data) = mpsc::channel(QUEUE_MESSAGES);
    let (resized, sizes) = mpsc::channel(QUEUE_MESSAGES);
    let client = Client { stdin: stdin.then_some(stdin_data), resize: tty.then_some(sizes), output };
    let carry = async move {
        let (mut sink, mut stream) = accept(io).await.split();
        // An empty message tells the client that the session stands.
        if sink.send(message(STDOUT, &[])).await.is_err() {
            return;
        }
        let reading = async {
            let mut typed = Some(typed);
            while let Some(Ok(received)) = stream.next().await {
                let data = match received {
                    Message::Binary(data) => data,
                    Message::Text(text) => Bytes::from(text),
                    Message::Close(_) => return,
                    _ => continue,
                };
                match data.split_first() {
                    Some((&STDIN, rest)) if !rest.is_empty() => {
                        if let Some(to) = &typed
                            && to.send(data.slice(1..)).await.is_err()
                        {
                            typed = None;
                        }
                    }
                    Some((&RESIZE, rest)) => {
                        if let Some(size) = size(rest) {
                            let _ = resized.try_send(size);
                        }
                    }
                    Some((&CLOSE, rest)) if rest == [STDIN] => typed = None,
                    _ => {}
                }
            }
        };
        let writing = async {
            while let Some(output) = outputs.recv().await {
                let sent = match output {
                    Output::Stdout(data) => sink.send(message(STDOUT, &data)).await,
                    Output::Stderr(data) => sink.send(message(STDERR, &data)).await,
                    Output::Ended(data) => sink.send(message(ERROR, &data)).await,
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
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(data.len() + 1);
    out.put_u8(channel);
    out.put_slice(data);
    Message::Binary(out.freeze())
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

    #[tokio::test]
    async fn a_v5_session() {
        let (near, far) = tokio::io::duplex(4096);
        let (mut client, carry) = session(near, true, true);
        let carrying = tokio::spawn(carry);
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        assert_eq!(socket.next().await.expect("a message").expect("read"), message(STDOUT, &[]));
        let mut stdin = client.stdin.take().expect("a stdin");
        let mut sizes = client.resize.take().expect("sizes");
        for sent in [message(STDIN, b"in"), message(RESIZE, br#"{"Width":80,"Height":24}"#), message(CLOSE, &[STDIN])] {
            socket.send(sent).await.expect("sent");
        }
        assert_eq!(stdin.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(stdin.recv().await, None, "the close signal ends stdin");
        client.output.send(Output::Stderr(Bytes::from_static(b"e"))).await.expect("sent");
        client.output.send(Output::Ended(Bytes::from_static(b"{}"))).await.expect("sent");
        drop(client);
        assert_eq!(socket.next().await.expect("a message").expect("read"), message(STDERR, b"e"));
        assert_eq!(socket.next().await.expect("a message").expect("read"), message(ERROR, b"{}"));
        assert_eq!(socket.next().await.expect("a message").expect("read"), goodbye());
        carrying.await.expect("joined");
    }
}
