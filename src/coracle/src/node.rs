//! What the machine says of itself: host name and address.

use std::net::{IpAddr, Ipv4Addr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// The host name in the form that a node's name must have.
pub fn name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
    let host = host.to_ascii_lowercase().replace('_', "-");
    if coracle_api::names::dns_subdomain(&host).is_ok() { host } else { "coracle".into() }
}

/// The address of the default route's link, else of the first link that is up, else `fallback`.
pub fn address(fallback: IpAddr) -> IpAddr {
    let route = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = default_link(&route);
    let mut first = None;
    for address in getifaddrs().into_iter().flatten() {
        let Some(ip) = address.address.and_then(|a| a.as_sockaddr_in().map(|s| s.ip())) else { continue };
        let usable = address.flags.contains(InterfaceFlags::IFF_UP) && !address.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        if !usable || is_ours(&address.interface_name) {
            continue;
        }
        if Some(address.interface_name.as_str()) == default.as_deref() {
            return ip.into();
        }
        first.get_or_insert(ip);
    }
    first.map_or(fallback, |ip: Ipv4Addr| ip.into())
}

/// Links that a cluster of this machine made are no way to reach the node.
fn is_ours(link: &str) -> bool {
    link.starts_with("cor")
}

fn default_link(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let (link, destination) = (columns.next()?, columns.next()?);
        (destination == "00000000").then(|| link.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_names_a_link() {
        let table = "Iface\tDestination\tGateway\nlo\t0000007F\t0\neth1\t00000000\t0102A8C0\n";
        assert_eq!(default_link(table).as_deref(), Some("eth1"));
        assert_eq!(default_link("Iface\tDestination\n"), None);
    }
}
