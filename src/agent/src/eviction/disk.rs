//! What counts of a pod when a disk runs short: only what is on that disk. Pure.

use std::collections::BTreeMap;

use super::{pressure::Signal, usage::Taken};

/// What a pod has on disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Writable layers, by container.
    pub roots: BTreeMap<String, Taken>,
    /// Logs, by container.
    pub logs: BTreeMap<String, Taken>,
    /// Volumes that are the pod's own, together.
    pub volumes: Taken,
}

/// What counts for a signal, by container, and what volumes take under an empty name. `apart`: images and writable layers have a disk of
/// their own, and logs and volumes are on the other.
pub fn counted(parts: &Parts, signal: Signal, apart: bool) -> BTreeMap<String, u64> {
    let inodes = matches!(signal, Signal::Inodes | Signal::ImageInodes | Signal::ContainerInodes);
    let of = |taken: &Taken| if inodes { taken.inodes } else { taken.bytes };
    let on_node = matches!(signal, Signal::Disk | Signal::Inodes);
    let (roots, rest) = if apart { (!on_node, on_node) } else { (true, true) };
    let mut out = BTreeMap::new();
    let lists = [(roots, &parts.roots), (rest, &parts.logs)];
    for (name, taken) in lists.into_iter().filter(|(counts, _)| *counts).flat_map(|(_, list)| list) {
        *out.entry(name.clone()).or_default() += of(taken);
    }
    if rest {
        out.insert(String::new(), of(&parts.volumes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_disk_that_is_short_counts() {
        let taken = |bytes, inodes| Taken { bytes, inodes };
        let of = |bytes, inodes| BTreeMap::from([("a".to_owned(), taken(bytes, inodes))]);
        let parts = Parts { roots: of(100, 1), logs: of(20, 2), volumes: taken(3, 300) };
        let check = |signal, apart, want: &[(&str, u64)]| {
            let want = want.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
            assert_eq!(counted(&parts, signal, apart), want, "{signal:?} {apart}");
        };
        for signal in [Signal::Disk, Signal::Images, Signal::Containers] {
            check(signal, false, &[("", 3), ("a", 120)]);
        }
        for signal in [Signal::Inodes, Signal::ImageInodes, Signal::ContainerInodes] {
            check(signal, false, &[("", 300), ("a", 3)]);
        }
        check(Signal::Disk, true, &[("", 3), ("a", 20)]);
        check(Signal::Inodes, true, &[("", 300), ("a", 2)]);
        check(Signal::Images, true, &[("a", 100)]);
        check(Signal::Containers, true, &[("a", 100)]);
        check(Signal::ImageInodes, true, &[("a", 1)]);
    }
}
