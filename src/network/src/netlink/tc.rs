//! Programs on links the older way, for kernels before TCX (6.6): a clsact qdisc with a bpf filter. They stay with the link, unpinned.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Request;

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const HANDLE: u32 = 1;

/// Which packets of a link a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the link hands to this host.
    Ingress,
    /// Those that this host hands to the link.
    Egress,
}

/// Makes the qdisc that takes filters; that it is there already (`EEXIST`) is no failure.
pub fn add_clsact(index: u32) -> Request {
    Request::new(RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL).raw(&tcmsg(index, CLSACT_HANDLE, CLSACT, 0)).text(TCA_KIND, "clsact")
}

/// Attaches (or replaces) a program as the filter of a priority.
pub fn add_filter(index: u32, direction: Direction, priority: u16, name: &str, program: BorrowedFd<'_>) -> Request {
    Request::new(RTM_NEWTFILTER, libc::NLM_F_CREATE | libc::NLM_F_REPLACE)
        .raw(&tcmsg(index, HANDLE, parent(direction), info(priority)))
        .text(TCA_KIND, "bpf")
        .nested(TCA_OPTIONS, |options| {
            options
                .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
                .text(TCA_BPF_NAME, name)
                .attribute(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes())
        })
}

/// Removes the filter of a priority.
pub fn delete_filter(index: u32, direction: Direction, priority: u16) -> Request {
    Request::new(RTM_DELTFILTER, 0).raw(&tcmsg(index, HANDLE, parent(direction), info(priority))).text(TCA_KIND, "bpf")
}

fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, index, handle, parent, info];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
