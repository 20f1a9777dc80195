//! The few calls of bpf(2) that aya has no shape for: links that any process can update by their pins.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET: i32 = 7;
const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_UPDATE: i32 = 29;

/// What a program is attached to, of `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// connect() of IPv4 sockets.
    Connect4 = 10,
    /// sendmsg() of IPv4 UDP sockets.
    Sendmsg4 = 14,
    /// recvmsg() of IPv4 UDP sockets.
    Recvmsg4 = 19,
    /// getpeername() of IPv4 sockets.
    Getpeername4 = 29,
    /// What a link hands to the host.
    TcxIngress = 46,
    /// What the host hands to a link.
    TcxEgress = 47,
}

/// The first part of `union bpf_attr` for pins; the kernel takes the rest as zero.
#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The same for links.
#[repr(C)]
#[derive(Default)]
struct Link {
    /// Program to attach, or link to update.
    fd: u32,
    /// Target, or the new program.
    target: u32,
    /// Hook, or flags of an update.
    hook: u32,
    flags: u32,
}

/// Attaches a program to a cgroup (a descriptor) or a network link (an index). The link lives as long as a descriptor or pin of it.
pub fn link_create(program: BorrowedFd<'_>, target: u32, hook: Hook) -> io::Result<OwnedFd> {
    let attr = Link { fd: program.as_raw_fd() as u32, target, hook: hook as u32, flags: 0 };
    let fd = call(BPF_LINK_CREATE, &attr)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link, with no packet between the two.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = Link { fd: link.as_raw_fd() as u32, target: program.as_raw_fd() as u32, hook: 0, flags: 0 };
    call(BPF_LINK_UPDATE, &attr).map(drop)
}

/// Pins a program or link, so that it outlives this process.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    call(BPF_OBJ_PIN, &Pin { path: path.as_ptr() as u64, fd: object.as_raw_fd() as u32, flags: 0 }).map(drop)
}

/// Opens what is pinned.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let fd = call(BPF_OBJ_GET, &Pin { path: path.as_ptr() as u64, ..Pin::default() })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn call<T>(command: i32, attr: &T) -> io::Result<RawFd> {
    // SAFETY: the attribute outlives the call and its length is told; what it points to is held by the callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}
