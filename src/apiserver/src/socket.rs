//! Watches and logs over a WebSocket, as browsers ask for them: each event is a message, and so is each piece of a log.
//!
//! Handlers see a plain request; their streamed answer is cut into messages on its way out.

use axum::{extract::Request, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use coracle_api::status::Status;
use futures::{SinkExt as _, StreamExt as _};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{body::full, node_proxy, request::RequestInfo};

/// Bytes of a message from the client, who has nothing to say here.
const HEARD_BYTES: usize = 4 << 10;
/// Protocols of a log, and whether they are base64; the empty one is that of a client which names none.
const LOG_PROTOCOLS: [(&str, bool); 3] = [("", false), ("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

/// A client that wants its stream in messages.
#[derive(Debug)]
pub struct Socket {
    near: hyper::upgrade::OnUpgrade,
    accept: HeaderValue,
    protocol: HeaderValue,
    what: What,
}

/// What is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Events,
    Log { base64: bool },
}

/// Takes the wish for messages off a request for a watch or a log; what else a request may be upgraded for is not ours.
pub fn take(info: &RequestInfo, request: &mut Request) -> Result<Option<Socket>, Status> {
    let is_log = info.verb == "get" && info.resource == "pods" && info.subresource == "log";
    let headers = request.headers();
    let wanted = headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !wanted || !(is_log || info.verb == "watch") {
        return Ok(None);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("a WebSocket needs the header Sec-WebSocket-Key"))?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|error| Status::internal(error.to_string()))?;
    let (protocol, what) = if is_log { log_protocol(headers)? } else { (first_protocol(headers), What::Events) };
    let near = hyper::upgrade::on(&mut *request);
    let headers = request.headers_mut();
    node_proxy::strip(headers);
    headers.remove(UPGRADE);
    // Messages are cut from the plain answer.
    headers.remove(ACCEPT_ENCODING);
    Ok(Some(Socket { near, accept, protocol, what }))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty())
}

/// A watch is the same in each.
fn first_protocol(headers: &HeaderMap) -> HeaderValue {
    protocols(headers).next().and_then(|protocol| HeaderValue::from_str(protocol).ok()).unwrap_or(HeaderValue::from_static(""))
}

fn log_protocol(headers: &HeaderMap) -> Result<(HeaderValue, What), Status> {
    let mut asked = protocols(headers).peekable();
    if asked.peek().is_none() {
        return Ok((HeaderValue::from_static(""), What::Log { base64: false }));
    }
    let known = asked.find_map(|asked| LOG_PROTOCOLS.into_iter().find(|(name, _)| *name == asked));
    let (name, base64) = known.ok_or_else(|| {
        let asked: Vec<_> = protocols(headers).collect();
        Status::bad_request(format!(
            "requested protocol(s) are not supported: {asked:?}; supports {:?}",
            LOG_PROTOCOLS.map(|known| known.0)
        ))
    })?;
    Ok((HeaderValue::from_static(name), What::Log { base64 }))
}

impl Socket {
    /// The answer that switches to messages, which carry the body of this one. A refusal stays what it is.
    pub fn carry(self, answer: Response) -> Response {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let Self { near, accept, protocol, what } = self;
        let (parts, body) = answer.into_parts();
        let media = parts.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
        let cut = match what {
            What::Events if media.starts_with("application/vnd.kubernetes.protobuf") => Cut::Lengths,
            What::Events => Cut::Lines,
            What::Log { base64 } => Cut::Anywhere { base64 },
        };
        tokio::spawn(async move {
            if let Ok(near) = near.await {
                pump(TokioIo::new(near), body, cut).await;
            }
        });
        let mut switching = Response::new(full(""));
        *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = switching.headers_mut();
        *headers = parts.headers;
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if !protocol.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        switching
    }
}

/// Where one message ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// JSON: an event is a line.
    Lines,
    /// Protobuf: four bytes before each event say how long it is.
    Lengths,
    /// A log: wherever it came in pieces.
    Anywhere { base64: bool },
}

impl Cut {
    /// The next whole message of what has come; it holds no more than one object can have.
    fn next(self, come: &mut BytesMut) -> Option<Message> {
        match self {
            Self::Lines => {
                let end = come.iter().position(|byte| *byte == b'\n')?;
                let line = come.split_to(end.saturating_add(1)).freeze();
                // Our JSON is UTF-8; what an extension API server sends may be anything.
                Some(line.clone().try_into().map_or(Message::Binary(line), Message::Text))
            }
            Self::Lengths => {
                let length = usize::try_from(u32::from_be_bytes(*come.first_chunk()?)).ok()?;
                if come.len() < length.saturating_add(4) {
                    return None;
                }
                come.advance(4);
                Some(Message::Binary(come.split_to(length).freeze()))
            }
            Self::Anywhere { .. } if come.is_empty() => None,
            Self::Anywhere { base64: false } => Some(Message::Binary(come.split().freeze())),
            Self::Anywhere { base64: true } => Some(Message::Text(STANDARD.encode(come.split()).into())),
        }
    }
}

