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
use crate::netlink::{Socket, tc, tc::Direction};

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

/// Attaches to a network link, or makes sure that what is attached is this build's program. `pin` is unique among the cluster's links.
pub fn to_link(pins: &Pins, style: Style, programs: &Programs, program: &str, pin: &str, index: u32, hook: Hook) -> io::Result<()> {
    match style {
        Style::Tcx => attach(pins, programs, program, pin, index, hook),
        Style::Clsact => {
            let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
            match socket.call(tc::add_clsact(index)) {
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
            let direction = if hook == Hook::TcxIngress { Direction::Ingress } else { Direction::Egress };
            socket.call(tc::add_filter(index, direction, priority(pins), "coracle", programs.get(program)?)).map(drop)
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

/// Takes the programs of a network link away; that there are none is no error.
pub fn detach(pins: &Pins, pin: &str) -> io::Result<()> {
    match fs::remove_file(pins.links.join(pin)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The priority of this cluster's clsact filters on links that it shares with others.
pub fn priority(pins: &Pins) -> u16 {
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

    use super::*;
    use crate::{kernel::object, netlink::route};

    #[test]
    fn a_filter_is_replaced_by_the_next_of_its_cluster() {
        // A thread of its own, in a namespace of its own.
        let worker = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
            let pins = Pins::of(&format!("clsact-{}", std::process::id()));
            let programs = object::load(&pins).expect("load");
            let mut socket = Socket::open(libc::NETLINK_ROUTE).expect("netlink");
            let made = ["dummy", "bridge"].iter().any(|kind| socket.call(route::add_link("x0", kind)).is_ok());
            assert!(made, "neither dummy nor bridge");
            let index = route::find_link(&mut socket, "x0").expect("netlink").expect("link").index;
            // Twice: the second replaces.
            for _ in 0..2 {
                to_link(&pins, Style::Clsact, &programs, "from_pod", "x-in", index, Hook::TcxIngress).expect("ingress");
                to_link(&pins, Style::Clsact, &programs, "to_pod", "x-out", index, Hook::TcxEgress).expect("egress");
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                socket.call(tc::delete_filter(index, direction, priority(&pins))).expect("exactly one filter");
                socket.call(tc::delete_filter(index, direction, priority(&pins))).expect_err("exactly one filter");
            }
            object::remove_all(&pins).expect("remove");
        });
        worker.join().expect("thread");
    }
}
