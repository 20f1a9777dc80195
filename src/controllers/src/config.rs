//! What the controllers are told at their start.

use std::{net::IpAddr, str::FromStr, time::Duration};

use crate::record::Records;

/// A network in CIDR notation, taken apart: `10.42.0.0/16` is `(10.42.0.0, 16)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// Leading bits that are fixed.
    pub prefix: u8,
}

/// Why a text names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network in CIDR notation, such as 10.42.0.0/16")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let (address, prefix): (IpAddr, u8) = (address.parse().map_err(|_| error())?, prefix.parse().map_err(|_| error())?);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        // What a first address has beyond its prefix would collide with the parts of nodes.
        let rest = match address {
            IpAddr::V4(a) => u128::from(u32::from(a)) & u128::from(u32::MAX.checked_shr(prefix.into()).unwrap_or(0)),
            IpAddr::V6(a) => u128::from(a) & u128::MAX.checked_shr(prefix.into()).unwrap_or(0),
        };
        if prefix > bits || rest != 0 { Err(error()) } else { Ok(Self { address, prefix }) }
    }
}

/// Settings of all controllers; `Config::default()` has upstream's values and no cluster network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Networks that pods get their addresses from, at most one per family; empty: nodes get no podCIDR from us.
    pub cluster_cidrs: Vec<Cidr>,
    /// Prefix of a node's part of an IPv4 network.
    pub node_prefix_v4: u8,
    /// Prefix of a node's part of an IPv6 network.
    pub node_prefix_v6: u8,
    /// PEM of the authorities that pods trust the API server by, for the ConfigMap `kube-root-ca.crt` of every namespace; empty: none is made.
    pub ca_bundle: String,
    /// A node whose Lease is not renewed for this long is unknown.
    pub node_grace: Duration,
    /// Terminated pods beyond this number are removed, the oldest first; 0: none.
    pub terminated_pods: usize,
    /// Every key is looked at again after this long, though nothing changed: the net under the events.
    pub resync: Duration,
    /// Where every plan is recorded.
    pub records: Records,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_prefix_v4: 24,
            node_prefix_v6: 64,
            ca_bundle: String::new(),
            node_grace: Duration::from_secs(50),
            terminated_pods: 12_500,
            resync: Duration::from_secs(600),
            records: Records::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_whole_or_refused() {
        for good in ["10.42.0.0/16", "0.0.0.0/0", "10.0.0.1/32", "fd00::/48", "::/0", "::1/128"] {
            let cidr: Cidr = good.parse().unwrap();
            assert_eq!(format!("{}/{}", cidr.address, cidr.prefix), good);
        }
        for bad in ["", "10.42.0.0", "10.42.0.0/33", "10.42.0.1/16", "10.42/16", "fd00::1/48", "::/129", "a/b", "10.42.0.0/-1"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError(bad.into())));
        }
    }
}
