//! A sealed value: which key it is under, then AES-256-GCM with the entry's own key as additional data, so that no value passes for another's.
//!
//! `k8s:enc:aesgcm:v1:<key id>:`, the nonce (12 bytes), the ciphertext with its tag (16 bytes). Nonces are random: a key may seal 2^32 values
//! (NIST SP 800-38D, 8.3), more than a store writes between two rotations.

use bytes::Bytes;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};

/// What every sealed value starts with; upstream's tools look for it.
const MARK: &[u8] = b"k8s:enc:aesgcm:v1:";
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's digest that name it: enough to see that a key is not the one that was written down.
const ID_BYTES: usize = 8;

/// The system's source of randomness fails.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// A key that seals and opens.
#[derive(Debug)]
pub struct Key {
    /// Hex digits of its digest.
    pub id: String,
    bytes: [u8; KEY_BYTES],
    cipher: LessSafeKey,
}

impl Key {
    /// A new one.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Self::of(&bytes).ok_or(NoRandomness)
    }

    /// From its bytes; `None` when they are not as many as a key has.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
        let id = digest(&SHA256, bytes).as_ref()[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { id, bytes: bytes.try_into().ok()?, cipher })
    }

    /// Its bytes, for the key file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Seals the value of the entry `name`.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Bytes, NoRandomness> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
        let head = MARK.len() + self.id.len() + 1;
        let mut out = Vec::with_capacity(head + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(MARK);
        out.extend_from_slice(self.id.as_bytes());
        out.push(b':');
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let body = &mut out[head + NONCE_LEN..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        // It refuses values of 64 GiB alone; the store's bound is far below.
        let tag = self.cipher.seal_in_place_separate_tag(nonce, Aad::from(name.as_bytes()), body).map_err(|_| NoRandomness)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out.into())
    }

    /// Opens a value that this key has sealed for `name`; `None` when it is another key's or name's, or damaged.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Option<Bytes> {
        let (_, body) = split(sealed)?;
        let (nonce, body) = body.split_first_chunk::<NONCE_LEN>()?;
        let mut out = body.to_vec();
        let plain = self.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name.as_bytes()), &mut out).ok()?.len();
        out.truncate(plain);
        Some(out.into())
    }
}

/// The id of the key that a value is sealed under; `None`: it is not sealed.
pub fn key_id(value: &[u8]) -> Option<&str> {
    split(value).map(|(id, _)| id)
}

fn split(value: &[u8]) -> Option<(&str, &[u8])> {
    let rest = value.strip_prefix(MARK)?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    Some((std::str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(
            plain in proptest::collection::vec(any::<u8>(), 0..300), name in "[a-z/]{1,20}", flip in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let key = Key::random().unwrap();
            let sealed = key.seal(&name, &plain).unwrap();
            prop_assert_eq!(key_id(&sealed), Some(&*key.id));
            prop_assert!(key.open(&name, &sealed).is_some_and(|opened| opened == plain));
            prop_assert!(key.open(&format!("{name}x"), &sealed).is_none(), "a value is bound to its name");
            prop_assert!(Key::random().unwrap().open(&name, &sealed).is_none());
            let mut damaged = sealed.to_vec();
            let head = MARK.len() + key.id.len() + 1;
            let at = head + flip.index(damaged.len() - head);
            damaged[at] ^= 1 << bit;
            prop_assert!(key.open(&name, &damaged).is_none());
            prop_assert!(key.open(&name, &sealed[..at]).is_none());
        }
    }

    #[test]
    fn plain_values_are_known() {
        for value in [&b""[..], b"\x01\x02\x00{}", b"k8s:enc:", b"k8s:enc:aesgcm:v1:without-end"] {
            assert_eq!(key_id(value), None);
        }
        assert!(Key::of(&[0; 31]).is_none());
    }
}
