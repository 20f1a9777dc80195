//! A container as its shim has it, and its way from created to exited.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use jiff::Timestamp;

use super::{
    attach::{Output, drain},
    create::NOT_STARTED,
    jobs::Said,
    log::Log,
    state::{self, Container, Life},
};
use crate::{
    ContainerState,
    cgroup::Cgroup,
    process::{execute::Launch, pass},
};

/// A container.
pub(super) struct Contained {
    pub(super) record: Container,
    pub(super) dir: PathBuf,
    pub(super) cgroup: Cgroup,
    pub(super) life: Life,
    pub(super) launch: Option<Launch>,
    pub(super) log: Log,
    pub(super) outputs: Vec<Output>,
    /// The end that writes, while stdin is open.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    /// Where the terminal comes from when the init starts.
    pub(super) terminal_socket: Option<UnixStream>,
    /// Where the init waits for a byte to start; once.
    pub(super) go: Option<OwnedFd>,
    /// Where the init says why it could not start.
    pub(super) trouble: Option<Said>,
}

impl Contained {
    /// Lets the init of our own making go on to its program.
    pub(super) fn go(&mut self) -> io::Result<()> {
        let go = self.go.take().ok_or(io::ErrorKind::NotFound)?;
        rustix::io::write(&go, b"x")?;
        Ok(())
    }

    /// Writes down where it is, before anybody is told.
    pub(super) fn keep(&self) {
        if let Err(error) = state::write(&self.dir.join(state::LIFE), &self.life) {
            eprintln!("{}: state not written: {error}", self.record.spec.id.id);
        }
    }

    pub(super) fn started(&mut self) {
        self.life.state = ContainerState::Running { started_at: Timestamp::now() };
        if let Some(socket) = self.terminal_socket.take() {
            let mut descriptors = Vec::new();
            if pass::receive(socket.as_fd(), &mut [0; 1], &mut descriptors).is_ok()
                && let Some(terminal) = descriptors.pop()
                && let Ok(output) = terminal.try_clone().and_then(|fd| Output::new(fd, "stdout"))
            {
                self.outputs.push(output);
                self.terminal = Some(terminal);
            }
        }
        self.keep();
    }

    pub(super) fn not_started(&mut self, why: &str) {
        let now = Timestamp::now();
        self.life.state = ContainerState::Exited {
            started_at: None,
            finished_at: now,
            exit_code: NOT_STARTED,
            signal: None,
            reason: "StartError".to_owned(),
            message: why.to_owned(),
        };
        self.keep();
    }

    pub(super) fn exited(&mut self, code: i32, signal: Option<i32>, shared_pids: bool) {
        if shared_pids {
            // In a namespace of its own everything died with the init.
            self.cgroup.kill();
        }
        // So that the log is whole when the exit is told.
        drain(&mut self.outputs, &mut self.log);
        self.life.pid = None;
        self.stdin = None;
        let started_at = match &self.life.state {
            ContainerState::Running { started_at } => Some(*started_at),
            _ => None,
        };
        if !matches!(self.life.state, ContainerState::Exited { .. }) {
            let reason = match code {
                0 => "Completed",
                _ if self.cgroup.oom_kills() > 0 => "OOMKilled",
                _ => "Error",
            };
            let finished_at = Timestamp::now();
            self.life.state = ContainerState::Exited {
                started_at,
                finished_at,
                exit_code: code,
                signal,
                reason: reason.to_owned(),
                message: String::new(),
            };
        }
        self.keep();
    }
}
