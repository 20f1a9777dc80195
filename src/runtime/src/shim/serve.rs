//! The shim's loop: requests, exits, output. Nothing in it blocks on a container.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;

use super::{
    attach::Output,
    create::{self, Created, Creation, NOT_STARTED, number},
    enter,
    log::Log,
    protocol::{self, Failure, Reply, Request},
    sandbox::Held,
    spawn,
    state::{self, Container, Life},
};
use crate::{
    ContainerState, NamespaceMode,
    cgroup::Cgroup,
    process::{execute::Launch, pass},
};

/// Connections at a time: commands and attachments of a pod.
const CONNECTIONS: usize = 256;
/// A client that has begun a message ends it in this time, and takes an answer in it; all clients are the main process of this machine.
const CLIENT: Duration = Duration::from_secs(2);
/// Exits of processes that are not known yet: children that end before their parent has said who they are.
const EARLY_EXITS: usize = 64;
/// Bytes of what a child says.
const SAID_BYTES: usize = 4 << 20;

/// A shim at work.
pub(super) struct Shim {
    held: Held,
    signals: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    containers: BTreeMap<String, Contained>,
    jobs: Vec<Job>,
    early: VecDeque<(u32, i32)>,
    over: bool,
}

struct Connection {
    socket: UnixStream,
    role: Role,
}

enum Role {
    /// Has asked nothing yet.
    New,
    /// Waits for the end of a job.
    Waiting,
    Watching,
    /// The process of an exec.
    Command(u32),
    Attached(String),
}

struct Contained {
    record: Container,
    dir: PathBuf,
    cgroup: Cgroup,
    life: Life,
    launch: Option<Launch>,
    log: Log,
    outputs: Vec<Output>,
    /// The end that writes, while stdin is open.
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Where the terminal comes from when the init starts.
    terminal_socket: Option<UnixStream>,
    /// Where the init says why it could not start.
    trouble: Option<Said>,
}

/// Something that a child does for a request.
struct Job {
    work: Work,
    connection: u64,
    /// The child.
    child: u32,
    /// One line of JSON that the child says.
    result: Option<Said>,
    /// Ends with nothing said when the program runs.
    trouble: Option<Said>,
}

enum Work {
    Create(String),
    Start(String),
    Command(Option<u32>),
}

/// A pipe and what has come by it.
struct Said {
    pipe: OwnedFd,
    bytes: Vec<u8>,
    ended: bool,
}

impl Said {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, bytes: Vec::new(), ended: false })
    }

    fn read(&mut self) {
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
    fn line<T: DeserializeOwned>(&self) -> Option<Result<T, Failure>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        Some(
            serde_json::from_slice::<Result<T, Failure>>(&self.bytes[..end])
                .unwrap_or_else(|error| Err(Failure::System(error.to_string()))),
        )
    }
}

/// What a descriptor of the poll belongs to.
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Output(String, usize),
    Job(usize),
}

