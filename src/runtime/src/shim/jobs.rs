//! What children of the shim do for a request, and what they say of it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::de::DeserializeOwned;

use super::{
    create::Created,
    protocol::{Failure, Reply},
    serve::{Role, Shim, trim},
    state::Life,
};
use crate::ContainerState;

/// Bytes of what a child says.
const SAID_BYTES: usize = 4 << 20;

/// Something that a child does for a request.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) connection: u64,
    /// The child.
    pub(super) child: u32,
    /// One line of JSON that the child says.
    pub(super) result: Option<Said>,
    /// Ends with nothing said when the program runs.
    pub(super) trouble: Option<Said>,
}

pub(super) enum Work {
    Create(String),
    Start(String),
    Command(Option<u32>),
    /// A call of another runtime that answers `Done`; the container is forgotten after it if it is named.
    Call(Option<String>),
}

/// A pipe and what has come by it.
pub(super) struct Said {
    pub(super) pipe: OwnedFd,
    bytes: Vec<u8>,
    pub(super) ended: bool,
}

impl Said {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, bytes: Vec::new(), ended: false })
    }

    pub(super) fn read(&mut self) {
        let mut buffer = [0; 4096];
        while !self.ended && self.bytes.len() < SAID_BYTES {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => self.ended = true,
                Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// The first line, once it is whole.
    pub(super) fn line<T: DeserializeOwned>(&self) -> Option<Result<T, Failure>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        Some(
            serde_json::from_slice::<Result<T, Failure>>(&self.bytes[..end])
                .unwrap_or_else(|error| Err(Failure::System(error.to_string()))),
        )
    }
}

impl Job {
    fn told(&self) -> String {
        self.trouble.as_ref().map(|said| String::from_utf8_lossy(&said.bytes).into_owned()).unwrap_or_default()
    }

    fn is_over(&mut self) -> bool {
        let said_line = |said: &Option<Said>| said.as_ref().is_none_or(|said| said.ended || said.bytes.contains(&b'\n'));
        let said_all = |said: &Option<Said>| said.as_ref().is_none_or(|said| said.ended);
        match &mut self.work {
            Work::Create(_) => said_line(&self.result),
            Work::Start(_) | Work::Call(_) => said_all(&self.trouble),
            Work::Command(pid) => {
                if let Some(Ok(known)) = self.result.as_ref().and_then(Said::line::<u32>) {
                    *pid = Some(known);
                }
                let failed = self.result.as_ref().and_then(Said::line::<u32>).is_some_and(|line| line.is_err());
                failed || (said_line(&self.result) && said_all(&self.trouble))
            }
        }
    }
}

/// In a child: a line of JSON.
pub(super) fn say<T: serde::Serialize>(to: BorrowedFd<'_>, what: &Result<T, Failure>) {
    if let Ok(mut text) = serde_json::to_vec(what) {
        text.push(b'\n');
        let mut rest = &text[..];
        while let Ok(n) = rustix::io::write(to, rest) {
            rest = &rest[n..];
            if rest.is_empty() {
                break;
            }
        }
    }
}

fn lost() -> Failure {
    Failure::System("a child of the shim died at its work".to_owned())
}

impl Shim {
    pub(super) fn finish_jobs(&mut self) {
        let mut index = 0;
        while index < self.jobs.len() {
            if self.jobs[index].is_over() {
                let job = self.jobs.remove(index);
                self.finish(job);
            } else {
                index += 1;
            }
        }
    }

    fn finish(&mut self, job: Job) {
        match job.work {
            Work::Create(ref id) => self.created(id, &job),
            Work::Start(ref id) => {
                let trouble = job.told();
                let reply = match self.containers.get_mut(id) {
                    None => Reply::Failed(Failure::NotFound),
                    Some(container) if trouble.is_empty() => {
                        container.started();
                        Reply::Life(container.life.clone())
                    }
                    Some(container) => {
                        container.not_started(&trouble);
                        Reply::Failed(Failure::Start(trouble))
                    }
                };
                self.answer(job.connection, &reply, &[]);
                self.close(job.connection);
            }
            Work::Command(pid) => self.commanded(pid, &job),
            Work::Call(ref forget) => {
                let trouble = job.told();
                if let Some(id) = forget {
                    self.containers.remove(id);
                    trim();
                }
                let reply = if trouble.is_empty() { Reply::Done } else { Reply::Failed(Failure::System(trouble)) };
                self.answer(job.connection, &reply, &[]);
                self.close(job.connection);
            }
        }
    }

    fn created(&mut self, id: &str, job: &Job) {
        let result = job.result.as_ref().and_then(Said::line::<Created>).unwrap_or_else(|| Err(lost()));
        let mut init = None;
        let reply = match (result, self.containers.get_mut(id)) {
            (Ok(Created { launch, pid }), Some(container)) => {
                let groups = launch.groups.iter().map(|gid| i64::from(*gid)).collect();
                let user = (launch.uid.into(), launch.gid.into(), groups);
                let pid = pid.unwrap_or(job.child);
                init = Some(pid);
                container.life = Life { pid: Some(pid), user, state: ContainerState::Created };
                container.launch = Some(launch);
                container.keep();
                Reply::Life(container.life.clone())
            }
            (Err(failure), _) => Reply::Failed(failure),
            (Ok(_), None) => Reply::Failed(Failure::NotFound),
        };
        if matches!(reply, Reply::Failed(_)) {
            self.containers.remove(id);
        }
        self.answer(job.connection, &reply, &[]);
        self.close(job.connection);
        if let Some(pid) = init.filter(|pid| *pid != job.child) {
            self.recall(pid);
        }
        trim();
    }

    fn commanded(&mut self, pid: Option<u32>, job: &Job) {
        let trouble = job.told();
        let failure = match (job.result.as_ref().and_then(Said::line::<u32>), pid) {
            (Some(Ok(_)), Some(pid)) if trouble.is_empty() => {
                if self.connections.contains_key(&job.connection) {
                    self.set_role(job.connection, Role::Command(pid));
                    self.answer(job.connection, &Reply::Done, &[]);
                } else {
                    // SAFETY: as in `close`.
                    unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
                }
                self.recall(pid);
                if !self.jobs.iter().any(|job| matches!(job.work, Work::Command(_))) {
                    // Numbers of processes come back.
                    self.early.clear();
                }
                return;
            }
            (Some(Err(failure)), _) => failure,
            _ if trouble.is_empty() => lost(),
            _ => Failure::Start(trouble),
        };
        self.answer(job.connection, &Reply::Failed(failure), &[]);
        self.close(job.connection);
    }
}
