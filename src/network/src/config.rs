//! What the dataplane of one cluster on one node must know before it starts.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf};

use crate::Cidr;

/// The dataplane of one cluster on this node. All names on the machine (pins, links, nftables table) carry `cluster_id`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tells clusters on one machine apart: 1 to 32 of `a-z`, `0-9` and `-`.
    pub cluster_id: String,
    /// Attachments and network namespaces (`netns/<sandbox>`). Gone with a reboot or not, both are right.
    pub state_dir: PathBuf,
    /// This node's part of the cluster's pod range; its first address is the node's own in it. No two clusters of a machine may share it
    /// (`free_pod_cidr` finds one).
    pub pod_cidr: Cidr,
    /// All pods of all nodes: not masqueraded.
    pub cluster_cidr: Cidr,
    /// Addresses of Services; may be the same in several clusters of a machine.
    pub service_cidr: Cidr,
    /// The node's name, for traffic policies that prefer its own pods.
    pub node_name: String,
    /// The node's address; the interface that has it is the uplink.
    pub node_ip: IpAddr,
    /// Path in the v2 hierarchy of cgroups below which this cluster's pods and commands live; made when missing.
    pub cgroup: PathBuf,
    /// Also serve the machine itself: socket hooks at the root of the v2 hierarchy and NodePort on the uplink. For the standing server only.
    pub root_hooks: bool,
    /// Ports that NodePort Services have.
    pub node_port_range: RangeInclusive<u16>,
}

impl Config {
    /// The node's address in its pod range: `10.42.0.1`. Reachable from pods and from the node.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.pod_cidr.nth(1)
    }
}