fn say<T: serde::Serialize>(to: &OwnedFd, what: &Result<T, Failure>) {
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

fn system(error: io::Error) -> Failure {
    Failure::System(error.to_string())
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

    fn request(&mut self, connection: u64, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        match request {
            Request::Create { id } => self.create(connection, &id),
            Request::Start { id } => self.start(connection, &id),
            Request::Exec { id, command, tty } => self.exec(connection, &id, command, tty, &descriptors),
            Request::Attach { id, stdin, stdout, stderr } => self.attach(connection, id, stdin, [stdout, stderr], descriptors),
            Request::Watch => {
                self.set_role(connection, Role::Watching);
                self.answer(connection, &Reply::Done, &[]);
                Ok(())
            }
            Request::Signal { id, signal } => {
                let pid = self.container(&id)?.life.pid.ok_or(Failure::NotFound)?;
                // SAFETY: a number and a signal; this process is the parent and has not reaped it, so the number is still its.
                if unsafe { libc::kill(pid as i32, signal) } != 0 {
                    return Err(Failure::System(format!("signal {signal}: {}", io::Error::last_os_error())));
                }
                self.done(connection)
            }
            Request::Reopen { id } => {
                self.container(&id)?.log.reopen().map_err(system)?;
                self.done(connection)
            }
            Request::Forget { id } => {
                if self.containers.get(&id).is_some_and(|container| container.life.pid.is_some()) {
                    return Err(Failure::Invalid("the container still runs".to_owned()));
                }
                self.containers.remove(&id);
                trim();
                self.done(connection)
            }
            Request::Shutdown => {
                self.over = true;
                self.done(connection)
            }
        }
    }

    fn done(&mut self, connection: u64) -> Result<(), Failure> {
        self.answer(connection, &Reply::Done, &[]);
        self.close(connection);
        Ok(())
    }

    fn container(&mut self, id: &str) -> Result<&mut Contained, Failure> {
        self.containers.get_mut(id).ok_or(Failure::NotFound)
    }

    fn set_role(&mut self, id: u64, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.role = role;
        }
    }

    fn answer(&mut self, id: u64, reply: &Reply, descriptors: &[&OwnedFd]) {
        let Some(connection) = self.connections.get(&id) else { return };
        let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::encode(reply).and_then(|bytes| pass::send(connection.socket.as_fd(), &bytes, &descriptors));
        if sent.is_err() {
            self.close(id);
        }
    }

    /// Ends a connection, and what hangs on it.
    fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        match connection.role {
            // SAFETY: the process is a child of ours that is not reaped; its group is its own session's.
            Role::Command(pid) => unsafe { _ = libc::kill(-(pid as i32), libc::SIGKILL) },
            Role::Attached(container) => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.outputs.iter_mut().for_each(|output| output.detach(id));
                    if container.record.spec.stdin_once {
                        container.stdin = None;
                    }
                }
            }
            Role::New | Role::Waiting | Role::Watching => {}
        }
    }

    fn create(&mut self, connection: u64, id: &str) -> Result<(), Failure> {
        if let Some(known) = self.containers.get(id) {
            let life = known.life.clone();
            self.answer(connection, &Reply::Life(life), &[]);
            self.close(connection);
            return Ok(());
        }
        let dir = self.held.dir.join(id);
        let record: Container = state::read(&dir.join(state::CONTAINER)).map_err(system)?;
        let spec = &record.spec;
        let cgroup = self.held.cgroup.child(id);
        let cgroup_path = format!("/{}/{id}", self.held.record.spec.cgroup.trim_matches('/'));
        let log = Log::open(&self.held.record.spec.log_directory.join(&spec.log_path))
            .map_err(|error| Failure::System(format!("opening the log: {error}")))?;
        let pipe = || io::pipe().map(|(from, to)| (OwnedFd::from(from), OwnedFd::from(to))).map_err(system);
        let (result, result_to) = pipe()?;
        let (trouble, trouble_to) = pipe()?;
        let mut outputs = Vec::new();
        let mut theirs: [Option<OwnedFd>; 3] = [None, None, None];
        let (mut stdin, mut terminal_socket, mut terminal_to) = (None, None, None);
        if spec.tty {
            let (ours, to) = UnixStream::pair().map_err(system)?;
            (terminal_socket, terminal_to) = (Some(ours), Some(OwnedFd::from(to)));
        } else {
            for (index, stream) in [(1, "stdout"), (2, "stderr")] {
                let (from, to) = pipe()?;
                outputs.push(Output::new(from, stream).map_err(system)?);
                theirs[index] = Some(to);
            }
            if spec.stdin {
                let (from, to) = pipe()?;
                (theirs[0], stdin) = (Some(from), Some(to));
            }
        }
        let stdio = [0, 1, 2].map(|index| theirs[index].as_ref().map(number));
        let terminal = terminal_to.as_ref().map(number);
        let keep: Vec<i32> = stdio.into_iter().flatten().chain(terminal).chain([number(&trouble_to), number(&result_to)]).collect();
        let shm = self.held.dir.join("shm");
        let creation = Creation {
            sandbox: &self.held.record,
            container: &record,
            dir: &dir,
            shm: &shm,
            cgroup: &cgroup,
            cgroup_path: &cgroup_path,
            pid_namespace: self.held.pid_namespace,
            stdio,
            terminal,
            trouble: number(&trouble_to),
        };
        let child = spawn::child(&keep, || say(&result_to, &create::run(&creation))).map_err(system)?;
        let life = Life { pid: None, user: (0, 0, Vec::new()), state: ContainerState::Created };
        let trouble = Some(Said::new(trouble).map_err(system)?);
        let contained =
            Contained { record, dir, cgroup, life, launch: None, log, outputs, stdin, terminal: None, terminal_socket, trouble };
        self.containers.insert(id.to_owned(), contained);
        let result = Some(Said::new(result).map_err(system)?);
        self.jobs.push(Job { work: Work::Create(id.to_owned()), connection, child, result, trouble: None });
        Ok(())
    }

    fn start(&mut self, connection: u64, id: &str) -> Result<(), Failure> {
        let container = self.container(id)?;
        if container.life.state != ContainerState::Created || container.life.pid.is_none() || container.trouble.is_none() {
            let life = container.life.clone();
            self.answer(connection, &Reply::Life(life), &[]);
            self.close(connection);
            return Ok(());
        }
        let socket = container.dir.join("libcontainer").join(id);
        let mut notify = libcontainer_notify(&socket).map_err(|error| Failure::System(format!("telling the init to start: {error}")))?;
        io::Write::write_all(&mut notify, b"start container").map_err(system)?;
        let trouble = container.trouble.take();
        self.jobs.push(Job { work: Work::Start(id.to_owned()), connection, child: 0, result: None, trouble });
        Ok(())
    }

    fn exec(&mut self, connection: u64, id: &str, command: Vec<String>, tty: bool, descriptors: &[OwnedFd]) -> Result<(), Failure> {
        let container = self.containers.get(id).ok_or(Failure::NotFound)?;
        let (Some(init), Some(launch), ContainerState::Running { .. }) = (container.life.pid, &container.launch, &container.life.state)
        else {
            return Err(Failure::Invalid("the container is not running".to_owned()));
        };
        if descriptors.len() != if tty { 1 } else { 3 } {
            return Err(Failure::System("not the descriptors that were expected".to_owned()));
        }
        let mut launch = Launch { args: command, filters: container.record.filters.clone(), ..launch.clone() };
        if tty && !launch.env.iter().any(|pair| pair.starts_with("TERM=")) {
            launch.env.push("TERM=xterm".to_owned());
        }
        let pipe = || io::pipe().map(|(from, to)| (OwnedFd::from(from), OwnedFd::from(to))).map_err(system);
        let (result, result_to) = pipe()?;
        let (trouble, trouble_to) = pipe()?;
        let stdio = if tty { [None; 3] } else { [0, 1, 2].map(|index| descriptors.get(index).map(AsRawFd::as_raw_fd)) };
        let terminal = if tty { descriptors.first().map(AsRawFd::as_raw_fd) } else { None };
        let keep: Vec<i32> = descriptors.iter().chain([&trouble_to, &result_to]).map(AsRawFd::as_raw_fd).collect();
        let oom_score = container.record.spec.resources.oom_score_adj.unwrap_or(0);
        let entry =
            enter::Entry { init, cgroup: &container.cgroup, launch: &launch, stdio, terminal, oom_score, trouble: number(&trouble_to) };
        let child = spawn::child(&keep, || say(&result_to, &enter::run(&entry))).map_err(system)?;
        let (result, trouble) = (Some(Said::new(result).map_err(system)?), Some(Said::new(trouble).map_err(system)?));
        self.jobs.push(Job { work: Work::Command(None), connection, child, result, trouble });
        Ok(())
    }

    fn attach(&mut self, connection: u64, id: String, stdin: bool, wanted: [bool; 2], descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
        let container = self.containers.get_mut(&id).ok_or(Failure::NotFound)?;
        if container.life.pid.is_none() {
            return Err(Failure::Invalid("the container is not running".to_owned()));
        }
        let mut descriptors = descriptors.into_iter();
        // With a terminal there is one output, whatever it is called.
        for (index, _) in wanted.into_iter().enumerate().filter(|(_, wanted)| *wanted) {
            let (Some(pipe), Some(output)) = (descriptors.next(), container.outputs.get_mut(index)) else { continue };
            output.attach(connection, pipe).map_err(system)?;
        }
        let input = container
            .terminal
            .as_ref()
            .or(container.stdin.as_ref())
            .filter(|_| stdin)
            .map(|fd| fd.try_clone())
            .transpose()
            .map_err(system)?;
        self.set_role(connection, Role::Attached(id));
        self.answer(connection, &Reply::Done, &input.iter().collect::<Vec<_>>());
        Ok(())
    }

    fn finish_jobs(&mut self) {
        let mut index = 0;
        while index < self.jobs.len() {
            if self.is_over(index) {
                let job = self.jobs.remove(index);
                self.finish(job);
            } else {
                index += 1;
            }
        }
    }

    fn is_over(&mut self, index: usize) -> bool {
        let job = &mut self.jobs[index];
        let said_line = |said: &Option<Said>| said.as_ref().is_none_or(|said| said.ended || said.bytes.contains(&b'\n'));
        let said_all = |said: &Option<Said>| said.as_ref().is_none_or(|said| said.ended);
        match &mut job.work {
            Work::Create(_) => said_line(&job.result),
            Work::Start(_) => said_all(&job.trouble),
            Work::Command(pid) => {
                if let Some(Ok(known)) = job.result.as_ref().and_then(Said::line::<u32>) {
                    *pid = Some(known);
                }
                let failed = job.result.as_ref().and_then(Said::line::<u32>).is_some_and(|line| line.is_err());
                failed || (said_line(&job.result) && said_all(&job.trouble))
            }
        }
    }

    fn finish(&mut self, job: Job) {
        let lost = || Failure::System("a child of the shim died at its work".to_owned());
        let trouble = job.trouble.as_ref().map(|said| String::from_utf8_lossy(&said.bytes).into_owned()).unwrap_or_default();
        match job.work {
            Work::Create(id) => {
                let result = job.result.as_ref().and_then(Said::line::<Created>).unwrap_or_else(|| Err(lost()));
                let outcome = match (result, self.containers.get_mut(&id)) {
                    (Ok(created), Some(container)) => {
                        let Created { pid, launch } = created;
                        let groups = launch.groups.iter().map(|gid| i64::from(*gid)).collect();
                        container.life =
                            Life { pid: Some(pid), user: (launch.uid.into(), launch.gid.into(), groups), state: ContainerState::Created };
                        container.launch = Some(launch);
                        container.keep();
                        Ok(Reply::Life(container.life.clone()))
                    }
                    (Err(failure), _) => Err(failure),
                    (Ok(_), None) => Err(Failure::NotFound),
                };
                let made = outcome.as_ref().ok().and_then(|_| self.containers.get(&id)?.life.pid);
                match outcome {
                    Ok(reply) => self.answer(job.connection, &reply, &[]),
                    Err(failure) => {
                        self.containers.remove(&id);
                        self.answer(job.connection, &Reply::Failed(failure), &[]);
                    }
                }
                self.close(job.connection);
                self.recall(made);
                trim();
            }
            Work::Start(id) => {
                let reply = match self.containers.get_mut(&id) {
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
            Work::Command(pid) => match (job.result.as_ref().and_then(Said::line::<u32>), pid) {
                (Some(Ok(_)), Some(pid)) if trouble.is_empty() => {
                    if self.connections.contains_key(&job.connection) {
                        self.set_role(job.connection, Role::Command(pid));
                        self.answer(job.connection, &Reply::Done, &[]);
                    } else {
                        // SAFETY: as in `close`.
                        unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
                    }
                    self.recall(Some(pid));
                }
                (Some(Err(failure)), _) => {
                    self.answer(job.connection, &Reply::Failed(failure), &[]);
                    self.close(job.connection);
                }
                _ => {
                    let failure = if trouble.is_empty() { lost() } else { Failure::Start(trouble) };
                    self.answer(job.connection, &Reply::Failed(failure), &[]);
                    self.close(job.connection);
                }
            },
        }
    }

    /// Handles an exit that came before its process was known.
    fn recall(&mut self, pid: Option<u32>) {
        if let Some(at) = self.early.iter().position(|(early, _)| Some(*early) == pid)
            && let Some((pid, status)) = self.early.remove(at)
        {
            self.exited(pid, status);
        }
    }

    fn reap(&mut self) {
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: `status` is a place for an integer.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            let Ok(pid @ 1..) = u32::try_from(pid) else { break };
            self.exited(pid, status);
        }
    }

    fn exited(&mut self, pid: u32, status: i32) {
        let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
        if let Some(index) = self.jobs.iter().position(|job| job.child == pid) {
            // A child says everything before it ends; one that did not, never will.
            if let Some(said) = &mut self.jobs[index].result {
                said.read();
                said.ended = true;
            }
            return self.finish_jobs();
        }
        let command = self
            .connections
            .iter()
            .find(|(_, connection)| matches!(connection.role, Role::Command(known) if known == pid))
            .map(|(id, _)| *id);
        if let Some(id) = command {
            self.answer(id, &Reply::Exited(code), &[]);
            self.connections.remove(&id);
            return;
        }
        let Some(id) = self.containers.iter().find(|(_, container)| container.life.pid == Some(pid)).map(|(id, _)| id.clone()) else {
            if self.early.len() == EARLY_EXITS {
                self.early.pop_front();
            }
            return self.early.push_back((pid, status));
        };
        // What an init that could not execute has said is all there is to say of its exit.
        if let Some(index) = self.jobs.iter().position(|job| matches!(&job.work, Work::Start(of) if *of == id)) {
            if let Some(said) = &mut self.jobs[index].trouble {
                said.read();
                said.ended = true;
            }
            self.finish_jobs();
        }
        let shared = self.held.record.spec.pid != NamespaceMode::Container;
        if let Some(container) = self.containers.get_mut(&id) {
            let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
            container.exited(code, signal, shared);
            let life = container.life.clone();
            self.tell_exit(&id, life, code);
        }
        trim();
    }

    fn tell_exit(&mut self, id: &str, life: Life, code: i32) {
        let watching = |connection: &Connection| matches!(connection.role, Role::Watching);
        let watchers: Vec<u64> = self.connections.iter().filter(|(_, c)| watching(c)).map(|(id, _)| *id).collect();
        for watcher in watchers {
            self.answer(watcher, &Reply::Exit { id: id.to_owned(), life: life.clone() }, &[]);
        }
        let attached: Vec<u64> =
            self.connections.iter().filter(|(_, c)| matches!(&c.role, Role::Attached(to) if to == id)).map(|(id, _)| *id).collect();
        for connection in attached {
            self.answer(connection, &Reply::Exited(code), &[]);
            self.close(connection);
        }
    }
}

impl Contained {
    /// Writes down where it is, before anybody is told.
    fn keep(&self) {
        if let Err(error) = state::write(&self.dir.join(state::LIFE), &self.life) {
            eprintln!("{}: state not written: {error}", self.record.spec.id.id);
        }
    }

    fn started(&mut self) {
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

    fn not_started(&mut self, why: &str) {
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

    fn exited(&mut self, code: i32, signal: Option<i32>, shared_pids: bool) {
        if shared_pids {
            // In a namespace of its own everything died with the init.
            self.cgroup.kill();
        }
        // Out with what they still had to say, so that the log is whole when the exit is told.
        let log = &mut self.log;
        self.outputs.retain_mut(|output| output.pump(log));
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

/// By its short name: see `sandbox::listen`.
fn libcontainer_notify(dir: &std::path::Path) -> io::Result<UnixStream> {
    rustix::process::chdir(dir)?;
    let socket = UnixStream::connect("notify.sock");
    rustix::process::chdir("/")?;
    socket
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
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a call into the allocator without arguments that matter.
    unsafe {
        libc::malloc_trim(0);
    }
}
