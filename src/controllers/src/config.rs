//! What the controllers are told at their start.

use std::{sync::Arc, time::Duration};

use coracle_pki::authority::Authority;
use ipnet::IpNet;

use crate::record::Records;

/// Settings of all controllers; `Config::default()` has upstream's values and no cluster network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Networks that pods get their addresses from, at most one per family; empty: nodes get no podCIDR from us.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix of a node's part of an IPv4 network.
    pub node_prefix_v4: u8,
    /// Prefix of a node's part of an IPv6 network.
    pub node_prefix_v6: u8,
    /// PEM of the authorities that pods trust the API server by, for the ConfigMap `kube-root-ca.crt` of every namespace; empty: none is made.
    pub ca_bundle: String,
    /// Signs certificate requests for the built-in signers; `None`: somebody else does.
    pub authority: Option<Arc<Authority>>,
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
            authority: None,
            node_grace: Duration::from_secs(50),
            terminated_pods: 12_500,
            resync: Duration::from_secs(600),
            records: Records::default(),
        }
    }
}
