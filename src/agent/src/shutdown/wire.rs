//! D-Bus messages as bytes, as far as logind needs them: method calls with strings, replies and signals. Pure.
//!
//! The format is the D-Bus specification's, version 1; bodies are read field by field with their alignment.

/// Bytes of a message that are taken: logind's are some hundreds.
pub const MAX_BYTES: usize = 1 << 20;
/// The fixed part of a header.
const FIXED_BYTES: usize = 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks somebody to do something.
    Call,
    /// The answer.
    Reply,
    /// The answer of somebody who did not.
    Error,
    /// Told to all who asked for it.
    Signal,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number among those of its sender.
    pub serial: u32,
    /// Of which call it is the answer.
    pub reply_to: Option<u32>,
    /// Object, interface, member, name of an error, destination: empty where there is none.
    pub path: String,
    /// As above.
    pub interface: String,
    /// As above.
    pub member: String,
    /// As above.
    pub error: String,
    /// As above.
    pub destination: String,
    /// Types of the body's fields.
    pub signature: String,
    /// File descriptors that come with it.
    pub descriptors: u32,
    /// Its arguments, as bytes.
    pub body: Vec<u8>,
    /// The order of its numbers.
    pub little: bool,
}

/// What is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than is taken.
    #[error("a message of more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not of this protocol.
    #[error("not a message of D-Bus: {0}")]
    Malformed(&'static str),
}

impl Message {
    /// A message of this kind with nothing in it.
    pub fn new(kind: Kind, serial: u32) -> Self {
        Self {
            kind,
            serial,
            reply_to: None,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            destination: String::new(),
            signature: String::new(),
            descriptors: 0,
            body: Vec::new(),
            little: true,
        }
    }

    /// With this string as the next argument.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        put_text(&mut self.body, text);
        self
    }

    /// With this number as the next argument, of the type `u`, `i`, `b` or `h`.
    #[must_use]
    pub fn number(mut self, kind: char, number: u32) -> Self {
        self.signature.push(kind);
        put_number(&mut self.body, number);
        self
    }

    /// With this 64-bit number as the next argument, in a variant.
    #[must_use]
    pub fn variant_long(mut self, number: u64) -> Self {
        self.signature.push('v');
        self.body.extend([1, b't', 0]);
        pad(&mut self.body, 8);
        self.body.extend(number.to_le_bytes());
        self
    }

    /// As bytes; always little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut fields = Vec::new();
        let texts =
            [(1, 'o', &self.path), (2, 's', &self.interface), (3, 's', &self.member), (4, 's', &self.error), (6, 's', &self.destination)];
        for (code, kind, text) in texts.into_iter().filter(|(_, _, text)| !text.is_empty()) {
            begin_field(&mut fields, code, kind);
            put_text(&mut fields, text);
        }
        if !self.signature.is_empty() {
            begin_field(&mut fields, 8, 'g');
            fields.push(self.signature.len() as u8);
            fields.extend(self.signature.bytes().chain([0]));
        }
        for (code, number) in [(5, self.reply_to), (9, Some(self.descriptors).filter(|n| *n > 0))] {
            if let Some(number) = number {
                begin_field(&mut fields, code, 'u');
                put_number(&mut fields, number);
            }
        }
        let mut out = vec![b'l', kind, 0, 1];
        for number in [self.body.len() as u32, self.serial, fields.len() as u32] {
            out.extend(number.to_le_bytes());
        }
        out.extend(fields);
        pad(&mut out, 8);
        out.extend(&self.body);
        out
    }

    /// The message at the beginning of `bytes`, and how long it is; `None` when not all of it is there yet.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
        let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Ok(None) };
        let little = match fixed[0] {
            b'l' => true,
            b'B' => false,
            _ => return Err(WireError::Malformed("no byte order")),
        };
        let kind = match fixed[1] {
            1 => Kind::Call,
            2 => Kind::Reply,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err(WireError::Malformed("no such kind")),
        };
        let mut head = Body { bytes: fixed, at: 4, little };
        let broken = WireError::Malformed("a header that ends early");
        let lengths = [head.number(), head.number(), head.number()].map(|n| n.ok_or(broken.clone()));
        let [body_bytes, serial, field_bytes] = lengths;
        let (body_bytes, serial, field_bytes) = (body_bytes? as usize, serial?, field_bytes? as usize);
        let begin = (FIXED_BYTES + field_bytes.min(MAX_BYTES)).next_multiple_of(8);
        let whole = begin + body_bytes.min(MAX_BYTES);
        if whole > MAX_BYTES {
            return Err(WireError::TooLarge);
        }
        let Some(all) = bytes.get(..whole) else { return Ok(None) };
        let mut message = Message { little, ..Message::new(kind, serial) };
        let mut fields = Body { bytes: &all[..FIXED_BYTES + field_bytes], at: FIXED_BYTES, little };
        while fields.at < fields.bytes.len() {
            message.field(&mut fields).ok_or(broken.clone())?;
        }
        message.body = all[begin..].to_vec();
        Ok(Some((message, whole)))
    }

    fn field(&mut self, fields: &mut Body<'_>) -> Option<()> {
        fields.align(8);
        let code = fields.byte()?;
        let kind = fields.signature()?;
        match (code, kind.as_str()) {
            (1, "o") => self.path = fields.text()?,
            (2, "s") => self.interface = fields.text()?,
            (3, "s") => self.member = fields.text()?,
            (4, "s") => self.error = fields.text()?,
            (5, "u") => self.reply_to = Some(fields.number()?),
            (6, "s") => self.destination = fields.text()?,
            (8, "g") => self.signature = fields.signature()?,
            (9, "u") => self.descriptors = fields.number()?,
            // The sender, and what a later version may bring.
            (_, "s" | "o") => drop(fields.text()?),
            (_, "u" | "i" | "b") => drop(fields.number()?),
            (_, "g") => drop(fields.signature()?),
            _ => return None,
        }
        Some(())
    }

    /// Its arguments, to be read in their order.
    pub fn arguments(&self) -> Body<'_> {
        Body { bytes: &self.body, at: 0, little: self.little }
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn put_number(out: &mut Vec<u8>, number: u32) {
    pad(out, 4);
    out.extend(number.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u32);
    out.extend(text.bytes().chain([0]));
}

