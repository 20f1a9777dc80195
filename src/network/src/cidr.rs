//! An address range: what `10.42.0.0/16` says.

use std::{fmt, net::IpAddr, str::FromStr};

/// An address range. Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no address range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CidrError {
    /// The slash is missing.
    #[error("`{0}` has no prefix length: write it as 10.42.0.0/16")]
    NoPrefix(String),
    /// Left of the slash.
    #[error("`{0}` does not begin with an IP address")]
    Address(String),
    /// Right of the slash.
    #[error("`{0}` does not end with a prefix length that its address family has")]
    Prefix(String),
}

impl Cidr {
    /// The range of `prefix` bits that `address` lies in; `None` when the family has fewer bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => IpAddr::V4((u32::from(v4) & mask32(prefix)).into()),
            IpAddr::V6(v6) if prefix <= 128 => IpAddr::V6((u128::from(v6) & mask128(prefix)).into()),
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// The lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Cidr::new(address, self.prefix).is_some_and(|of| of.address == self.address)
    }

    /// The address `offset` steps above the lowest; `None` beyond the end.
    pub fn nth(&self, offset: u32) -> Option<IpAddr> {
        let address = match self.address {
            IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).checked_add(offset)?.into()),
            IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).checked_add(offset.into())?.into()),
        };
        self.contains(address).then_some(address)
    }

    /// The nth range of `prefix` bits inside this one: `10.42.0.0/16` holds 256 ranges of 24 bits.
    pub fn subnet(&self, prefix: u8, n: u32) -> Option<Cidr> {
        let bits = prefix.checked_sub(self.prefix)?;
        if bits < 32 && n >> bits != 0 {
            return None;
        }
        let address = match self.address {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | n.checked_shl(32u32.checked_sub(prefix.into())?)?).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | u128::from(n).checked_shl(128u32.checked_sub(prefix.into())?)?).into()),
        };
        Cidr::new(address, prefix)
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or_else(|| CidrError::NoPrefix(text.into()))?;
        let address = address.parse().map_err(|_| CidrError::Address(text.into()))?;
        let prefix = prefix.parse().map_err(|_| CidrError::Prefix(text.into()))?;
        Cidr::new(address, prefix).ok_or_else(|| CidrError::Prefix(text.into()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a range")
    }

    #[test]
    fn what_is_no_range_says_which_half() {
        for (text, error) in [
            ("10.42.0.0", CidrError::NoPrefix("10.42.0.0".into())),
            ("10.42.0/16", CidrError::Address("10.42.0/16".into())),
            ("10.42.0.0/33", CidrError::Prefix("10.42.0.0/33".into())),
            ("fd00::/129", CidrError::Prefix("fd00::/129".into())),
            ("10.42.0.0/x", CidrError::Prefix("10.42.0.0/x".into())),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(error));
        }
    }

    #[test]
    fn host_bits_are_dropped_and_ends_are_kept() {
        assert_eq!(cidr("10.42.3.9/24").to_string(), "10.42.3.0/24");
        assert_eq!(cidr("fd00::7/112").to_string(), "fd00::/112");
        assert!(cidr("0.0.0.0/0").contains("255.255.255.255".parse().expect("address")));
        assert!(!cidr("10.42.0.0/16").contains("10.43.0.0".parse().expect("address")));
        assert!(!cidr("10.42.0.0/16").contains("fd00::1".parse().expect("address")));
        assert_eq!(cidr("10.42.0.0/24").nth(255), Some("10.42.0.255".parse().expect("address")));
        assert_eq!(cidr("10.42.0.0/24").nth(256), None);
        assert_eq!(cidr("255.255.255.0/24").nth(256), None);
    }

    #[test]
    fn subnets_are_counted_from_the_lowest() {
        assert_eq!(cidr("10.42.0.0/16").subnet(24, 7), Some(cidr("10.42.7.0/24")));
        assert_eq!(cidr("10.42.0.0/16").subnet(24, 256), None);
        assert_eq!(cidr("10.42.0.0/16").subnet(8, 0), None);
        assert_eq!(cidr("10.42.0.0/24").subnet(24, 0), Some(cidr("10.42.0.0/24")));
    }
}
