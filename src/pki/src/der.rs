//! Writes DER (X.690), as much of it as certificates need.

use jiff::{Timestamp, tz::TimeZone};

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `TRUE`, as DER has it.
pub(crate) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len())..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight bytes: the length of a slice.
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A sequence of elements.
pub(crate) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &elements.concat())
}

/// A bit string of whole bytes.
pub(crate) fn bytes_as_bits(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// Named bits, the first being the highest bit of the first byte; trailing zeros are left out.
pub(crate) fn named_bits(bits: u16) -> Vec<u8> {
    if bits == 0 {
        return element(BIT_STRING, &[0]);
    }
    let unused = (bits.trailing_zeros() % 8) as u8;
    let [first, second] = bits.to_be_bytes();
    if second == 0 { element(BIT_STRING, &[unused, first]) } else { element(BIT_STRING, &[unused, first, second]) }
}

/// An object identifier by its numbers.
pub(crate) fn object_id(arcs: &[u64]) -> Vec<u8> {
    let (first, rest) = match arcs {
        [a, b, rest @ ..] => (a * 40 + b, rest),
        _ => return element(OBJECT_ID, &[]),
    };
    let mut content = Vec::new();
    for arc in std::iter::once(&first).chain(rest) {
        let groups = (64 - arc.leading_zeros()).div_ceil(7).max(1);
        for group in (0..groups).rev() {
            let more = if group == 0 { 0 } else { 0x80 };
            content.push((arc >> (7 * group)) as u8 & 0x7f | more);
        }
    }
    element(OBJECT_ID, &content)
}

/// A time of a certificate: two digits for the year until 2049, four after (RFC 5280, 4.1.2.5).
pub(crate) fn time(at: Timestamp) -> Vec<u8> {
    let utc = at.to_zoned(TimeZone::UTC);
    if (1950..2050).contains(&utc.year()) {
        element(UTC_TIME, utc.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        element(GENERALIZED_TIME, utc.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written_as_x690_says() {
        assert_eq!(element(OCTET_STRING, &[]), [4, 0]);
        assert_eq!(element(OCTET_STRING, &[7; 127])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(OCTET_STRING, &[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(object_id(&[1, 2, 840, 10045, 4, 3, 2]), [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        assert_eq!(object_id(&[2, 5, 29, 15]), [6, 3, 0x55, 0x1d, 0x0f]);
        assert_eq!(named_bits(0b1010_0000_0000_0000), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(0b1000_0000_1000_0000), [3, 3, 7, 0x80, 0x80]);
    }

    #[test]
    fn years_have_two_digits_until_2049() {
        let at = |text: &str| time(text.parse().expect("a time"));
        assert_eq!(at("2049-12-31T23:59:59Z"), [&[0x17, 13][..], b"491231235959Z"].concat());
        assert_eq!(at("2050-01-01T00:00:00Z"), [&[0x18, 15][..], b"20500101000000Z"].concat());
    }
}
