//! Uids, generated names and other things that must not be guessed or repeated.

use ring::rand::{SecureRandom as _, SystemRandom};

/// No vowels, so no words; none that look alike. As upstream.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters behind a `generateName`.
const SUFFIX_CHARS: usize = 5;
/// Longer bases are cut, so that the name is a DNS label.
const MAX_BASE_BYTES: usize = 63 - SUFFIX_CHARS;

fn fill<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only before it is seeded at boot, or without /dev; a repeated uid is then refused by the store.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// One random byte.
pub fn byte() -> u8 {
    fill::<1>()[0]
}

/// A random number.
pub fn number() -> u64 {
    u64::from_le_bytes(fill())
}

/// A version 4 UUID.
pub fn uid() -> String {
    let mut b = fill::<16>();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `generateName` with a random end.
pub fn name(base: &str) -> String {
    let mut end = base.len().min(MAX_BASE_BYTES);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let suffix: String = fill::<SUFFIX_CHARS>().iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect();
    format!("{}{suffix}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_uids_have_their_form() {
        let (one, other) = (uid(), uid());
        assert_ne!(one, other);
        assert_eq!((one.len(), one.as_bytes()[14]), (36, b'4'));
        let long = "é".repeat(100);
        for base in ["web-", "", long.as_str()] {
            let name = name(base);
            assert!(name.len() <= 63 && name.len() >= 5, "{name}");
        }
    }
}
