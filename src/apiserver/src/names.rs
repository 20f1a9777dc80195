//! Under which names and addresses the API server is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::server::Config;

/// Why a network of Services cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/bits`.
    #[error("{0:?} is not a network such as 10.43.0.0/16")]
    Form(String),
    /// No room for the first Service.
    #[error("{0:?} has no room for the first Service")]
    Small(String),
}

/// The first address of each network: that of the `kubernetes` Service.
pub fn first_addresses(cidrs: &str) -> Result<Vec<IpAddr>, CidrError> {
    cidrs.split(',').map(str::trim).map(first_address).collect()
}

fn first_address(cidr: &str) -> Result<IpAddr, CidrError> {
    let network: IpNet = cidr.parse().map_err(|_| CidrError::Form(cidr.to_owned()))?;
    if network.max_prefix_len() - network.prefix_len() < 2 {
        return Err(CidrError::Small(cidr.to_owned()));
    }
    Ok(match network.network() {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + 1).into(),
    })
}

/// Names and addresses of the serving certificate.
pub(crate) fn of_server(config: &Config, service_ips: &[IpAddr]) -> (Vec<String>, Vec<IpAddr>) {
    let domain = &config.cluster_domain;
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].iter().map(|name| (*name).to_owned()).collect();
    names.push(format!("kubernetes.default.svc.{domain}"));
    let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), config.advertise_address];
    ips.extend(service_ips);
    if !config.bind_address.is_unspecified() {
        ips.push(config.bind_address);
    }
    for san in &config.tls_sans {
        match san.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => names.push(san.clone()),
        }
    }
    names.sort_unstable();
    names.dedup();
    ips.sort_unstable();
    ips.dedup();
    (names, ips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_has_the_first_address() {
        for (cidr, first) in [
            ("10.43.0.0/16", Ok(vec!["10.43.0.1"])),
            ("10.43.7.9/24", Ok(vec!["10.43.7.1"])),
            ("10.43.0.0/16,fd00:43::/112", Ok(vec!["10.43.0.1", "fd00:43::1"])),
            ("0.0.0.0/0", Ok(vec!["0.0.0.1"])),
            ("10.43.0.0", Err(CidrError::Form("10.43.0.0".into()))),
            ("10.43.0.0/33", Err(CidrError::Form("10.43.0.0/33".into()))),
            ("10.43.0.0/31", Err(CidrError::Small("10.43.0.0/31".into()))),
        ] {
            let first = first.map(|list| list.into_iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect::<Vec<_>>());
            assert_eq!(first_addresses(cidr), first, "{cidr}");
        }
    }
}
