//! Which address a pod gets. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// The network's own address and the node's stand before the first pod's.
const FIRST: u32 = 2;

/// The next free address after `last`, round the range: an address rests as long as possible before it is somebody else's.
/// The highest address is the broadcast's.
pub fn pick(pods: IpNet, used: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
    let IpNet::V4(pods) = pods else { return None };
    let (first, end) = (u32::from(pods.network()).saturating_add(FIRST), u32::from(pods.broadcast()));
    let after = match last {
        Some(IpAddr::V4(last)) if pods.contains(&last) => u32::from(last).saturating_add(1).max(first),
        _ => first,
    };
    (after..end).chain(first..after.min(end)).map(|ip| IpAddr::V4(ip.into())).find(|ip| !used.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> IpNet {
        text.parse().expect("a range")
    }

    #[test]
    fn the_network_the_node_and_the_broadcast_are_nobodys() {
        let mut used = BTreeSet::new();
        while let Some(address) = pick(cidr("10.42.3.0/29"), &used, None) {
            assert!(used.insert(address), "{address} was given twice");
        }
        let given: Vec<String> = used.iter().map(ToString::to_string).collect();
        assert_eq!(given, ["10.42.3.2", "10.42.3.3", "10.42.3.4", "10.42.3.5", "10.42.3.6"]);
    }

    #[test]
    fn ranges_without_room_have_none() {
        for text in ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30", "fd00::/64"] {
            let expected = if text == "10.0.0.0/30" { Some("10.0.0.2".parse().expect("address")) } else { None };
            assert_eq!(pick(cidr(text), &BTreeSet::new(), None), expected, "{text}");
        }
    }

    proptest! {
        /// Whatever comes and goes: no address is given twice, none outside the range, none refused while one is free, and the one
        /// given back last is not the next to be given while others are free.
        #[test]
        fn addresses_are_unique_and_rest(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let pods = cidr("10.42.9.0/28");
            let (mut used, mut last, mut released) = (BTreeSet::new(), None, None);
            for (attach, which) in steps {
                if attach {
                    match pick(pods, &used, last) {
                        Some(address) => {
                            prop_assert!(pods.hosts().skip(1).any(|host| host == address));
                            prop_assert!(used.len() == 12 || Some(address) != released || last.is_none());
                            prop_assert!(used.insert(address));
                            last = Some(address);
                            released = None;
                        }
                        None => prop_assert_eq!(used.len(), 13),
                    }
                } else if !used.is_empty() {
                    let gone = *which.get(&used.iter().copied().collect::<Vec<_>>());
                    used.remove(&gone);
                    // Only the address given last may come again soon: after a whole round.
                    released = (last == Some(gone)).then_some(gone);
                }
            }
        }
    }
}
