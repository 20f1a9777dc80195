//! What is asked of a shim.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use rustix::thread::LinkNameSpaceType;

use super::{
    attach::Output,
    contained::Contained,
    create::{self, Creation, number},
    enter,
    foreign::{self, Foreign},
    jobs::{Job, Said, Work, say},
    log::Log,
    protocol::{Failure, Reply, Request},
    serve::{Role, Shim, trim},
    spawn::{self, Birth, kept},
    state::{self, Container, Life},
    users::Users,
};
use crate::{ContainerState, NamespaceMode, cgroup::Cgroup, process::execute::Launch};

fn system(error: io::Error) -> Failure {
    Failure::System(error.to_string())
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    io::pipe().map(|(from, to)| (from.into(), to.into())).map_err(system)
}

impl Shim {
    pub(super) fn request(&mut self, connection: u64, request: Request, descriptors: Vec<OwnedFd>) -> Result<(), Failure> {
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
            Request::Signal { id, signal } if self.held.record.runtime.is_some() => {
                let pid = self.container(&id)?.life.pid.ok_or(Failure::NotFound)?;
                self.call(connection, &id, None, |foreign| foreign::kill(foreign, pid, signal))
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
                if self.held.record.runtime.is_some() && self.containers.contains_key(&id) {
                    return self.call(connection, &id, Some(id.clone()), |foreign| {
                        foreign::delete(foreign);
                        String::new()
                    });
                }
                self.containers.remove(&id);
                trim();
                self.done(connection)
            }
            Request::Shutdown => {
                self.delete_foreign();
                self.over = true;
                self.done(connection)
            }
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
        let pid_namespace = match &spec.pid_target {
            Some(target) => Some(self.running(target)?),
            None => self.held.pid_namespace,
        };
        let cgroup = self.held.cgroup.child(id);
        let cgroup_path = format!("/{}/{id}", self.held.record.spec.cgroup.trim_matches('/'));
        let limited = cgroup.create().and_then(|()| cgroup.limit(&spec.resources, true));
        limited.map_err(|error| Failure::System(format!("setting up the cgroup: {error}")))?;
        let log = Log::open(&self.held.record.spec.log_directory.join(&spec.log_path))
            .map_err(|error| Failure::System(format!("opening the log: {error}")))?;
        let (result, result_to) = pipe()?;
        let (trouble, trouble_to) = pipe()?;
        let (go, go_to) = pipe()?;
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
        let mut keep: Vec<i32> = stdio.into_iter().flatten().chain(terminal).chain([&trouble_to, &result_to, &go].map(number)).collect();
        keep.extend(self.held.users.as_ref().map(number));
        let shm = self.held.dir.join("shm");
        let creation = Creation {
            sandbox: &self.held.record,
            container: &record,
            dir: &dir,
            shm: &shm,
            cgroup: &cgroup,
            cgroup_path: &cgroup_path,
            pid_namespace,
            shim: std::process::id(),
            stdio,
            terminal,
            users: self.users(),
            result: number(&result_to),
            go: number(&go),
            trouble: number(&trouble_to),
        };
        let child = match &self.held.record.runtime {
            None => self.init(pid_namespace, &cgroup, &keep, || create::run(&creation)),
            Some(runtime) => {
                let foreign = Foreign { runtime, dir: &dir, id };
                let birth = Birth { namespaces: libc::CLONE_NEWNS, cgroup: None };
                spawn::child(birth, &keep, || say(kept(creation.result), &foreign::create(foreign, &creation)))
            }
        };
        let child = child.map_err(system)?;
        let life = Life { pid: None, user: (0, 0, Vec::new()), state: ContainerState::Created };
        let trouble = Some(Said::new(trouble).map_err(system)?);
        let (launch, terminal, go) = (None, None, Some(go_to));
        let contained = Contained { record, dir, cgroup, life, launch, log, outputs, stdin, terminal, terminal_socket, go, trouble };
        self.containers.insert(id.to_owned(), contained);
        let result = Some(Said::new(result).map_err(system)?);
        self.jobs.push(Job { work: Work::Create(id.to_owned()), connection, child, result, trouble: None });
        Ok(())
    }

    /// The pod's own users, for a child that keeps their descriptor.
    fn users(&self) -> Option<Users> {
        let (range, namespace) = (self.held.record.spec.user_namespace?, self.held.users.as_ref()?);
        Some(Users { range, namespace: number(namespace) })
    }

