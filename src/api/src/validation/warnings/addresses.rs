//! Addresses that are written in an unusual way: programs disagree on what they mean.

use std::net::{IpAddr, Ipv4Addr};

use super::super::field::Field;

/// What an address means to lenient readers: numbers may begin with zeros, and IPv4 may be written as IPv6.
fn lenient(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(parts).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An address that validation let pass.
pub(super) fn ip(field: &Field<'_>) {
    let text = field.text();
    let Some(address) = lenient(text) else { return };
    match text.parse::<IpAddr>() {
        Ok(strict) if strict != address => field.warn(format!("not a standard form of an address: use {address}")),
        Err(_) => field.warn(format!("not a standard form of an address: use {address}")),
        Ok(strict) if strict.is_ipv6() && strict.to_string() != text => {
            field.warn(format!("not the canonical form of an IPv6 address (RFC 5952): use {strict}"));
        }
        Ok(_) => {}
    }
}

/// The first address of a range.
fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4) & u32::MAX.checked_shl(32 - bits).unwrap_or(0))),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()),
    }
}

/// A range of addresses that validation let pass.
pub(super) fn cidr(field: &Field<'_>) {
    let text = field.text();
    let Some((first, length)) = text.split_once('/') else { return };
    let (Some(address), Ok(bits)) = (lenient(first), length.parse::<u32>()) else { return };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if bits > longest {
        return;
    }
    let network = masked(address, bits);
    let canonical = format!("{network}/{bits}");
    if address != network {
        field.warn(format!("ambiguous: the whole network is {canonical}, the one address {address}/{longest}"));
    }
    let standard = first.parse::<IpAddr>().is_ok_and(|strict| strict == address) && length == bits.to_string();
    if !standard || (address == network && address.is_ipv6() && canonical != text) {
        field.warn(format!("not the canonical form of a range: use {canonical}"));
    }
}
