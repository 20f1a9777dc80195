//! Messages of a WebSocket that carry several channels: the first byte names the channel; in base64 it is a digit, and the rest is text.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

/// How the bytes of a channel are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Binary,
    /// As text, for clients that cannot read binary messages.
    Base64,
}

impl Coding {
    /// What a subprotocol's name says.
    pub fn of(protocol: &str) -> Self {
        if protocol.contains("base64") { Self::Base64 } else { Self::Binary }
    }

    /// A message on a channel.
    pub fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut out = BytesMut::with_capacity(data.len() + 1);
                out.put_u8(channel);
                out.put_slice(data);
                Message::Binary(out.freeze())
            }
            Self::Base64 => {
                let mut out = String::with_capacity(data.len().div_ceil(3) * 4 + 1);
                out.push(char::from(b'0'.saturating_add(channel)));
                STANDARD.encode_string(data, &mut out);
                Message::Text(out.into())
            }
        }
    }

    /// The channel and the bytes of a message; `None` for one that carries none.
    pub fn read(self, message: Message) -> Option<(u8, Bytes)> {
        let mut data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            _ => return None,
        };
        if data.is_empty() {
            return None;
        }
        let channel = data.split_to(1)[0];
        match self {
            Self::Binary => Some((channel, data)),
            Self::Base64 => Some((channel.checked_sub(b'0')?, STANDARD.decode(&data).ok()?.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_written() {
        for (coding, data, written) in [
            (Coding::Binary, &b"\xffx"[..], Message::Binary(Bytes::from_static(b"\x03\xffx"))),
            (Coding::Binary, b"", Message::Binary(Bytes::from_static(b"\x03"))),
            (Coding::Base64, b"\xffx", Message::Text("3/3g=".into())),
            (Coding::Base64, b"", Message::Text("3".into())),
        ] {
            let message = coding.message(3, data);
            assert_eq!(message, written);
            assert_eq!(coding.read(message), Some((3, Bytes::copy_from_slice(data))));
        }
        for (coding, message) in [
            (Coding::Binary, Message::Binary(Bytes::new())),
            (Coding::Binary, Message::Ping(Bytes::from_static(b"0x"))),
            (Coding::Base64, Message::Text("".into())),
            (Coding::Base64, Message::Text("\u{1}AAAA".into())),
            (Coding::Base64, Message::Text("0not base64".into())),
        ] {
            assert_eq!(coding.read(message.clone()), None, "{message:?}");
        }
    }
}
