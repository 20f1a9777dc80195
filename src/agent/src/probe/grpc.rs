//! The two messages of grpc.health.v1 on the wire: HealthCheckRequest out, HealthCheckResponse in.

use bytes::{BufMut as _, Bytes, BytesMut};

/// `SERVING`.
const SERVING: u64 = 1;

/// A length-prefixed HealthCheckRequest.
pub fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(&message);
    out.freeze()
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Whether a length-prefixed HealthCheckResponse says SERVING.
pub fn is_serving(body: &[u8]) -> bool {
    // The message has one field, number 1, a varint.
    let Some(message) = body.get(5..) else { return false };
    match message.split_first() {
        Some((0x08, rest)) => rest.first().is_some_and(|b| u64::from(*b) == SERVING),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]));
        assert!(!is_serving(&[0, 0, 0, 0, 0]));
    }
}
