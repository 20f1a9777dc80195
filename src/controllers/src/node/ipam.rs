//! Node IPAM: every node gets its part of the cluster's networks for its pods, for life.

use std::{collections::HashSet, sync::Arc};

use coracle_client::{EventType, events::reference};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::plan::{Patch, Plan, Target, Told};

/// What the runner saw: all nodes at once, as their parts must not overlap.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The cluster's networks, each with the prefix of a node's part.
    pub networks: &'a [(IpNet, u8)],
}

/// Parts for the nodes that have none.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut used: HashSet<String> = seen.nodes.iter().flat_map(|n| parts(n)).collect();
    let bare = |node: &&Arc<Node>| parts(node).is_empty() && node.metadata.deletion_timestamp.is_none();
    for node in seen.nodes.iter().filter(bare) {
        let free: Option<Vec<String>> = seen.networks.iter().map(|(network, prefix)| free_part(*network, *prefix, &used)).collect();
        match free {
            Some(parts) if !parts.is_empty() => {
                used.extend(parts.iter().cloned());
                plan.patches.push(Patch::merge(Target::of(&**node), json!({"spec": {"podCIDR": parts[0], "podCIDRs": parts}})));
            }
            Some(_) => {}
            None => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                plan.events.push(Told {
                    regarding: reference(&**node),
                    kind: EventType::Normal,
                    reason: "CIDRNotAvailable",
                    message: format!("Node {name} status is now: CIDRNotAvailable"),
                });
            }
        }
    }
    plan
}

fn parts(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let mut parts = spec.pod_cidrs.clone().unwrap_or_default();
    parts.extend(spec.pod_cidr.clone().filter(|c| !c.is_empty() && !parts.contains(c)));
    parts
}

/// The lowest part that nobody has.
fn free_part(network: IpNet, prefix: u8, used: &HashSet<String>) -> Option<String> {
    // More than are used need not be looked at.
    let parts = network.subnets(prefix).ok()?.take(used.len() + 1);
    parts.map(|part| part.to_string()).find(|part| !used.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}})).unwrap())
    }

    fn check(networks: &[(&str, u8)], nodes: &[&str], expected: &str) {
        let networks: Vec<_> = networks.iter().map(|(network, node)| (network.parse().unwrap(), *node)).collect();
        let nodes: Vec<_> = nodes.iter().enumerate().map(|(i, cidr)| node(&i.to_string(), cidr)).collect();
        let plan = plan(&Observed { nodes: &nodes, networks: &networks });
        let mut words: Vec<String> = plan.patches.iter().map(|p| format!("{}={}", p.target.key.name, p.body["spec"]["podCIDRs"])).collect();
        words.extend(plan.events.iter().map(|e| e.reason.to_owned()));
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn nodes_get_the_lowest_free_parts() {
        let v4 = ("10.42.0.0/16", 24);
        check(&[v4], &["", ""], r#"0=["10.42.0.0/24"] 1=["10.42.1.0/24"]"#);
        check(&[v4], &["10.42.0.0/24", "", "10.42.2.0/24", ""], r#"1=["10.42.1.0/24"] 3=["10.42.3.0/24"]"#);
        check(&[v4, ("fd00::/48", 64)], &[""], r#"0=["10.42.0.0/24","fd00::/64"]"#);
        check(&[], &[""], "");
        check(&[("10.0.0.0/24", 25)], &["10.0.0.0/25", "10.0.0.128/25", ""], "CIDRNotAvailable");
        check(&[("10.0.0.0/24", 20)], &[""], "CIDRNotAvailable");
    }
}
