//! Sockets: a Service is translated once, at connect() or sendmsg(), and the program goes on seeing the Service's address.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use coracle_ebpf_common::*;

use crate::{
    maps::{NODE, POD_NETNS, SOCKETS},
    service::{self, Answer},
};

/// Let the system call go on.
const ALLOW: i32 = 1;
/// Let it fail with what was set.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// Who owns the socket.
enum Owner {
    /// A program in the node's own network namespace.
    Node,
    /// A pod of this cluster, by its address.
    Pod(Address),
    /// Somebody else's namespace: not our business.
    Stranger,
}

/// connect() of TCP and UDP, and sendmsg() of UDP.
///
/// UDP of pods is left to the packet path, which sees each datagram and so leaves a backend that has gone; a connected UDP socket would keep to it.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    // SAFETY: the context is valid for the program's run; the verifier checks each access.
    let (protocol, v4, port) = unsafe { ((*sock).protocol as u8, (*sock).user_ip4, (*sock).user_port as u16) };
    if protocol != TCP && protocol != UDP {
        return ALLOW;
    }
    let (client, on_node) = match owner(ctx) {
        Owner::Stranger => return ALLOW,
        Owner::Pod(_) if protocol == UDP => return ALLOW,
        Owner::Pod(address) => (address, false),
        Owner::Node => (ANY, true),
    };
    let asked = from_v4(v4);
    match service::answer(&asked, port, protocol, &client, on_node) {
        Answer::Other => ALLOW,
        Answer::Refused => {
            // SAFETY: a helper call.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            DENY
        }
        Answer::Backend(_, backend) => {
            // SAFETY: a helper call.
            let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
            let peer = Peer { cookie, address: backend.address, port: backend.port, pad: [0; 3] };
            let _ = SOCKETS.insert(peer, End { address: asked, port, pad: 0 }, 0);
            // SAFETY: as above; these two fields are writable.
            unsafe {
                (*sock).user_ip4 = backend.address[3];
                (*sock).user_port = u32::from(backend.port);
            }
            ALLOW
        }
    }
}

/// recvmsg() of UDP and getpeername(): the backend's address goes back to what the program asked for.
#[inline(always)]
pub fn reveal(ctx: &SockAddrContext) -> i32 {
    let sock = ctx.sock_addr;
    // SAFETY: as in `connect`.
    unsafe {
        let peer = Peer {
            cookie: bpf_get_socket_cookie(ctx.as_ptr()),
            address: from_v4((*sock).user_ip4),
            port: (*sock).user_port as u16,
            pad: [0; 3],
        };
        if let Some(asked) = SOCKETS.get(peer) {
            (*sock).user_ip4 = asked.address[3];
            (*sock).user_port = u32::from(asked.port);
        }
    }
    ALLOW
}

#[inline(always)]
fn owner(ctx: &SockAddrContext) -> Owner {
    // SAFETY: a helper call.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if NODE.get(0).is_some_and(|node| node.netns == cookie) {
        return Owner::Node;
    }
    // SAFETY: the value is copied and plain.
    match unsafe { POD_NETNS.get(cookie) } {
        Some(address) => Owner::Pod(*address),
        None => Owner::Stranger,
    }
}