    /// Has another runtime do something that is done when it ends.
    fn call(&mut self, connection: u64, id: &str, forget: Option<String>, work: impl FnOnce(Foreign<'_>) -> String) -> Result<(), Failure> {
        let (dir, (trouble, trouble_to)) = (self.container(id)?.dir.clone(), pipe()?);
        let child = self.foreign_child(&dir, id, &trouble_to, work)?;
        let trouble = Some(Said::new(trouble).map_err(system)?);
        self.jobs.push(Job { work: Work::Call(forget), connection, child, result: None, trouble });
        Ok(())
    }

    /// A child that calls the sandbox's runtime and says by `trouble` why that failed.
    fn foreign_child(&self, dir: &Path, id: &str, trouble: &OwnedFd, work: impl FnOnce(Foreign<'_>) -> String) -> Result<u32, Failure> {
        let Some(runtime) = &self.held.record.runtime else { return Err(Failure::NotFound) };
        let to = number(trouble);
        let child = spawn::child(Birth::default(), &[to], || {
            let text = work(Foreign { runtime, dir, id });
            let _ = rustix::io::write(kept(to), text.as_bytes());
        });
        child.map_err(system)
    }

    /// At the sandbox's end another runtime forgets its containers, which have ended.
    fn delete_foreign(&self) {
        let delete = |foreign: Foreign<'_>| {
            foreign::delete(foreign);
            String::new()
        };
        let Ok((_, to)) = pipe() else { return };
        let children = self.containers.iter().filter_map(|(id, container)| self.foreign_child(&container.dir, id, &to, delete).ok());
        for child in children.collect::<Vec<_>>() {
            if let Some(pid) = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            }
        }
    }

    /// The init of a container whose pid namespace another one joins.
    fn running(&self, id: &str) -> Result<u32, Failure> {
        let target = self.containers.get(id).filter(|container| matches!(container.life.state, ContainerState::Running { .. }));
        let pid = target.and_then(|container| container.life.pid);
        pid.ok_or_else(|| Failure::Invalid("the container that is looked into does not run".to_owned()))
    }

    /// The first process of a container.
    fn init(&self, pid_namespace: Option<u32>, cgroup: &Cgroup, keep: &[i32], work: impl FnOnce()) -> io::Result<u32> {
        let place = cgroup.v2_birthplace()?;
        let mut birth = Birth { namespaces: libc::CLONE_NEWNS, cgroup: place.as_ref().map(AsFd::as_fd) };
        match (self.held.record.spec.pid, pid_namespace) {
            (NamespaceMode::Host, _) => spawn::child(birth, keep, work),
            (_, None) => {
                birth.namespaces |= libc::CLONE_NEWPID;
                spawn::child(birth, keep, work)
            }
            (_, Some(shared)) => {
                // Entered for children; the shim itself stays where it is.
                let [own, shared] = [fs::File::open("/proc/self/ns/pid")?, fs::File::open(format!("/proc/{shared}/ns/pid"))?];
                let enter = |file: &fs::File| rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::ProcessID));
                enter(&shared)?;
                let child = spawn::child(birth, keep, work);
                enter(&own)?;
                child
            }
        }
    }

    fn start(&mut self, connection: u64, id: &str) -> Result<(), Failure> {
        let container = self.container(id)?;
        if container.life.state != ContainerState::Created || container.life.pid.is_none() || container.trouble.is_none() {
            let life = container.life.clone();
            self.answer(connection, &Reply::Life(life), &[]);
            self.close(connection);
            return Ok(());
        }
        let trouble = container.trouble.take();
        if self.held.record.runtime.is_some() {
            let (dir, (trouble, trouble_to)) = (self.container(id)?.dir.clone(), pipe()?);
            let child = self.foreign_child(&dir, id, &trouble_to, foreign::start)?;
            let trouble = Some(Said::new(trouble).map_err(system)?);
            self.jobs.push(Job { work: Work::Start(id.to_owned()), connection, child, result: None, trouble });
            return Ok(());
        }
        self.container(id)?.go().map_err(|error| Failure::System(format!("telling the init to start: {error}")))?;
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
        let (result, result_to) = pipe()?;
        let (trouble, trouble_to) = pipe()?;
        let stdio = if tty { [None; 3] } else { [0, 1, 2].map(|index| descriptors.get(index).map(AsRawFd::as_raw_fd)) };
        let terminal = if tty { descriptors.first().map(AsRawFd::as_raw_fd) } else { None };
        let keep: Vec<i32> = descriptors.iter().chain([&trouble_to, &result_to]).map(AsRawFd::as_raw_fd).collect();
        let oom_score = container.record.spec.resources.oom_score_adj.unwrap_or(0);
        let (users, cgroup) = (self.held.record.spec.user_namespace, &container.cgroup);
        let entry = enter::Entry { init, cgroup, users, launch: &launch, stdio, terminal, oom_score, trouble: number(&trouble_to) };
        let child = spawn::child(Birth::default(), &keep, || match &self.held.record.runtime {
            None => say(result_to.as_fd(), &enter::run(&entry)),
            Some(runtime) => {
                say(result_to.as_fd(), &foreign::exec(Foreign { runtime, dir: &container.dir, id }, &launch, stdio, terminal));
            }
        });
        let child = child.map_err(system)?;
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
        let input = match &container.terminal {
            Some(terminal) if stdin => Some(terminal.try_clone().map_err(system)?),
            // Only who attaches first holds it then, and its end is the container's.
            None if stdin && container.record.spec.stdin_once => container.stdin.take(),
            None if stdin => container.stdin.as_ref().map(OwnedFd::try_clone).transpose().map_err(system)?,
            _ => None,
        };
        self.set_role(connection, Role::Attached(id));
        self.answer(connection, &Reply::Done, &input.iter().collect::<Vec<_>>());
        Ok(())
    }
}
