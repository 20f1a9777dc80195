//! Ends the resident and removes what it kept, when its cluster is taken down.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::resident::{
    cgroup,
    pidfd::{self, Pidfd},
    state::{self, State},
};

/// For a process that was killed to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the resident is still there, or what it kept.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// the resident of DNS, process {pid}, does not end
    #[error("the resident of DNS, process {pid}, does not end")]
    Running {
        /// The process.
        pid: i32,
        /// Why it cannot be ended.
        #[source]
        source: io::Error,
    },
    /// the state of DNS in {path} cannot be removed
    #[error("the state of DNS in {path} cannot be removed")]
    Left {
        /// The state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Ends the resident of this state directory, then removes the directory and the resident's control group. None there is no error.
pub fn stop(state_dir: &Path) -> Result<(), StopError> {
    if let Some((pid, process)) = running(state_dir) {
        end(&process).map_err(|source| StopError::Running { pid, source })?;
    }
    if let Ok(state) = State::load(state_dir) {
        cgroup::remove(&state.config.cgroup);
    }
    match fs::remove_dir_all(state_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StopError::Left { path: state_dir.to_owned(), source }),
        _ => Ok(()),
    }
}

/// The resident by its word, else by what it wrote.
fn running(state_dir: &Path) -> Option<(i32, Pidfd)> {
    if let Ok(hello) = crate::resident::greeting(state_dir, PATIENCE) {
        return Some((hello.pid, pidfd::open(hello.pid).ok()?));
    }
    recorded(state_dir)
}

/// The resident by what it wrote, if that process still runs.
pub fn recorded(state_dir: &Path) -> Option<(i32, Pidfd)> {
    let identity = state::identity(state_dir)?;
    let process = pidfd::open(identity.pid).ok()?;
    // The descriptor is of one process for good; only after that does the time of its start say which.
    (state::process_start(identity.pid) == Some(identity.started)).then_some((identity.pid, process))
}

/// It has nothing to tidy up, so it need not be asked.
fn end(process: &Pidfd) -> io::Result<()> {
    process.kill()?;
    let mut waiting = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, patience)? {
        0 => Err(io::Error::from(io::ErrorKind::TimedOut)),
        _ => {
            process.reap();
            Ok(())
        }
    }
}
