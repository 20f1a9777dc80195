//! Takes all of a cluster's dataplane off the machine.

use std::{fs, io, path::Path, thread};

use crate::{
    kernel::{
        attach,
        object::{self, Pins},
    },
    netlink::{Netlink, nft},
    pods::{
        netns,
        wire::{alias, link_prefix},
    },
};

/// What could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    /// A step on the machine.
    #[error("{what}")]
    System {
        /// What was tried, on which link, path or address.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Removes all that a cluster's dataplane put on this machine: pins, links, routes, namespaces, the nftables table, `state_dir`. Works with
/// nothing running, and on a machine where there is nothing. Goes on after a failure, and tells the first.
pub fn teardown(cluster_id: &str, state_dir: &Path) -> Result<(), TeardownError> {
    // On a thread of its own: the caller may stand in a reactor, where netlink must not be waited for.
    let all = thread::scope(|scope| scope.spawn(|| take_down(cluster_id, state_dir)).join());
    all.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn take_down(cluster_id: &str, state_dir: &Path) -> Result<(), TeardownError> {
    let pins = Pins::of(cluster_id);
    let steps: [(&str, &dyn Fn() -> io::Result<()>); 4] = [
        ("remove the links", &|| remove_links(cluster_id, &pins)),
        ("remove the eBPF pins", &|| object::remove_all(&pins)),
        ("remove the nftables table", &|| nft::remove(cluster_id)),
        ("remove the network namespaces and their state", &|| remove_state(state_dir)),
    ];
    let mut first = Ok(());
    for (what, step) in steps {
        let result = step().map_err(|source| TeardownError::System { what: format!("{what} of cluster {cluster_id}"), source });
        first = first.and(result);
    }
    first
}

fn remove_links(cluster_id: &str, pins: &Pins) -> io::Result<()> {
    let (prefix, ours) = (link_prefix(cluster_id), alias(cluster_id, ""));
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        // A link without alias is one whose making was cut off.
        if link.name.starts_with(&prefix) && (link.alias.is_empty() || link.alias.starts_with(&ours)) {
            netlink.delete_link(link.index)?;
        } else {
            // The uplink of a kernel without TCX has some; all others have none.
            attach::remove_filters(&mut netlink, pins, link.index)?;
        }
    }
    Ok(())
}

fn remove_state(state_dir: &Path) -> io::Result<()> {
    match fs::read_dir(state_dir.join("netns")) {
        Ok(entries) => {
            for entry in entries {
                netns::remove(&entry?.path())?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match fs::remove_dir_all(state_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
