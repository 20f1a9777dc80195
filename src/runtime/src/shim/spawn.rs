//! Children of the shim: they do what must not happen in it, and end or become a container's.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Exit code of a child whose work failed; what failed it has said by its pipe.
const FAILED: i32 = 70;

/// Of clone3(2); the constant of the `libc` crate does not fit its own type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a process begins with that is not its parent's.
#[derive(Clone, Copy, Default)]
pub(super) struct Birth<'a> {
    /// `CLONE_NEW*`.
    pub(super) namespaces: i32,
    /// A cgroup of v2. Born there, it need not move, and a move waits until every processor of the machine has passed a quiet moment: 10 to 20 ms.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
}

/// Runs `work` in a child that has only the descriptors of `keep` (and 0 to 2), and ends after it. Gives its process id.
pub(super) fn child(birth: Birth<'_>, keep: &[RawFd], work: impl FnOnce()) -> io::Result<u32> {
    clone(birth, 0, libc::SIGCHLD, || {
        close_all_but(keep);
        work();
    })
}

/// Makes a sibling of the caller, in the namespace for children that the caller has entered; `work` must not return.
pub(super) fn sibling(birth: Birth<'_>, work: impl FnOnce()) -> io::Result<u32> {
    // With CLONE_PARENT the signal at its end is the caller's own, and none may be named.
    clone(birth, libc::CLONE_PARENT, 0, work)
}

fn clone(birth: Birth<'_>, flags: i32, signal: i32, work: impl FnOnce()) -> io::Result<u32> {
    let pid = clone3(birth, flags, signal)?;
    if pid == 0 {
        // A panic must not unwind into a second shim.
        let code = if catch_unwind(AssertUnwindSafe(work)).is_ok() { 0 } else { FAILED };
        exit(code)
    }
    Ok(pid)
}

/// As fork: 0 in the child, which is a copy of its parent.
fn clone3(birth: Birth<'_>, flags: i32, signal: i32) -> io::Result<u32> {
    // SAFETY: a structure of integers, for which zeros mean "nothing".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (birth.namespaces | flags) as u64;
    args.exit_signal = signal as u64;
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without memory or a stack that are shared the call is fork's; the shim and its children have one thread, so the copy is whole.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid as u32),
    }
}

/// Ends at once: no destructor or handler of the process that it is a copy of runs.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// A client of the shim must see a closed connection, though a container lives that began meanwhile.
fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: this child uses none of these; their owners are never dropped in it (`exit`).
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Borrows a descriptor that is known by number, in a child that kept it.
pub(super) fn kept(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: children get the numbers of descriptors that `child` kept open for them, until they end.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
