//! The node's own part: its address in the pod range, forwarding, masquerade, uplink, addresses.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use rtnetlink::packet_route::link::InfoKind;

use crate::{
    Config,
    netlink::{Netlink, nft, route::Link},
    pods::wire::{alias, disable_ipv6, link_prefix},
};

/// Kinds of links that can carry an address and nothing else; the first that the kernel has.
const LINK_KINDS: [InfoKind; 2] = [InfoKind::Dummy, InfoKind::Bridge];
const CGROUP2_MAGIC: i64 = 0x6367_7270;

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

/// Makes the link that has the node's address in the pod range, with the route to the range; may be repeated.
pub fn prepare(netlink: &mut Netlink, config: &Config, gateway: Ipv4Addr) -> Result<(), NodeError> {
    let (IpNet::V4(pods), IpNet::V4(cluster)) = (config.pod_cidr, config.cluster_cidr) else {
        return Err(NodeError { what: format!("pod range {}", config.pod_cidr), source: io::ErrorKind::Unsupported.into() });
    };
    let name = format!("{}node", link_prefix(&config.cluster_id));
    let held = netlink.addresses().map_err(failed("list addresses"))?;
    let own = netlink.find_link(&name).map_err(failed(format!("look for link {name}")))?;
    if let Some(other) = held.iter().find(|held| held.ip == gateway && Some(held.link) != own.as_ref().map(|own| own.index)) {
        let what = format!("pod range {pods} is in use: link {} has {gateway}", other.link);
        return Err(NodeError { what, source: io::ErrorKind::AddrInUse.into() });
    }
    let link = match own {
        Some(link) => link,
        None => add_link(netlink, &name).map_err(failed(format!("make link {name}")))?,
    };
    disable_ipv6(&name).map_err(failed(format!("switch off IPv6 on {name}")))?;
    netlink
        .set_up_as(link.index, &alias(&config.cluster_id, "node"))
        .and_then(|()| netlink.add_address(link.index, gateway))
        // What is in the range and no pod ends here, instead of leaving by the default route.
        .and_then(|()| netlink.add_link_route(pods.network(), pods.prefix_len(), link.index, gateway))
        .map_err(failed(format!("give {gateway} to {name}")))?;
    write_sysctl("ipv4/ip_forward", "1")?;
    nft::masquerade(&config.cluster_id, pods, cluster).map_err(failed(format!("make nftables table {}", nft::table(&config.cluster_id))))
}

/// The interface that has `node_ip`; `None` when none has. Loopback is no uplink.
pub fn uplink(netlink: &mut Netlink, node_ip: IpAddr) -> Result<Option<Link>, NodeError> {
    if node_ip.is_loopback() {
        return Ok(None);
    }
    let addresses = netlink.addresses().map_err(failed("list addresses"))?;
    let Some(own) = addresses.iter().find(|held| held.ip == node_ip) else { return Ok(None) };
    let links = netlink.links().map_err(failed("list links"))?;
    Ok(links.into_iter().find(|link| link.index == own.link))
}

/// The addresses by which this node can be asked, loopback aside.
pub fn addresses(netlink: &mut Netlink) -> Result<Vec<Ipv4Addr>, NodeError> {
    let all = netlink.addresses().map_err(failed("list addresses"))?;
    Ok(all.into_iter().map(|held| held.ip).filter(|ip| !ip.is_loopback()).collect())
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

fn add_link(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    for kind in LINK_KINDS {
        result = netlink.add_link(name, kind);
        if result.is_ok() {
            break;
        }
    }
    result?;
    netlink.link(name)
}

fn write_sysctl(name: &str, value: &str) -> Result<(), NodeError> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(failed(format!("write {value} to {}", path.display())))
}
