//! Links, addresses, routes and neighbours.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use futures::TryStreamExt;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
        route::{RouteMessage, RouteProtocol, RouteScope},
    },
};

use super::Netlink;

/// Marks our routes for those who read `ip route`; a number that `linux/rtnetlink.h` gives to nobody.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xc7);

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
}

/// An IPv4 address that a link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub ip: Ipv4Addr,
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

impl Netlink {
    /// Makes a pair of links, the other end in `netns`.
    pub fn add_veth(&mut self, veth: &Veth<'_>, netns: BorrowedFd<'_>) -> io::Result<()> {
        let peer =
            LinkUnspec::new_with_name(veth.peer).address(veth.peer_mac.to_vec()).mtu(veth.mtu).setns_by_fd(netns.as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .address(veth.mac.to_vec())
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.wait(self.handle.link().add(pair).execute())
    }

    /// Makes a link that has no other end: of kind `dummy` or `bridge`.
    pub fn add_link(&mut self, name: &str, kind: InfoKind) -> io::Result<()> {
        let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).name(name).build();
        self.wait(self.handle.link().add(link).execute())
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.wait(self.handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute())
    }

    /// Sets a link up, with an alias that says whose it is.
    pub fn set_up_as(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.wait(self.handle.link().change(LinkUnspec::new_with_index(index).alias(alias).up().build()).execute())
    }

    /// Removes a link, and with it its addresses, routes and programs. That it is gone already is no error.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        match self.wait(self.handle.link().del(index).execute()) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let links: Vec<_> = self.wait(self.handle.link().get().execute().try_collect())?;
        Ok(links.into_iter().map(link).collect())
    }

    /// A link by its name; `None` when there is none.
    pub fn find_link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.wait(self.handle.link().get().match_name(name).execute().try_collect::<Vec<_>>()) {
            Ok(found) => Ok(found.into_iter().next().map(link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link of this name; that there is none is an error.
    pub fn link(&mut self, name: &str) -> io::Result<Link> {
        self.find_link(name)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// All IPv4 addresses of the namespace.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        let found: Vec<_> = self.wait(request.execute().try_collect())?;
        Ok(found.iter().filter_map(address).collect())
    }

    /// Adds (or renews) an address that is a link's own, without a network.
    pub fn add_address(&mut self, index: u32, ip: Ipv4Addr) -> io::Result<()> {
        self.wait(self.handle.address().add(index, ip.into(), 32).replace().execute())
    }

    /// Adds (or replaces) a route to what is on the link itself; packets of this host leave with `source`.
    pub fn add_link_route(&mut self, target: Ipv4Addr, prefix: u8, index: u32, source: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(target, prefix).scope(RouteScope::Link);
        self.add_route(route.output_interface(index).pref_source(source).protocol(PROTOCOL).build())
    }

    /// Adds (or replaces) the default route by a gateway that has no route of its own.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr, index: u32) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).onlink();
        self.add_route(route.output_interface(index).protocol(PROTOCOL).build())
    }

    fn add_route(&mut self, route: RouteMessage) -> io::Result<()> {
        self.wait(self.handle.route().add(route).replace().execute())
    }

    /// Writes a neighbour down for good.
    pub fn add_neighbour(&mut self, index: u32, ip: Ipv4Addr, mac: Mac) -> io::Result<()> {
        self.wait(self.handle.neighbours().add(index, ip.into()).link_layer_address(&mac).replace().execute())
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), alias: String::new(), mtu: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<Address> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(Address { link: message.header.index, ip: *ip }),
        _ => None,
    })
}
