//! Children of the shim, by fork: they do what must not happen in it, and end.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Exit code of a child whose work failed; what failed it has said by its pipe.
const FAILED: i32 = 70;

/// Runs `work` in a child that has only the descriptors of `keep` (and 0 to 2), and ends after it. Gives its process id.
pub(super) fn child(keep: &[RawFd], work: impl FnOnce()) -> io::Result<u32> {
    // SAFETY: the shim has one thread, so its child is as whole as itself.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            close_all_but(keep);
            // A panic must not unwind into a second shim.
            let code = if catch_unwind(AssertUnwindSafe(work)).is_ok() { 0 } else { FAILED };
            exit(code)
        }
        pid => Ok(pid as u32),
    }
}

/// Makes a sibling of the caller, in the namespace for children that the caller has entered; `work` must not return.
pub(super) fn sibling(work: impl FnOnce()) -> io::Result<u32> {
    // SAFETY: as in `child`; without a stack of its own the call is fork's, and with CLONE_PARENT the signal at its end is the caller's own.
    match unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = catch_unwind(AssertUnwindSafe(work));
            exit(FAILED)
        }
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
