//! The shim's loop: requests, exits, output. Nothing in it blocks on a container.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags};

use super::{
    contained::Contained,
    jobs::{Job, Said},
    protocol::{self, Failure, Reply},
    sandbox::Held,
};
use crate::process::pass;

/// Connections at a time: commands and attachments of a pod.
const CONNECTIONS: usize = 256;
/// A client that has begun a message ends it in this time, and takes an answer in it; all clients are the main process of this machine.
const CLIENT: Duration = Duration::from_secs(2);
/// A shim that is told to end waits this long for children that were killed.
const BURIAL: Duration = Duration::from_secs(1);

/// A shim at work.
pub(super) struct Shim {
    pub(super) held: Held,
    pub(super) signals: OwnedFd,
    pub(super) connections: BTreeMap<u64, Connection>,
    next: u64,
    pub(super) containers: BTreeMap<String, Contained>,
    pub(super) jobs: Vec<Job>,
    pub(super) early: VecDeque<(u32, i32)>,
    pub(super) over: bool,
}

/// Who has connected.
pub(super) struct Connection {
    socket: UnixStream,
    pub(super) role: Role,
}

/// What a connection is for.
pub(super) enum Role {
    /// Has asked nothing yet.
    New,
    /// Waits for the end of a job.
    Waiting,
    Watching,
    /// The process of an exec.
    Command(u32),
    Attached(String),
}

/// What a descriptor of the poll belongs to.
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Output(String, usize),
    Job(usize),
}

impl Shim {
    pub(super) fn new(held: Held) -> Result<Self, String> {
        let signals = child_signals().map_err(|error| format!("waiting for signals: {error}"))?;
        Ok(Self {
            held,
            signals,
            connections: BTreeMap::new(),
            next: 0,
            containers: BTreeMap::new(),
            jobs: Vec::new(),
            early: VecDeque::new(),
            over: false,
        })
    }

    pub(super) fn run(mut self) {
        trim();
        while !self.over {
            self.turn();
        }
        self.bury();
    }

    /// Reaps what is left, for as long as [`BURIAL`] (a foreign runtime's children come to a shim when it dies), so that whoever sees
    /// the shim gone finds the shims' cgroup as empty as it should be.
    fn bury(&mut self) {
        let end = Instant::now() + BURIAL;
        // SAFETY: nobody asks for the status.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } >= 0 {
            let Some(left) = end.checked_duration_since(Instant::now()).and_then(|left| left.try_into().ok()) else { break };
            let _ = rustix::event::poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&left));
            let _ = rustix::io::read(&self.signals, &mut [0; 1024]);
        }
    }

    fn turn(&mut self) {
        let mut tokens = vec![Token::Listener, Token::Signals];
        let mut polls = vec![PollFd::new(&self.held.listener, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        for (id, connection) in &self.connections {
            tokens.push(Token::Connection(*id));
            polls.push(PollFd::new(&connection.socket, PollFlags::IN));
        }
        for (id, container) in &self.containers {
            for (index, output) in container.outputs.iter().enumerate() {
                let (fd, write) = output.waits();
                tokens.push(Token::Output(id.clone(), index));
                polls.push(PollFd::from_borrowed_fd(fd, if write { PollFlags::OUT } else { PollFlags::IN }));
            }
        }
        for (index, job) in self.jobs.iter().enumerate() {
            for said in [&job.result, &job.trouble].into_iter().flatten().filter(|said| !said.ended) {
                tokens.push(Token::Job(index));
                polls.push(PollFd::new(&said.pipe, PollFlags::IN));
            }
        }
        if rustix::event::poll(&mut polls, None).is_err() {
            return;
        }
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        drop(polls);
        let mut work = false;
        let mut ended = Vec::new();
        for (token, _) in tokens.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            match token {
                Token::Listener => self.accept(),
                Token::Signals => self.reap(),
                Token::Connection(id) => self.serve(id),
                Token::Output(id, index) => {
                    if let Some(container) = self.containers.get_mut(&id)
                        && let Some(output) = container.outputs.get_mut(index)
                        && !output.pump(&mut container.log)
                    {
                        ended.push((id, index));
                    }
                }
                Token::Job(index) => {
                    work = true;
                    if let Some(job) = self.jobs.get_mut(index) {
                        job.result.iter_mut().chain(&mut job.trouble).for_each(Said::read);
                    }
                }
            }
        }
        for (id, index) in ended.into_iter().rev() {
            if let Some(container) = self.containers.get_mut(&id).filter(|container| index < container.outputs.len()) {
                container.outputs.remove(index);
            }
        }
        if work {
            self.finish_jobs();
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.held.listener.accept() {
            let limits = socket
                .set_nonblocking(false)
                .and_then(|()| socket.set_read_timeout(Some(CLIENT)))
                .and_then(|()| socket.set_write_timeout(Some(CLIENT)));
            if limits.is_ok() && self.connections.len() < CONNECTIONS {
                self.connections.insert(self.next, Connection { socket, role: Role::New });
                self.next += 1;
            }
        }
    }

    /// A message on a new connection is its request; anything on a served one is its end.
    fn serve(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !matches!(connection.role, Role::New) {
            return self.close(id);
        }
        let mut descriptors = Vec::new();
        let request = match protocol::receive(connection.socket.as_fd(), &mut descriptors) {
            Ok(Some(request)) => request,
            Ok(None) => return self.close(id),
            Err(error) => {
                self.answer(id, &Reply::Failed(Failure::System(format!("request: {error}"))), &[]);
                return self.close(id);
            }
        };
        connection.role = Role::Waiting;
        if let Err(failure) = self.request(id, request, descriptors) {
            self.answer(id, &Reply::Failed(failure), &[]);
            self.close(id);
        }
    }

    pub(super) fn done(&mut self, connection: u64) -> Result<(), Failure> {
        self.answer(connection, &Reply::Done, &[]);
        self.close(connection);
        Ok(())
    }

    pub(super) fn container(&mut self, id: &str) -> Result<&mut Contained, Failure> {
        self.containers.get_mut(id).ok_or(Failure::NotFound)
    }

    pub(super) fn set_role(&mut self, id: u64, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }

    pub(super) fn answer(&mut self, id: u64, reply: &Reply, descriptors: &[&OwnedFd]) {
        let Some(connection) = self.connections.get(&id) else { return };
        let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::encode(reply).and_then(|bytes| pass::send(connection.socket.as_fd(), &bytes, &descriptors));
        if sent.is_err() {
            self.close(id);
        }
    }

    /// Ends a connection, and what hangs on it.
    pub(super) fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        match connection.role {
            // SAFETY: the process is a child of ours that is not reaped; its group is its own session's.
            Role::Command(pid) => unsafe { _ = libc::kill(-(pid as i32), libc::SIGKILL) },
            Role::Attached(container) => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.outputs.iter_mut().for_each(|output| output.detach(id));
                }
            }
            Role::New | Role::Waiting | Role::Watching => {}
        }
    }
}

fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set lives on this stack; the calls change the mask of the only thread and make a descriptor that nobody else knows.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(crate::process::execute::own(fd)),
        }
    }
}

/// Gives back what the last request took: a shim sleeps nearly always.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a call into the allocator without arguments that matter.
    unsafe {
        libc::malloc_trim(0);
    }
}
