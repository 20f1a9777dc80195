//! A process by descriptor: it never names another one.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::sys::wait::{Id, WaitPidFlag, waitid};

/// The descriptor; readable once the process has ended.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

/// The process that has this number now.
pub fn open(pid: i32) -> io::Result<Pidfd> {
    // SAFETY: a system call with plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just gave it to us, and nobody else knows it.
    Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(fd) }))
}

impl Pidfd {
    /// Kills it; one that has ended already is no error.
    pub fn kill(&self) -> io::Result<()> {
        // SAFETY: a system call with plain numbers and no siginfo.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        match io::Error::last_os_error() {
            error if result < 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes its exit status away, if it is our child.
    pub fn reap(&self) {
        // An adopted one is not our child: its parent takes it away.
        let _ = waitid(Id::PIDFd(self.0.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
