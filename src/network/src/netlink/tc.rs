//! Programs on links as clsact filters: on pods' own links, and on others by kernels before TCX (6.6). They stay with the link, unpinned.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
    },
};

use super::Netlink;

/// What `tc filter` shows.
const NAME: &str = "coracle";
const CLSACT: TcHandle = TcHandle { major: 0xffff, minor: 0 };
/// Of a filter among those of its priority: there is one.
const FILTER: TcHandle = TcHandle { major: 0, minor: 1 };

/// Which packets of a link a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the link hands to this host.
    Ingress,
    /// Those that this host hands to the link.
    Egress,
}

impl Netlink {
    /// Makes the qdisc that takes filters; that it is there already is no error.
    pub fn add_clsact(&mut self, index: u32) -> io::Result<()> {
        let header = TcHeader { index: index as i32, handle: CLSACT, parent: TcHandle::CLSACT, ..TcHeader::default() };
        let message = TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".into())]);
        match self.tell(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Attaches (or replaces) a program as the filter of a priority.
    pub fn add_filter(&mut self, index: u32, direction: Direction, priority: u16, program: BorrowedFd<'_>) -> io::Result<()> {
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
            TcFilterBpfOption::ProgName(NAME.into()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let mut message = filter(index, direction, priority);
        message.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
        self.tell(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes the filter of a priority; `false` when there is none.
    pub fn delete_filter(&mut self, index: u32, direction: Direction, priority: u16) -> io::Result<bool> {
        match self.tell(RouteNetlinkMessage::DelTrafficFilter(filter(index, direction, priority)), 0) {
            Ok(()) => Ok(true),
            // Without the qdisc the kernel calls the parent invalid.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn filter(index: u32, direction: Direction, priority: u16) -> TcMessage {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    let info = u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    let header = TcHeader { index: index as i32, handle: FILTER, parent: TcHandle { major: 0xffff, minor }, info, ..TcHeader::default() };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.into())])
}
