//! What the controllers are told at their start.

use std::{net::IpAddr, sync::Arc, time::Duration};

use coracle_pki::authority::Authority;
use ipnet::IpNet;

use crate::record::Records;

/// How long what is signed holds, if nobody says otherwise; upstream's default.
pub const SIGNING_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A node that is known otherwise than by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNode {
    /// Of the object.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

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
    /// The longest life of what is signed, and that of what names none.
    pub signing_duration: Duration,
    /// The node beside, whose names and addresses the operator has given: its requests for a serving certificate under these are approved.
    pub own_node: Option<OwnNode>,
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
            signing_duration: SIGNING_DURATION,
            own_node: None,
            node_grace: Duration::from_secs(50),
            terminated_pods: 12_500,
            resync: Duration::from_secs(600),
            records: Records::default(),
        }
    }
}