/// Fields begin at multiples of 8, as the body of the header does.
fn begin_field(out: &mut Vec<u8>, code: u8, kind: char) {
    pad(out, 8);
    out.extend([code, 1, kind as u8, 0]);
}

/// Fields that are read one after the other. `None`: there is no such field.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl Body<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// `u`, `i`, `b` or `h`.
    pub fn number(&mut self) -> Option<u32> {
        self.align(4);
        let little = self.little;
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// `t`.
    pub fn long(&mut self) -> Option<u64> {
        self.align(8);
        let little = self.little;
        let bytes: [u8; 8] = self.take(8)?.try_into().ok()?;
        Some(if little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }

    /// `s` or `o`.
    pub fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }

    /// `g`; also the type of a variant, which follows it.
    pub fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.byte()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `dbus-send --system --dest=org.freedesktop.DBus / org.freedesktop.DBus.Hello`, as the reference implementation writes it.
    const HELLO: &[u8] = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6e\x00\x00\x00\
        \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
        \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00";

    #[test]
    fn the_reference_is_read() {
        let (hello, length) = Message::decode(HELLO).expect("a message").expect("a whole one");
        assert_eq!(length, HELLO.len());
        assert_eq!((hello.kind, hello.serial, hello.member.as_str()), (Kind::Call, 1, "Hello"));
        assert_eq!((hello.path.as_str(), hello.destination.as_str()), ("/org/freedesktop/DBus", "org.freedesktop.DBus"));
        for short in 0..HELLO.len() {
            assert_eq!(Message::decode(&HELLO[..short]), Ok(None), "{short} bytes");
        }
    }

    #[test]
    fn arguments_stand_where_their_alignment_puts_them() {
        let message = Message::new(Kind::Reply, 7).text("ab").number('b', 1).variant_long(u64::MAX - 1).number('h', 3);
        assert_eq!(message.signature, "sbvh");
        let mut body = message.arguments();
        assert_eq!((body.text().as_deref(), body.number()), (Some("ab"), Some(1)));
        assert_eq!((body.signature().as_deref(), body.long(), body.number()), (Some("t"), Some(u64::MAX - 1), Some(3)));
        assert_eq!(body.number(), None, "there is no more");
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_there() {
        let mut bytes = HELLO.to_vec();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Message::decode(&bytes), Err(WireError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            serial in 1..u32::MAX, reply_to in any::<Option<u32>>(), texts in proptest::collection::vec("[a-z./]{0,20}", 5),
            arguments in proptest::collection::vec(".{0,12}", 0..4), descriptors in 0..4_u32,
        ) {
            let mut message = Message::new(Kind::Signal, serial);
            (message.reply_to, message.descriptors) = (reply_to, descriptors);
            message.path.clone_from(&texts[0]);
            message.interface.clone_from(&texts[1]);
            message.member.clone_from(&texts[2]);
            message.error.clone_from(&texts[3]);
            message.destination.clone_from(&texts[4]);
            for text in &arguments {
                message = message.text(text);
            }
            let mut bytes = message.encode();
            let length = bytes.len();
            bytes.extend(b"the next one");
            prop_assert_eq!(Message::decode(&bytes), Ok(Some((message.clone(), length))));
            let mut body = message.arguments();
            for text in &arguments {
                prop_assert_eq!(body.text(), Some(text.clone()));
            }
        }

        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
            if real && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(b"l\x02\x00\x01");
            }
            if let Ok(Some((message, _))) = Message::decode(&bytes) {
                let mut body = message.arguments();
                let _ = (body.signature(), body.text(), body.long(), body.number());
            }
        }
    }
}
