//! Links, addresses, routes and neighbours, by rtnetlink.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Answer, Request, Socket, attributes};

/// Of `IFLA_*`, as `linux/if_link.h` numbers them.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// The gateway is taken as reachable on the link without a route to it.
const RTNH_F_ONLINK: u32 = 4;
/// Marks our routes, for those who read `ip route`.
const PROTOCOL: u8 = 0xc0;
const IFINFO: usize = 16;
const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// A hardware address.
pub type Mac = [u8; 6];

/// A link of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias; empty without.
    pub alias: String,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
}

/// A pair of links: one end here, the other in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end that stays.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Name of the other end.
    pub peer: &'a str,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// Of both.
    pub mtu: u32,
}

/// Makes a pair of links.
pub fn add_veth(veth: &Veth<'_>, netns: BorrowedFd<'_>) -> Request {
    Request::new(libc::RTM_NEWLINK, CREATE)
        .raw(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, veth.name)
        .attribute(IFLA_ADDRESS, &veth.mac)
        .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&ifinfo(0, 0, 0))
                        .text(IFLA_IFNAME, veth.peer)
                        .attribute(IFLA_ADDRESS, &veth.peer_mac)
                        .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
                        .attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
                })
            })
        })
}

/// Makes a link that has no other end: of kind `dummy` or `bridge`.
pub fn add_link(name: &str, kind: &str) -> Request {
    Request::new(libc::RTM_NEWLINK, CREATE)
        .raw(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind))
}

/// Sets a link up, with an alias that says whose it is.
pub fn set_up(index: u32, alias: &str) -> Request {
    let request = Request::new(libc::RTM_NEWLINK, 0).raw(&ifinfo(index, libc::IFF_UP as u32, libc::IFF_UP as u32));
    if alias.is_empty() { request } else { request.attribute(IFLA_IFALIAS, alias.as_bytes()) }
}

/// Removes a link, and with it its addresses, routes and programs.
pub fn delete_link(index: u32) -> Request {
    Request::new(libc::RTM_DELLINK, 0).raw(&ifinfo(index, 0, 0))
}

/// Adds (or renews) an address.
pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8, scope: u8) -> Request {
    let mut header = vec![libc::AF_INET as u8, prefix, 0, scope];
    header.extend(index.to_ne_bytes());
    Request::new(libc::RTM_NEWADDR, REPLACE).raw(&header).attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets())
}

/// Adds (or replaces) a route to what is on the link itself; packets of this host leave with `source`.
pub fn add_link_route(target: Ipv4Addr, prefix: u8, index: u32, source: Ipv4Addr) -> Request {
    Request::new(libc::RTM_NEWROUTE, REPLACE)
        .raw(&rtmsg(prefix, libc::RT_SCOPE_LINK, 0))
        .attribute(RTA_DST, &target.octets())
        .attribute(RTA_OIF, &index.to_ne_bytes())
        .attribute(RTA_PREFSRC, &source.octets())
}

/// Adds (or replaces) the default route by a gateway that has no route of its own.
pub fn add_default_route(gateway: Ipv4Addr, index: u32) -> Request {
    Request::new(libc::RTM_NEWROUTE, REPLACE)
        .raw(&rtmsg(0, libc::RT_SCOPE_UNIVERSE, RTNH_F_ONLINK))
        .attribute(RTA_GATEWAY, &gateway.octets())
        .attribute(RTA_OIF, &index.to_ne_bytes())
}

/// Writes a neighbour down for good.
pub fn add_neighbour(index: u32, address: Ipv4Addr, mac: Mac) -> Request {
    let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(libc::NUD_PERMANENT.to_ne_bytes());
    header.extend([0, 0]);
    Request::new(libc::RTM_NEWNEIGH, REPLACE).raw(&header).attribute(NDA_DST, &address.octets()).attribute(NDA_LLADDR, &mac)
}

/// All links of the namespace.
pub fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let answers = socket.call(Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP).raw(&ifinfo(0, 0, 0)))?;
    Ok(answers.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK).filter_map(link).collect())
}

/// A link by its name; `None` when there is none.
pub fn find_link(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    match socket.call(Request::new(libc::RTM_GETLINK, 0).raw(&ifinfo(0, 0, 0)).text(IFLA_IFNAME, name)) {
        Ok(answers) => Ok(answers.iter().find_map(link)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All IPv4 addresses of the namespace, with the links that have them and the lengths of their prefixes.
pub fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Ipv4Addr, u8)>> {
    let answers = socket.call(Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP).raw(&[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]))?;
    Ok(answers.iter().filter_map(address).collect())
}

fn link(answer: &Answer) -> Option<Link> {
    let body = &answer.body;
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let flags = u32::from_ne_bytes(body.get(8..12)?.try_into().ok()?);
    let mut link = Link { index, name: String::new(), alias: String::new(), mtu: 0, up: flags & libc::IFF_UP as u32 != 0 };
    for (kind, value) in attributes(body, IFINFO) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_MTU => link.mtu = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    Some(link)
}

fn address(answer: &Answer) -> Option<(u32, Ipv4Addr, u8)> {
    let index = u32::from_ne_bytes(answer.body.get(4..8)?.try_into().ok()?);
    let (_, value) = attributes(&answer.body, 8).find(|(kind, _)| *kind == IFA_LOCAL)?;
    Some((index, <[u8; 4]>::try_from(value).ok()?.into(), *answer.body.get(1)?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut header = [0; IFINFO];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn rtmsg(prefix: u8, scope: u8, flags: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0..8].copy_from_slice(&[libc::AF_INET as u8, prefix, 0, 0, libc::RT_TABLE_MAIN, PROTOCOL, scope, libc::RTN_UNICAST]);
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header
}
