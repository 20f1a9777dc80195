//! Netlink, by the rust-netlink crates: links, addresses, routes, neighbours and filters by rtnetlink, nftables by its typed messages.
//!
//! A pod's link is made by a chain of blocking system calls (namespaces, bpf(2), sysctls) on a thread that may block, so rtnetlink is driven from that
//! thread too, by a reactor of this one socket: no step waits behind what the roles' shared reactor has to do, and no task outlives the connection.

pub mod nft;
pub mod route;
pub mod tc;

use std::{io, os::fd::AsRawFd, time::Duration};

use futures::StreamExt;
use rtnetlink::{
    Error, Handle,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    proto::Connection,
};
use tokio::runtime::Runtime;

/// The kernel answers at once unless others hold its lock for links. rtnetlink skips an answer that it cannot read; without an end to
/// patience that would be for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to one network namespace: that of the thread which opened it, for good. Calls block, so they are for threads that may.
pub struct Netlink {
    connection: Connection<RouteNetlinkMessage>,
    handle: Handle,
    runtime: Runtime,
}

impl Netlink {
    /// Connects to the namespace of this thread.
    pub fn open() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let inside = runtime.enter();
        // Nobody listens for messages that nobody asked for: no group is joined, so there are none.
        let (connection, handle, _) = rtnetlink::new_connection()?;
        drop(inside);
        Ok(Self { connection, handle, runtime })
    }

    /// Cookie of the namespace.
    pub fn netns_cookie(&mut self) -> io::Result<u64> {
        let (mut cookie, mut length) = (0u64, size_of::<u64>() as u32);
        let socket = self.connection.socket_mut().as_raw_fd();
        // SAFETY: both pointers are to locals of the length told, and the connection keeps the descriptor open.
        let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length) };
        if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for the end of a request.
    fn wait<T>(&mut self, request: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
        let Self { connection, runtime, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                result = tokio::time::timeout(PATIENCE, request) => result?.map_err(cause),
                () = connection => Err(io::ErrorKind::NotConnected.into()),
            }
        })
    }

    /// Sends a message that rtnetlink has no builder for, and waits for the kernel's word on it.
    fn tell(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle.clone();
        self.wait(async move {
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return Err(Error::NetlinkError(error));
                }
            }
            Ok(())
        })
    }
}

/// The kernel's own error where there is one.
fn cause(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Of `asm-generic/socket.h`; libc does not have it.
const SO_NETNS_COOKIE: i32 = 71;

#[cfg(test)]
mod tests;
