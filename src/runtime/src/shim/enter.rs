//! Runs a further command in a container: exec, exec probes, hooks.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use rustix::thread::ThreadNameSpaceType;

use super::{
    create::take_stdio,
    protocol::Failure,
    spawn::{self, Birth, kept},
    users::{self, Users},
};
use crate::{
    UserRange,
    cgroup::Cgroup,
    process::execute::{self, Launch},
};

/// Exit code of a command that could not be executed.
const NOT_STARTED: i32 = 128;

/// Everything that the child needs.
pub(super) struct Entry<'a> {
    /// The container's init.
    pub(super) init: u32,
    pub(super) cgroup: &'a Cgroup,
    /// The pod's own users.
    pub(super) users: Option<UserRange>,
    pub(super) launch: &'a Launch,
    pub(super) stdio: [Option<RawFd>; 3],
    pub(super) terminal: Option<RawFd>,
    pub(super) oom_score: i32,
    pub(super) trouble: RawFd,
}

/// In a child of the shim: makes the command's process, a sibling of this child, and gives its id.
pub(super) fn run(entry: &Entry<'_>) -> Result<u32, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    super::create::set_oom_score(entry.oom_score);
    let pid = i32::try_from(entry.init).ok().and_then(rustix::process::Pid::from_raw).ok_or(Failure::NotFound)?;
    let init = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|_| Failure::NotFound)?;
    let users = match entry.users {
        Some(range) => Some((range, users::of(entry.init).map_err(system("opening the user namespace"))?)),
        None => None,
    };
    let birthplace = entry.cgroup.v2_birthplace_beside(entry.init).map_err(system("opening the cgroup"))?;
    entry.cgroup.join_v1().map_err(system("entering the cgroup"))?;
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), all).map_err(|e| system("entering the namespaces")(e.into()))?;
    let birth = Birth { namespaces: 0, cgroup: birthplace.as_ref().map(AsFd::as_fd) };
    spawn::sibling(birth, || {
        let users = users.as_ref().map(|(range, namespace)| Users { range: *range, namespace: namespace.as_raw_fd() });
        let text = match command(entry, users) {
            Err(error) => error.to_string(),
            Ok(()) => execute::execute(entry.launch),
        };
        let _ = rustix::io::write(kept(entry.trouble), text.as_bytes());
        spawn::exit(NOT_STARTED)
    })
    .map_err(system("making a process"))
}

fn command(entry: &Entry<'_>, users: Option<Users>) -> io::Result<()> {
    rustix::process::setsid()?;
    if entry.terminal.is_none() {
        take_stdio(entry.stdio)?;
    }
    if let Some(users) = users {
        users::enter(users, entry.launch, false)?;
    }
    entry.terminal.map_or(Ok(()), |socket| execute::take_terminal(kept(socket), false))
}
