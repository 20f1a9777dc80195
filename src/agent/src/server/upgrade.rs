//! How a client wants to go on after the head of its request: over WebSocket or SPDY, and in which protocol; and the answer that switches to it.

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::answer::text;

/// The protocols that a SPDY client speaks, and the one that is chosen.
const SPDY_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What would have been accepted.
const SPDY_ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
/// The protocol of a WebSocket client that names none.
pub const UNNAMED: &str = "";

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Messages.
    WebSocket,
    /// SPDY/3.1 frames.
    Spdy,
}

/// What a request becomes.
pub struct Upgrade {
    /// Over which framing.
    pub carrier: Carrier,
    /// In which of our protocols.
    pub protocol: &'static str,
    /// 101.
    pub answer: Response,
}

/// Reads how the client wants to go on; the first of ours that it speaks is taken. The error is the answer that refuses.
pub fn choose(headers: &HeaderMap, sockets: &[&'static str], spdys: &[&'static str]) -> Result<Upgrade, Response> {
    let wanted = headers.get(UPGRADE).and_then(|u| u.to_str().ok()).unwrap_or_default();
    if wanted.eq_ignore_ascii_case("websocket") {
        let mut asked = listed(headers, &SEC_WEBSOCKET_PROTOCOL);
        if asked.is_empty() {
            asked.push(UNNAMED);
        }
        let (Some(protocol), Some(key)) = (first(sockets, &asked), headers.get(SEC_WEBSOCKET_KEY)) else {
            let why = format!("unable to upgrade: none of the protocols {asked:?} is spoken here, but {sockets:?}");
            return Err(text(StatusCode::BAD_REQUEST, why));
        };
        let mut answer = switching("websocket");
        // Base64 is always a header's value.
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if protocol != UNNAMED {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        return Ok(Upgrade { carrier: Carrier::WebSocket, protocol, answer });
    }
    if wanted.eq_ignore_ascii_case(SPDY) {
        let asked = listed(headers, &SPDY_PROTOCOL);
        let Some(protocol) = first(spdys, &asked) else {
            let why = format!("unable to upgrade: none of the protocols {asked:?} is spoken here, but {spdys:?}");
            let mut refusal = text(StatusCode::FORBIDDEN, why);
            for protocol in spdys {
                refusal.headers_mut().append(SPDY_ACCEPTED, HeaderValue::from_static(protocol));
            }
            return Err(refusal);
        };
        let mut answer = switching(SPDY);
        answer.headers_mut().insert(SPDY_PROTOCOL, HeaderValue::from_static(protocol));
        return Ok(Upgrade { carrier: Carrier::Spdy, protocol, answer });
    }
    Err(text(StatusCode::BAD_REQUEST, "unable to upgrade: the request must ask for WebSocket or SPDY/3.1"))
}

fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
}

fn first(ours: &[&'static str], asked: &[&str]) -> Option<&'static str> {
    ours.iter().copied().find(|protocol| asked.contains(protocol))
}

fn switching(to: &'static str) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)]) -> (u16, Option<Carrier>, String) {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        let (carrier, answer) = match choose(&headers, &["v5.channel.k8s.io", "v4.channel.k8s.io"], &["v4.channel.k8s.io"]) {
            Ok(upgrade) => (Some(upgrade.carrier), upgrade.answer),
            Err(refusal) => (None, refusal),
        };
        let protocol = [SEC_WEBSOCKET_PROTOCOL, SPDY_PROTOCOL, SPDY_ACCEPTED].into_iter().find_map(|name| answer.headers().get(name));
        let protocol = protocol.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        (answer.status().as_u16(), carrier, protocol)
    }

    #[test]
    fn protocols_are_chosen() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let socket = |protocols| [("upgrade", "WebSocket"), ("sec-websocket-protocol", protocols), key];
        let spdy = |protocols| [("upgrade", "spdy/3.1"), ("x-stream-protocol-version", protocols)];
        let none = String::new();
        for (headers, expected) in [
            (&socket("v4.channel.k8s.io, v5.channel.k8s.io")[..], (101, Some(Carrier::WebSocket), "v5.channel.k8s.io".to_owned())),
            (&socket("v4.channel.k8s.io")[..], (101, Some(Carrier::WebSocket), "v4.channel.k8s.io".to_owned())),
            (&socket("v5.channel.k8s.io")[..2], (400, None, none.clone())),
            (&socket("channel.k8s.io")[..], (400, None, none.clone())),
            (&spdy("v4.channel.k8s.io")[..], (101, Some(Carrier::Spdy), "v4.channel.k8s.io".to_owned())),
            (&spdy("v1.channel.k8s.io")[..], (403, None, "v4.channel.k8s.io".to_owned())),
            (&[("upgrade", "h2c")][..], (400, None, none.clone())),
            (&[][..], (400, None, none.clone())),
        ] {
            assert_eq!(check(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_client_that_names_no_protocol_gets_the_unnamed_one() {
        let pairs = [("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let headers = pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect();
        let upgrade = choose(&headers, &["v4.channel.k8s.io", UNNAMED], &[]).expect("accepted");
        assert_eq!((upgrade.protocol, upgrade.answer.headers().get(SEC_WEBSOCKET_PROTOCOL)), (UNNAMED, None));
        assert!(choose(&headers, &["v4.channel.k8s.io"], &[]).is_err());
    }

    #[test]
    fn the_key_is_answered() {
        let pairs =
            [("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let headers = pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect();
        let answer = choose(&headers, &["v5.channel.k8s.io"], &[]).expect("accepted").answer;
        // The example of RFC 6455.
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            (&answer.headers()[CONNECTION], &answer.headers()[UPGRADE]),
            (&"Upgrade".parse().expect("a value"), &"websocket".parse().expect("a value"))
        );
    }
}
