//! A CIDR of Service addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

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
    network: IpNet,
    taken: Bitmap,
}

impl Range {
    /// Of `10.43.0.0/16`.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let network: IpNet = text.trim().parse().map_err(|_| bad())?;
        Self::of(network).ok_or_else(bad)
    }

    /// Of a network; `None` when it has no room for a Service.
    pub fn of(network: IpNet) -> Option<Self> {
        let network = network.trunc();
        let free_bits = network.max_prefix_len() - network.prefix_len();
        if free_bits < 2 {
            return None;
        }
        let span = 1u128.checked_shl(free_bits.into()).unwrap_or(u128::MAX);
        let size = usize::try_from(span.min(MAX_ADDRESSES)).ok()?;
        // Upstream: at least 16, a sixteenth of small ranges, at most 256 for those who choose themselves.
        let dynamic_from = (size / 16).clamp(16, 256);
        let mut taken = Bitmap::new(size, dynamic_from);
        // The network itself, and IPv4's broadcast address.
        taken.take(0);
        if network.addr().is_ipv4() && span <= MAX_ADDRESSES {
            taken.take(size - 1);
        }
        Some(Self { network, taken })
    }

    /// The network.
    pub fn network(&self) -> IpNet {
        self.network
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.network.addr().is_ipv6() { "IPv6" } else { "IPv4" }
    }

    /// The range's first address for a Service: the one of `kubernetes`.
    pub fn first(&self) -> IpAddr {
        self.address(1)
    }

    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(&address)
    }

    fn at(&self, address: IpAddr) -> Option<usize> {
        if !self.contains(address) {
            return None;
        }
        usize::try_from(number(address) - number(self.network.addr())).ok()
    }

    fn address(&self, at: usize) -> IpAddr {
        let number = number(self.network.addr()) + at as u128;
        match u32::try_from(number) {
            Ok(number) if self.network.addr().is_ipv4() => Ipv4Addr::from(number).into(),
            _ => Ipv6Addr::from(number).into(),
        }
    }

    /// Whether an address is taken; one beyond the part that is given out is not.
    pub fn has(&self, address: IpAddr) -> bool {
        self.at(address).is_some_and(|at| self.taken.has(at))
    }

    /// All that are taken by somebody.
    pub fn given(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let broadcast = self.network.addr().is_ipv4().then(|| self.network.broadcast());
        let given = (1..self.taken.size()).filter(|at| self.taken.has(*at)).map(|at| self.address(at));
        given.filter(move |address| Some(*address) != broadcast)
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
        let broadcast = self.network.addr().is_ipv4() && address == self.network.broadcast();
        if let Some(at) = self.at(address).filter(|at| *at > 0 && !broadcast) {
            self.taken.release(at);
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
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
        range.release("10.43.0.7".parse().unwrap());
        assert_eq!((range.take_any(0), range.take_any(0)), (Some("10.43.0.3".parse().unwrap()), None));
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