/// Carries the body until it or the client ends.
async fn pump<S>(io: S, body: crate::body::Body, cut: Cut)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(HEARD_BYTES);
    config.max_frame_size = Some(HEARD_BYTES);
    let (mut sink, mut stream) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
    let listening = async {
        while let Some(Ok(message)) = stream.next().await
            && !message.is_close()
        {}
    };
    let telling = async {
        if cut != Cut::Lines && cut != Cut::Lengths {
            // An empty message tells the client that the log is found.
            sink.send(Message::Binary(Bytes::new())).await?;
        }
        let (mut pieces, mut come) = (body.into_data_stream(), BytesMut::new());
        while let Some(Ok(piece)) = pieces.next().await {
            come.extend_from_slice(&piece);
            while let Some(message) = cut.next(&mut come) {
                sink.feed(message).await?;
            }
            sink.flush().await?;
        }
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
    };
    tokio::select! {
        () = listening => {}
        told = telling => if let Err(error) = told {
            tracing::debug!(%error, "a WebSocket broke");
        },
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::body::{Body, BodyError};

    async fn check(pieces: &[&'static [u8]], cut: Cut) -> Vec<Message> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, BodyError>(Bytes::from_static(piece))).collect();
        let (near, far) = tokio::io::duplex(64);
        let telling = tokio::spawn(pump(near, Body::from_stream(stream::iter(pieces)), cut));
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let mut heard = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Close(frame) => {
                    assert_eq!(frame.expect("a reason").code, CloseCode::Normal);
                    break;
                }
                message => heard.push(message),
            }
        }
        telling.await.expect("joined");
        heard
    }

    #[tokio::test]
    async fn streams_are_cut_into_messages() {
        let binary = |data: &'static [u8]| Message::Binary(Bytes::from_static(data));
        for (cut, pieces, expected) in [
            (Cut::Lines, &[&b"{1}\n{2"[..], b"}", b"\n", b"\xff\n{half"][..], vec!["{1}\n".into(), "{2}\n".into(), binary(b"\xff\n")]),
            (Cut::Lengths, &[b"\0\0\0\x02ab\0", b"\0\0\x01", b"c\0\0\0\0"], vec![binary(b"ab"), binary(b"c"), binary(b"")]),
            (Cut::Lengths, &[b"\xff\xff\xff\xffab"], vec![]),
            (Cut::Anywhere { base64: false }, &[b"one\n", b"\xfftwo"], vec![binary(b""), binary(b"one\n"), binary(b"\xfftwo")]),
            (Cut::Anywhere { base64: true }, &[b"\xff"], vec![binary(b""), "/w==".into()]),
        ] {
            assert_eq!(check(pieces, cut).await, expected, "{cut:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_stream() {
        let (near, far) = tokio::io::duplex(64);
        let (held, body) = tokio::sync::mpsc::channel::<Result<Bytes, BodyError>>(1);
        let body = Body::from_stream(stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) }));
        let telling = tokio::spawn(pump(near, body, Cut::Lines));
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        socket.close(None).await.expect("closed");
        telling.await.expect("joined");
        held.closed().await;
    }

    fn asked(verb: &str, subresource: &str, headers: &[(&'static str, &'static str)]) -> Result<Option<Socket>, Status> {
        let info = RequestInfo { verb: verb.into(), resource: "pods".into(), subresource: subresource.into(), ..RequestInfo::default() };
        let mut request = Request::new(full(""));
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let socket = take(&info, &mut request)?;
        assert_eq!(request.headers().contains_key(UPGRADE), socket.is_none() && !headers.is_empty());
        Ok(socket)
    }

    #[test]
    fn who_asks_for_messages_gets_them() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let upgrade = ("upgrade", "WebSocket");
        let with = |protocol| [upgrade, key, ("sec-websocket-protocol", protocol)];
        for (verb, subresource, headers, expected) in [
            ("watch", "", &[upgrade, key][..], Some(("", What::Events))),
            ("watch", "", &with("base64.binary.k8s.io")[..], Some(("base64.binary.k8s.io", What::Events))),
            ("get", "log", &[upgrade, key][..], Some(("", What::Log { base64: false }))),
            ("get", "log", &with("x, base64.binary.k8s.io")[..], Some(("base64.binary.k8s.io", What::Log { base64: true }))),
            ("get", "exec", &[upgrade, key][..], None),
            ("get", "", &[upgrade, key][..], None),
            ("watch", "", &[][..], None),
        ] {
            let socket = asked(verb, subresource, headers).expect("understood");
            let got = socket.as_ref().map(|socket| (socket.protocol.to_str().expect("text"), socket.what));
            assert_eq!(got, expected, "{verb} {subresource} {headers:?}");
        }
        assert_eq!(asked("get", "log", &with("x")).expect_err("refused").code, 400);
        assert_eq!(asked("watch", "", &[upgrade]).expect_err("refused").code, 400);
    }
}
