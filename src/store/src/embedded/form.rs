//! How a value lies in the log: as it is, or compressed, which halves what most writes cost the disk.

use bytes::Bytes;

use super::record::MAX_VALUE_BYTES;

/// Values below this gain nothing.
const MIN_BYTES: usize = 256;
/// Bytes of the length that a compressed value begins with.
const LENGTH: usize = 4;

/// How the bytes of a value are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// As they are.
    #[default]
    Plain = 0,
    /// Its length (32 bits, little end first), then an LZ4 block.
    Lz4 = 1,
}

impl Form {
    /// The form of this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Plain),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// A value as it lies in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored<'a> {
    /// How to read it.
    pub form: Form,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The value compressed; `None` when that does not save an eighth.
pub fn pack(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() < MIN_BYTES {
        return None;
    }
    let packed = lz4_flex::block::compress_prepend_size(value);
    (packed.len() < value.len() - value.len() / 8).then_some(packed)
}

/// The value again; an error says what is wrong with the bytes.
pub fn unpack(form: Form, bytes: Bytes) -> Result<Bytes, &'static str> {
    if form == Form::Plain {
        return Ok(bytes);
    }
    let (size, block) = bytes.split_first_chunk::<LENGTH>().ok_or("a compressed value without its length")?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > MAX_VALUE_BYTES {
        return Err("a compressed value that is larger than any may be");
    }
    match lz4_flex::block::decompress(block, size) {
        Ok(value) if value.len() == size => Ok(value.into()),
        Ok(_) | Err(_) => Err("a compressed value that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_object_takes_less_room_and_noise_none_more() {
        let object = r#"{"kind":"Pod","metadata":{"name":"web","labels":{"app":"web"},"managedFields":[{"manager":"a"},{"manager":"b"}]}}"#
            .repeat(4);
        assert!(pack(object.as_bytes()).unwrap().len() < object.len() / 3);
        assert_eq!(pack(&crate::embedded::tests::noise(1, 1000)), None);
        assert_eq!(pack(&[b'x'; MIN_BYTES - 1]), None);
    }

    #[test]
    fn a_lie_about_the_length_is_refused() {
        let mut packed = pack(&[b'x'; 1000]).unwrap();
        for size in [0u32, 999, 1001, u32::MAX] {
            packed[..LENGTH].copy_from_slice(&size.to_le_bytes());
            assert!(unpack(Form::Lz4, packed.clone().into()).is_err(), "{size}");
        }
        assert!(unpack(Form::Lz4, Bytes::from_static(b"abc")).is_err());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(value in proptest::collection::vec(0u8..4, 0..4000)) {
            let again = match pack(&value) {
                Some(packed) => unpack(Form::Lz4, packed.into()),
                None => unpack(Form::Plain, value.clone().into()),
            };
            prop_assert_eq!(again.unwrap(), value);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(Form::Lz4, bytes.into());
        }
    }
}
