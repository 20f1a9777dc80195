//! Where the programs are attached: links with pins, so that they stay when this process ends and are updated by the next.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use super::{
    bpf::{self, Hook},
    object::{Pins, Programs, fnv},
};
use crate::netlink::{Netlink, tc::Direction};

/// The hooks of sockets, each with its program.
const SOCKET_HOOKS: [(&str, Hook); 4] =
    [("connect4", Hook::Connect4), ("sendmsg4", Hook::Sendmsg4), ("recvmsg4", Hook::Recvmsg4), ("getpeername4", Hook::Getpeername4)];

/// How programs get onto network links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// TCX (kernel 6.6): pinned links beside those of others, updated atomically.
    Tcx,
    /// clsact filters, replaced atomically; they live as long as the network link.
    Clsact,
}

/// The two programs of a network link.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    ingress: &'static str,
    egress: &'static str,
}

/// Those of the host's end of a pod's link.
pub const OF_POD: Pair = Pair { ingress: "from_pod", egress: "to_pod" };
/// Those of the interface that has the node's address.
pub const OF_UPLINK: Pair = Pair { ingress: "from_outside", egress: "to_outside" };

/// Attaches to a network link, or makes sure that what is attached are this build's programs. `name` is unique among the cluster's pins.
pub fn to_link(
    netlink: &mut Netlink,
    pins: &Pins,
    style: Style,
    programs: &Programs,
    pair: Pair,
    name: &str,
    index: u32,
) -> io::Result<()> {
    match style {
        Style::Tcx => {
            attach(pins, programs, pair.ingress, &format!("{name}-in"), index, Hook::TcxIngress)?;
            attach(pins, programs, pair.egress, &format!("{name}-out"), index, Hook::TcxEgress)
        }
        Style::Clsact => {
            netlink.add_clsact(index)?;
            netlink.add_filter(index, Direction::Ingress, priority(pins), programs.get(pair.ingress)?)?;
            netlink.add_filter(index, Direction::Egress, priority(pins), programs.get(pair.egress)?)
        }
    }
}

/// Attaches the socket hooks to a cgroup of the v2 hierarchy.
pub fn to_cgroup(pins: &Pins, programs: &Programs, cgroup: &Path) -> io::Result<()> {
    let directory = fs::File::open(cgroup)?;
    for (program, hook) in SOCKET_HOOKS {
        attach(pins, programs, program, &format!("cgroup-{program}"), directory.as_raw_fd() as u32, hook)?;
    }
    Ok(())
}

/// Takes this cluster's filters off a link that others use too; that there are none is no error.
pub fn remove_filters(netlink: &mut Netlink, pins: &Pins, index: u32) -> io::Result<()> {
    for direction in [Direction::Ingress, Direction::Egress] {
        netlink.delete_filter(index, direction, priority(pins))?;
    }
    Ok(())
}

/// The priority of this cluster's clsact filters on links that it shares with others.
fn priority(pins: &Pins) -> u16 {
    0xc000 | (fnv(pins.root.as_os_str().as_encoded_bytes()) & 0xfff) as u16
}

fn attach(pins: &Pins, programs: &Programs, program: &str, pin: &str, target: u32, hook: Hook) -> io::Result<()> {
    let path = pins.links.join(pin);
    let program = programs.get(program)?;
    match bpf::open(&path) {
        Ok(link) => match bpf::link_update(link.as_fd(), program) {
            Ok(()) => return Ok(()),
            // Its network link or cgroup is gone, and a new one has come in its place.
            Err(_) => fs::remove_file(&path)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let link = bpf::link_create(program, target, hook)?;
    bpf::pin(link.as_fd(), &path)
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;
    use crate::kernel::object;

    #[test]
    fn a_filter_is_replaced_by_the_next_of_its_cluster() {
        // A thread of its own, in a namespace of its own.
        let worker = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
            let pins = Pins::of(&format!("clsact-{}", std::process::id()));
            let programs = object::load(&pins).expect("load");
            let mut netlink = Netlink::open().expect("netlink");
            let made = [InfoKind::Dummy, InfoKind::Bridge].into_iter().any(|kind| netlink.add_link("x0", kind).is_ok());
            assert!(made, "neither dummy nor bridge");
            let index = netlink.link("x0").expect("link").index;
            remove_filters(&mut netlink, &pins, index).expect("a link without filters is no error");
            // Twice: the second replaces.
            for _ in 0..2 {
                to_link(&mut netlink, &pins, Style::Clsact, &programs, OF_POD, "x", index).expect("attach");
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                let mut delete = || netlink.delete_filter(index, direction, priority(&pins)).expect("delete");
                assert_eq!((delete(), delete()), (true, false), "exactly one filter");
            }
            object::remove_all(&pins).expect("remove");
        });
        worker.join().expect("thread");
    }
}
