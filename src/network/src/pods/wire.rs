//! A pod's link: a /32 on a veth, its gateway a fixed neighbour, the programs on the host's end. Every step may be repeated.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::Path,
};

use coracle_ebpf_common::Pod;

use super::netns;
use crate::{
    kernel::{
        attach::{self, Style},
        object::{Pins, Programs, fnv},
    },
    netlink::{
        Netlink,
        route::{Link, Mac, Veth},
    },
};

/// The gateway of every pod: no host has it, the neighbour is written down.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pod's own end.
const POD_LINK: &str = "eth0";
const LOOPBACK_INDEX: u32 = 1;
/// Locally administered, unicast.
const MAC_PREFIX: u8 = 0x0a;

/// A pod's link is ours alone and its programs live as long as it does, so that filters need no pins; a TCX link would wait 11 ms for the kernel's RCU.
const STYLE: Style = Style::Clsact;

/// What all pods of a cluster share.
#[derive(Debug)]
pub struct Wiring {
    /// Tells clusters apart in names.
    pub cluster_id: String,
    /// Where the links of programs are pinned.
    pub pins: Pins,
    /// The node's address in the pod range: source of the host's packets to pods.
    pub node: Ipv4Addr,
    /// Of all links.
    pub mtu: u32,
}

/// What could not be done to a pod's link.
#[derive(Debug, thiserror::Error)]
#[error("{step} of sandbox {sandbox}")]
pub struct WireError {
    step: &'static str,
    sandbox: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Where a wired pod stands: its entry in the maps.
#[derive(Clone, Copy, Debug)]
pub struct Wired {
    /// The entry.
    pub pod: Pod,
    /// Cookie of its network namespace.
    pub netns: u64,
}

impl Wiring {
    /// Makes (or completes) namespace and link of a sandbox, with the programs on it.
    pub fn connect(&self, programs: &Programs, sandbox: &str, ip: IpAddr, netns: &Path) -> Result<Wired, WireError> {
        let fail = |step| move |source| WireError { step, sandbox: sandbox.to_owned(), source };
        let IpAddr::V4(ip) = ip else { return Err(fail("address")(io::ErrorKind::Unsupported.into())) };
        let name = link_name(&self.cluster_id, sandbox);
        let mut inside = netns::open_or_create(netns).map_err(fail("network namespace"))?;
        let mut host = Netlink::open().map_err(fail("netlink"))?;
        let (mac, host_mac) = (mac(&name, 0), mac(&name, 1));
        let found = host.find_link(&name).map_err(fail("link"))?;
        let known = inside.netlink.find_link(POD_LINK).map_err(fail("link"))?.is_some();
        if let Some(stale) = found.as_ref().filter(|_| !known) {
            // Its other end is in a namespace that is no longer this sandbox's.
            if !self.is_of(stale, sandbox) {
                let taken = io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} is the link of {}", stale.alias));
                return Err(fail("link")(taken));
            }
            host.delete_link(stale.index).map_err(fail("link"))?;
        }
        if !known {
            let veth = Veth { name: &name, mac: host_mac, peer: POD_LINK, peer_mac: mac, mtu: self.mtu };
            host.add_veth(&veth, inside.fd.as_fd()).map_err(fail("link"))?;
        }
        let link = host.link(&name).map_err(fail("link"))?;
        // First the programs, then the link goes up: no packet of the pod passes without them.
        attach::to_link(&mut host, &self.pins, STYLE, programs, attach::OF_POD, &name, link.index).map_err(fail("programs"))?;
        disable_ipv6(&name).map_err(fail("sysctl"))?;
        host.set_up_as(link.index, &alias(&self.cluster_id, sandbox))
            .and_then(|()| host.add_link_route(ip, 32, link.index, self.node))
            .and_then(|()| host.add_neighbour(link.index, ip, mac))
            .map_err(fail("route"))?;
        furnish(&mut inside.netlink, ip, host_mac).map_err(fail("address"))?;
        let cookie = inside.netlink.netns_cookie().map_err(fail("network namespace"))?;
        Ok(Wired { pod: Pod { ifindex: link.index, identity: 0, mac, host_mac, flags: 0 }, netns: cookie })
    }

    /// Gives the links of a sandbox this build's programs; `false` when the sandbox has no link.
    pub fn renew(&self, programs: &Programs, sandbox: &str) -> Result<bool, WireError> {
        let fail = |step| move |source| WireError { step, sandbox: sandbox.to_owned(), source };
        let name = link_name(&self.cluster_id, sandbox);
        let mut host = Netlink::open().map_err(fail("netlink"))?;
        let found = host.find_link(&name).map_err(fail("link"))?;
        let Some(link) = found.filter(|link| self.is_of(link, sandbox)) else { return Ok(false) };
        attach::to_link(&mut host, &self.pins, STYLE, programs, attach::OF_POD, &name, link.index).map_err(fail("programs"))?;
        Ok(true)
    }

    /// Takes link and namespace of a sandbox away.
    pub fn disconnect(&self, sandbox: &str, netns: &Path) -> Result<(), WireError> {
        let fail = |step| move |source| WireError { step, sandbox: sandbox.to_owned(), source };
        let name = link_name(&self.cluster_id, sandbox);
        let mut host = Netlink::open().map_err(fail("netlink"))?;
        let found = host.find_link(&name).map_err(fail("link"))?;
        if let Some(link) = found.filter(|link| self.is_of(link, sandbox)) {
            host.delete_link(link.index).map_err(fail("link"))?;
        }
        netns::remove(netns).map_err(fail("network namespace"))
    }

    /// Names are hashes, so two sandboxes may have the same; a link without alias is one whose making was cut off.
    fn is_of(&self, link: &Link, sandbox: &str) -> bool {
        link.alias.is_empty() || link.alias == alias(&self.cluster_id, sandbox)
    }
}

/// The pod's side of its namespace: loopback, its own link with the address, everything else by the gateway.
fn furnish(inside: &mut Netlink, ip: Ipv4Addr, host_mac: Mac) -> io::Result<()> {
    let eth0 = inside.link(POD_LINK)?;
    inside.set_up(LOOPBACK_INDEX)?;
    inside.set_up(eth0.index)?;
    inside.add_address(eth0.index, ip)?;
    inside.add_neighbour(eth0.index, GATEWAY, host_mac)?;
    inside.add_default_route(GATEWAY, eth0.index)
}

/// What the names of all links of a cluster begin with.
pub fn link_prefix(cluster_id: &str) -> String {
    format!("cor{:04x}", fnv(cluster_id.as_bytes()) & 0xffff)
}

/// What a link's alias says: whose it is.
pub fn alias(cluster_id: &str, what: &str) -> String {
    format!("coracle/{cluster_id}/{what}")
}

/// Keeps IPv6's own chatter off a link of the host; a kernel without IPv6 has none.
pub fn disable_ipv6(link: &str) -> io::Result<()> {
    match std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Fifteen bytes, as many as a link's name may have.
fn link_name(cluster_id: &str, sandbox: &str) -> String {
    format!("{}{:08x}", link_prefix(cluster_id), fnv(sandbox.as_bytes()) as u32)
}

fn mac(link: &str, end: u8) -> Mac {
    let hash = fnv(link.as_bytes()).to_be_bytes();
    [MAC_PREFIX, hash[4], hash[5], hash[6], hash[7], (hash[3] & 0xfe) | end]
}
