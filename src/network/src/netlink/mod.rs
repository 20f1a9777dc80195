//! Netlink, as little of it as the dataplane needs: requests written by hand, acknowledged one by one.

pub mod nft;
pub mod route;
pub mod tc;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Answers are read in pieces of this many bytes; the kernel's dumps use at most 32 KiB.
const READ_BYTES: usize = 32 * 1024;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// A request under construction.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of a type; `NLM_F_REQUEST` and `NLM_F_ACK` are added.
    pub fn new(kind: u16, flags: i32) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// The family's fixed header, or any other bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// An attribute that is text with a zero at its end.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute of attributes.
    pub fn nested(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self = inside(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// An answer: its type and what follows the header.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `nlmsg_type`.
    pub kind: u16,
    /// Fixed header of the family and attributes.
    pub body: Vec<u8>,
}

/// Attributes of a body, from `offset` on.
pub fn attributes(body: &[u8], offset: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(offset..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A socket to one part of the kernel, in the network namespace of the thread that opened it, for good.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// `NETLINK_ROUTE` or `NETLINK_NETFILTER`.
    pub fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, sequence: 0 })
    }

    /// A socket that hears of changes: `groups` is a mask of `RTMGRP_*`. It does not block.
    pub fn listen(protocol: i32, groups: u32) -> io::Result<Self> {
        let socket = Self::open(protocol)?;
        // SAFETY: all zero is a valid address.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: the address outlives the call, the length is its own; fcntl has no pointers.
        let done = unsafe {
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) == 0
                && libc::fcntl(socket.fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) == 0
        };
        if done { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads away what was heard. Ends with `WouldBlock`, or with `ENOBUFS` when something was lost.
    pub fn drain(&self) -> io::Error {
        loop {
            if let Err(error) = self.receive() {
                return error;
            }
        }
    }

    /// Cookie of the network namespace that the socket lives in.
    pub fn netns_cookie(&self) -> io::Result<u64> {
        const SO_NETNS_COOKIE: i32 = 71;
        let (mut cookie, mut length) = (0u64, size_of::<u64>() as u32);
        // SAFETY: both pointers are to locals of the length told.
        let result =
            unsafe { libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length) };
        if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one request and waits for its end: answers, then an acknowledgement or an error.
    pub fn call(&mut self, request: Request) -> io::Result<Vec<Answer>> {
        self.call_all(vec![request]).map_err(|(_, error)| error)
    }

    /// Sends requests in one go; all are carried out (or tried), the first failure is told with its place.
    pub fn call_all(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, (usize, io::Error)> {
        let (first, count) = (self.sequence.wrapping_add(1), requests.len());
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(request.finish(self.sequence));
        }
        self.send(&bytes).map_err(|error| (0, error))?;
        let (mut answers, mut ended, mut failure) = (Vec::new(), 0, None);
        while ended < count {
            let read = self.receive().map_err(|error| (ended, error))?;
            let mut rest = read.as_slice();
            while let Some((kind, sequence, body, after)) = split(rest) {
                rest = after;
                let place = sequence.wrapping_sub(first) as usize;
                if place >= count {
                    continue; // a late answer to an earlier request
                }
                match i32::from(kind) {
                    libc::NLMSG_ERROR => {
                        ended += 1;
                        let code = body.get(0..4).and_then(|b| b.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
                        if code != 0 && failure.is_none() {
                            failure = Some((place, io::Error::from_raw_os_error(-code)));
                        }
                    }
                    libc::NLMSG_DONE => ended += 1,
                    _ => answers.push(Answer { kind, body: body.to_vec() }),
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(answers),
        }
    }

    /// Sends an nftables batch: all of it or nothing takes effect. Only its inner messages are acknowledged.
    pub fn transact(&mut self, begin: Request, requests: Vec<Request>, end: Request) -> io::Result<()> {
        let count = requests.len();
        let mut bytes = Vec::new();
        let mut push = |socket: &mut Self, request: Request, acknowledged: bool| {
            socket.sequence = socket.sequence.wrapping_add(1);
            let mut message = request.finish(socket.sequence);
            if !acknowledged {
                message[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
            }
            bytes.extend(message);
        };
        push(self, begin, false);
        for request in requests {
            push(self, request, true);
        }
        push(self, end, false);
        self.send(&bytes)?;
        let mut ended = 0;
        while ended < count {
            let read = self.receive()?;
            let mut rest = read.as_slice();
            while let Some((kind, _, body, after)) = split(rest) {
                rest = after;
                if i32::from(kind) == libc::NLMSG_ERROR {
                    ended += 1;
                    let code = body.get(0..4).and_then(|b| b.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                }
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the buffer outlives the call, the length is its own.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0u8; READ_BYTES];
        loop {
            // SAFETY: the buffer outlives the call, the length is its own.
            let read = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if read >= 0 {
                buffer.truncate(read as usize);
                return Ok(buffer);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Type, sequence and body of the first message, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, sequence, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_padding_come_back_as_written() {
        let bytes = Request::new(7, 0).attribute(1, &[9]).nested(2, |inside| inside.text(3, "ab").attribute(4, &[])).finish(5);
        let (kind, sequence, body, rest) = split(&bytes).expect("a message");
        assert_eq!((kind, sequence, rest.len(), body.len() % 4), (7, 5, 0, 0));
        let outer: Vec<_> = attributes(body, 0).collect();
        assert_eq!(outer[0], (1, &[9][..]));
        let inner: Vec<_> = attributes(outer[1].1, 0).collect();
        assert_eq!((outer[1].0, &inner[..]), (2, &[(3, &b"ab\0"[..]), (4, &[][..])][..]));
    }

    #[test]
    fn torn_answers_end_the_iteration() {
        for torn in [&[][..], &[8, 0], &[200, 0, 1, 0, 5], &[3, 0, 1, 0]] {
            assert_eq!(attributes(torn, 0).count(), 0, "{torn:?}");
            assert!(split(torn).is_none());
        }
        assert_eq!(attributes(&[1], 9).count(), 0);
    }
}
