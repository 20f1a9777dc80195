//! Random identifiers (RFC 9562, version 4).

use ring::rand::{SecureRandom as _, SystemRandom};

/// A new one: `f81d4fae-7dec-41d0-a765-00a0c91e6bf6`.
pub fn random() -> String {
    let mut bytes = [0u8; 16];
    // The kernel's source fails only before the machine has booted far enough to run us.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}
