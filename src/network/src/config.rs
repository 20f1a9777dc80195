//! What the dataplane of one cluster on one node must know before it starts.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::IpNet;

/// A cluster's id is part of names on the machine.
const MAX_CLUSTER_ID: usize = 32;

/// The dataplane of one cluster on this node. All names on the machine (pins, links, nftables table) carry `cluster_id`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Tells clusters on one machine apart: 1 to 32 of `a-z`, `0-9` and `-`.
    pub cluster_id: String,
    /// Attachments and network namespaces (`netns/<sandbox>`). Gone with a reboot or not, both are right.
    pub state_dir: PathBuf,
    /// This node's part of the cluster's pod range; its first address is the node's own in it. No two clusters of a machine may share it.
    pub pod_cidr: IpNet,
    /// All pods of all nodes: not masqueraded.
    pub cluster_cidr: IpNet,
    /// Addresses of Services; may be the same in several clusters of a machine.
    pub service_cidr: IpNet,
    /// The node's name, for traffic policies that prefer its own pods.
    pub node_name: String,
    /// The node's address; the interface that has it is the uplink.
    pub node_ip: IpAddr,
    /// Path in the v2 hierarchy of cgroups below which this cluster's pods and commands live; made when missing.
    pub cgroup: PathBuf,
    /// Also serve the machine itself: socket hooks at the root of the v2 hierarchy and NodePort on the uplink. For the standing server only.
    pub root_hooks: bool,
}

impl Config {
    /// The node's address in its pod range: `10.42.0.1`. Reachable from pods and from the node.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.pod_cidr.hosts().next()
    }

    /// What is wrong, in words for who wrote it.
    pub(crate) fn check(&self) -> Result<Ipv4Addr, String> {
        let id = &self.cluster_id;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if id.is_empty() || id.len() > MAX_CLUSTER_ID || !id.bytes().all(plain) {
            return Err(format!("cluster id {id:?} is not 1 to {MAX_CLUSTER_ID} of a-z, 0-9 and -"));
        }
        for (what, range) in [("pod", self.pod_cidr), ("cluster", self.cluster_cidr), ("service", self.service_cidr)] {
            if !range.addr().is_ipv4() {
                return Err(format!("{what} range {range} is not IPv4, and IPv6 is not served yet"));
            }
            if range != range.trunc() {
                return Err(format!("{what} range {range} does not begin with its first address, {}", range.network()));
            }
        }
        if !self.cluster_cidr.contains(&self.pod_cidr) {
            return Err(format!("pod range {} is not within the cluster's range {}", self.pod_cidr, self.cluster_cidr));
        }
        if overlap(self.cluster_cidr, self.service_cidr) {
            return Err(format!("cluster range {} and service range {} overlap", self.cluster_cidr, self.service_cidr));
        }
        match self.gateway() {
            Some(IpAddr::V4(gateway)) if self.pod_cidr.prefix_len() <= 30 => Ok(gateway),
            _ => Err(format!("pod range {} has no room for a node and a pod", self.pod_cidr)),
        }
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(id: &str, pods: &str, cluster: &str, services: &str) -> Config {
        let cidr = |text: &str| text.parse().expect("a range");
        Config {
            cluster_id: id.into(),
            state_dir: "/nowhere".into(),
            pod_cidr: cidr(pods),
            cluster_cidr: cidr(cluster),
            service_cidr: cidr(services),
            node_name: "n".into(),
            node_ip: Ipv4Addr::LOCALHOST.into(),
            cgroup: "/nowhere".into(),
            root_hooks: false,
        }
    }

    #[test]
    fn a_wrong_configuration_says_what_is_wrong() {
        for (config, word) in [
            (config("", "10.42.0.0/24", "10.42.0.0/16", "10.43.0.0/16"), "cluster id"),
            (config("A", "10.42.0.0/24", "10.42.0.0/16", "10.43.0.0/16"), "cluster id"),
            (config("../a", "10.42.0.0/24", "10.42.0.0/16", "10.43.0.0/16"), "cluster id"),
            (config("a", "10.44.0.0/24", "10.42.0.0/16", "10.43.0.0/16"), "within"),
            (config("a", "10.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16"), "within"),
            (config("a", "10.42.0.0/24", "10.42.0.0/15", "10.43.0.0/16"), "overlap"),
            (config("a", "10.42.0.0/31", "10.42.0.0/16", "10.43.0.0/16"), "room"),
            (config("a", "10.42.0.7/24", "10.42.0.0/16", "10.43.0.0/16"), "first address"),
            (config("a", "fd00::/64", "fd00::/48", "10.43.0.0/16"), "IPv6"),
        ] {
            let error = config.check().expect_err("refused");
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(config("a", "10.42.7.0/24", "10.42.0.0/16", "10.43.0.0/16").check(), Ok(Ipv4Addr::new(10, 42, 7, 1)));
    }
}
