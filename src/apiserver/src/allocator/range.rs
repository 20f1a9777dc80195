//! A CIDR of Service addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bitmap::Bitmap;

/// Larger ranges are used up to this many addresses: upstream's bound for IPv6, 8 KiB of bitmap.
const MAX_ADDRESSES: u128 = 1 << 16;

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses such as 10.43.0.0/16")]
pub struct RangeError(pub String);

/// The addresses of a CIDR that Services can have.
#[derive(Debug)]
pub struct Range {
    base: u128,
    v6: bool,
    bits: u8,
    taken: Bitmap,
}

impl Range {
    /// Of `10.43.0.0/16`.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let (address, bits) = text.trim().split_once('/').ok_or_else(bad)?;
        let (address, bits): (IpAddr, u8) = (address.parse().map_err(|_| bad())?, bits.parse().map_err(|_| bad())?);
        let (number, width) = number(address);
        if bits > width || width - bits < 2 {
            return Err(bad());
        }
        let span = if width - bits >= 127 { u128::MAX } else { 1u128 << (width - bits) };
        let base = number / span * span;
        let size = usize::try_from(span.min(MAX_ADDRESSES)).map_err(|_| bad())?;
        // Upstream: at least 16, a sixteenth of small ranges, at most 256 for those who choose themselves.
        let dynamic_from = (size / 16).clamp(16, 256);
        let mut taken = Bitmap::new(size, dynamic_from);
        // The network itself, and IPv4's broadcast address.
        taken.take(0);
        if !address.is_ipv6() && span <= MAX_ADDRESSES {
            taken.take(size - 1);
        }
        Ok(Self { base, v6: address.is_ipv6(), bits, taken })
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }

    /// The range's first address for a Service: the one of `kubernetes`.
    pub fn first(&self) -> IpAddr {
        self.address(1)
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (number, width) = number(address);
        address.is_ipv6() == self.v6 && (self.bits == 0 || (number ^ self.base) >> (width - self.bits) == 0)
    }

    fn at(&self, address: IpAddr) -> Option<usize> {
        if !self.contains(address) {
            return None;
        }
        usize::try_from(number(address).0 - self.base).ok()
    }

    fn address(&self, at: usize) -> IpAddr {
        let number = self.base + at as u128;
        match u32::try_from(number) {
            Ok(number) if !self.v6 => Ipv4Addr::from(number).into(),
            _ => Ipv6Addr::from(number).into(),
        }
    }

    /// Takes an address; false when it is taken or not in the range.
    pub fn take(&mut self, address: IpAddr) -> bool {
        self.at(address).is_some_and(|at| self.taken.take(at))
    }

    /// Takes a free one.
    pub fn take_any(&mut self, random: u64) -> Option<IpAddr> {
        self.taken.take_any(random).map(|at| self.address(at))
    }

    /// Gives one back; never the network or the broadcast address.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(at) = self.at(address).filter(|at| *at > 0) {
            self.taken.release(at);
        }
    }
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_what_it_has_and_no_more() {
        let mut range = Range::parse("10.43.0.7/29").unwrap();
        let mut got: Vec<String> = (0..10).map_while(|i| range.take_any(i)).map(|ip| ip.to_string()).collect();
        got.sort();
        assert_eq!(got, (1..7).map(|i| format!("10.43.0.{i}")).collect::<Vec<_>>());
        range.release("10.43.0.3".parse().unwrap());
        range.release("10.43.0.0".parse().unwrap());
        assert_eq!(range.take_any(0), Some("10.43.0.3".parse().unwrap()));
        assert!(!range.take("10.44.0.1".parse().unwrap()) && !range.take("fd00::1".parse().unwrap()));
    }

    #[test]
    fn six_is_a_range_too() {
        let mut range = Range::parse("fd00:43::/112").unwrap();
        assert_eq!((range.family(), range.first()), ("IPv6", "fd00:43::1".parse().unwrap()));
        assert!(range.take(range.first()) && !range.take(range.first()));
        let any = range.take_any(99).unwrap();
        assert!(range.contains(any));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.43.0.0", "10.43.0.0/33", "10.43.0.0/31", "x/16", "10.43.0.0/-1"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
    }
}
