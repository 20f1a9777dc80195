//! The node's own part: its address in the pod range, forwarding, masquerade, uplink, addresses.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use crate::{
    Config,
    netlink::{Socket, nft, route},
    pods::wire::{alias, disable_ipv6, link_prefix},
};

/// Kinds of links that can carry an address and nothing else; the first that the kernel has.
const LINK_KINDS: [&str; 2] = ["dummy", "bridge"];
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const SCOPE_UNIVERSE: u8 = 0;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NodeError {
    /// The step, with the link, path or address.
    pub what: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> NodeError {
    let what = what.into();
    move |source| NodeError { what, source }
}

/// The interface that has the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its MTU.
    pub mtu: u32,
}

/// Makes the link that has the node's address in the pod range, with the route to the range; may be repeated.
pub fn prepare(config: &Config, gateway: Ipv4Addr) -> Result<(), NodeError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed("open netlink"))?;
    let name = format!("{}node", link_prefix(&config.cluster_id));
    let held = route::addresses(&mut socket).map_err(failed("list addresses"))?;
    let own = route::find_link(&mut socket, &name).map_err(failed(format!("look for link {name}")))?;
    if let Some((index, ..)) =
        held.iter().find(|(index, address, _)| *address == gateway && Some(*index) != own.as_ref().map(|own| own.index))
    {
        let what = format!("pod range {} is in use: link {index} has {gateway}", config.pod_cidr);
        return Err(NodeError { what, source: io::ErrorKind::AddrInUse.into() });
    }
    let link = match own {
        Some(link) => link,
        None => add_link(&mut socket, &name).map_err(failed(format!("make link {name}")))?,
    };
    disable_ipv6(&name).map_err(failed(format!("switch off IPv6 on {name}")))?;
    let IpAddr::V4(pods) = config.pod_cidr.address() else {
        return Err(NodeError { what: format!("pod range {}", config.pod_cidr), source: io::ErrorKind::Unsupported.into() });
    };
    socket
        .call_all(vec![
            route::set_up(link.index, &alias(&config.cluster_id, "node")),
            route::add_address(link.index, gateway, 32, SCOPE_UNIVERSE),
            // What is in the range and no pod ends here, instead of leaving by the default route.
            route::add_link_route(pods, config.pod_cidr.prefix(), link.index, gateway),
        ])
        .map_err(|(_, error)| failed(format!("give {gateway} to {name}"))(error))?;
    write_sysctl("ipv4/ip_forward", "1")?;
    let mut netfilter = Socket::open(libc::NETLINK_NETFILTER).map_err(failed("open netfilter's netlink"))?;
    nft::masquerade(&mut netfilter, &config.cluster_id, config.pod_cidr, config.cluster_cidr)
        .map_err(failed(format!("make nftables table {}", nft::table(&config.cluster_id))))
}

/// The interface that has `node_ip`; `None` when none has. Loopback is no uplink.
pub fn uplink(node_ip: IpAddr) -> Result<Option<Uplink>, NodeError> {
    if node_ip.is_loopback() {
        return Ok(None);
    }
    let mut socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed("open netlink"))?;
    let addresses = route::addresses(&mut socket).map_err(failed("list addresses"))?;
    let Some((index, ..)) = addresses.iter().find(|(_, address, _)| IpAddr::V4(*address) == node_ip) else { return Ok(None) };
    let links = route::links(&mut socket).map_err(failed("list links"))?;
    Ok(links.into_iter().find(|link| link.index == *index).map(|link| Uplink { index: link.index, mtu: link.mtu }))
}

/// The addresses by which this node can be asked, loopback aside.
pub fn addresses() -> Result<Vec<Ipv4Addr>, NodeError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed("open netlink"))?;
    let all = route::addresses(&mut socket).map_err(failed("list addresses"))?;
    Ok(all.into_iter().map(|(_, address, _)| address).filter(|address| !address.is_loopback()).collect())
}

/// The cgroup that the socket hooks go to: the cluster's own, or the root of its hierarchy.
pub fn cgroup(config: &Config) -> Result<PathBuf, NodeError> {
    let path = &config.cgroup;
    fs::create_dir_all(path).map_err(failed(format!("make cgroup {}", path.display())))?;
    if !is_cgroup2(path) {
        let what = format!("{} is not in a cgroup hierarchy of version 2", path.display());
        return Err(NodeError { what, source: io::ErrorKind::InvalidInput.into() });
    }
    let root = path.ancestors().take_while(|ancestor| is_cgroup2(ancestor)).last().unwrap_or(path);
    Ok(if config.root_hooks { root.to_owned() } else { path.clone() })
}

fn is_cgroup2(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == CGROUP2_MAGIC)
}

fn add_link(socket: &mut Socket, name: &str) -> io::Result<route::Link> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    for kind in LINK_KINDS {
        result = socket.call(route::add_link(name, kind));
        if result.is_ok() {
            break;
        }
    }
    result?;
    route::find_link(socket, name)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

fn write_sysctl(name: &str, value: &str) -> Result<(), NodeError> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(failed(format!("write {value} to {}", path.display())))
}
