//! Containers that an OCI runtime of the node makes (RuntimeClass): its `create`, `start`, `exec`, `kill` and `delete`, each from a child of the shim.
//!
//! The runtime leaves the container's init, and the process of an exec, to the shim, which is a subreaper: from there on they are as any other.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    bundle,
    create::{self, Created, Creation, Staged, has_own_ipc, has_own_uts, stage, take_stdio, write_config},
    nodes, oci, place,
    protocol::Failure,
    spawn::kept,
    state::OciRuntime,
    tree,
};
use crate::process::{
    execute::{self, Launch},
    pass,
};

/// Longer than this no call of a runtime takes, in seconds: less than the main process waits for its answer.
const LONGEST_CALL_SECONDS: u32 = 100;
/// Bytes of what a runtime says of its failure.
const LOG_BYTES: u64 = 64 * 1024;
/// Below a container's directory: what the runtime keeps of it.
const ROOT: &str = "oci";
/// The same: trees that are mounted in it.
const TREES: &str = "mounts";

/// A container of such a runtime.
#[derive(Clone, Copy)]
pub(super) struct Foreign<'a> {
    pub(super) runtime: &'a OciRuntime,
    /// The container's own directory of state.
    pub(super) dir: &'a Path,
    pub(super) id: &'a str,
}

/// In a child in a mount namespace of its own: makes the container, with an init that waits for `start`. The root file system and all that is
/// mounted in it are mounted here, and so they are gone with the container.
pub(super) fn create(foreign: Foreign<'_>, creation: &Creation<'_>) -> Result<Created, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    let (sandbox, container) = (&creation.sandbox.spec, creation.container);
    let spec = &container.spec;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    create::set_oom_score(spec.resources.oom_score_adj.unwrap_or(0));
    let nodes = nodes::nodes(&spec.devices, spec.security.privileged)?;
    let rules = bundle::device_rules(spec.security.privileged, &nodes);
    let Staged { rootfs, plan, trees, launch } = stage(creation, nodes)?;
    drop(rootfs);
    let sources = place_trees(&trees, &foreign.dir.join(TREES)).map_err(system("mounting volumes"))?;
    let rest = oci::Rest {
        shim: creation.shim,
        own_uts: has_own_uts(creation.sandbox),
        own_ipc: has_own_ipc(creation.sandbox),
        terminal: spec.tty,
        // Lower than the machine lets us is not failed for, but a runtime would.
        oom_score: oom_score(),
        rules: &rules,
        seccomp: container.seccomp.as_ref(),
        sources: &sources,
    };
    let config = oci::config(sandbox, &plan, &launch, creation.pid_namespace, creation.cgroup_path);
    let config = oci::whole(config, sandbox, &launch, &rest);
    write_config(&foreign.dir.join("config.json"), config.to_string().as_bytes()).map_err(system("writing config.json"))?;
    take_stdio(creation.stdio).map_err(system("passing stdin, stdout and stderr"))?;
    let call = Call { foreign, name: "init", terminal: creation.terminal };
    // Whole: gVisor looks for what is in it by this path, from elsewhere.
    let bundle = foreign.dir.to_str().ok_or_else(|| Failure::System(format!("{} is not UTF-8", foreign.dir.display())))?;
    let pid = call.process(&["create", "--bundle", bundle])?;
    Ok(Created { launch: Launch { filters: Vec::new(), ..launch }, pid: Some(pid) })
}

/// In a child: lets the init go on to its program. The text is why not; empty when it runs.
pub(super) fn start(foreign: Foreign<'_>) -> String {
    Call { foreign, name: "start", terminal: None }.run(&["start", foreign.id]).err().unwrap_or_default()
}

/// In a child: runs a further command and gives its process.
pub(super) fn exec(foreign: Foreign<'_>, launch: &Launch, stdio: [Option<RawFd>; 3], terminal: Option<RawFd>) -> Result<u32, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    let name = format!("exec-{}", std::process::id());
    let process = format!("{name}.json");
    let path = foreign.dir.join(&process);
    write_config(&path, oci::process(launch, terminal.is_some()).to_string().as_bytes()).map_err(system("describing the command"))?;
    take_stdio(stdio).map_err(system("passing stdin, stdout and stderr"))?;
    let call = Call { foreign, name: &name, terminal };
    let pid = call.process(&["exec", "--detach", "--process", &process]);
    let _ = fs::remove_file(&path);
    pid
}

/// In a child: sends a signal to the container's init. What its runtime does not, because the init ends just now or it is not well, the kernel does.
pub(super) fn kill(foreign: Foreign<'_>, init: u32, signal: i32) -> String {
    let call = Call { foreign, name: "kill", terminal: None };
    if call.run(&["kill", foreign.id, &signal.to_string()]).is_ok() {
        return String::new();
    }
    // SAFETY: a number and a signal; the shim has not reaped the process when this child was made.
    match unsafe { libc::kill(init as i32, signal) } {
        0 => String::new(),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => String::new(),
            error => format!("signal {signal}: {error}"),
        },
    }
}

/// In a child: forgets the container. One that is not known is forgotten.
pub(super) fn delete(foreign: Foreign<'_>) {
    let _ = Call { foreign, name: "delete", terminal: None }.run(&["delete", "--force", foreign.id]);
}

/// Puts the trees where a program can find them by name.
fn place_trees(trees: &[Option<OwnedFd>], dir: &Path) -> io::Result<Vec<Option<PathBuf>>> {
    let place = |(number, tree): (usize, &Option<OwnedFd>)| {
        let Some(tree) = tree else { return Ok(None) };
        let path = dir.join(number.to_string());
        fs::create_dir_all(dir)?;
        if place::is_directory(tree.as_fd()) {
            fs::create_dir_all(&path)?;
        } else {
            fs::File::create(&path)?;
        }
        tree::attach(tree.as_fd(), rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?.as_fd())?;
        Ok(Some(path))
    };
    trees.iter().enumerate().map(place).collect()
}

fn oom_score() -> i32 {
    fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// A call of the runtime, in the container's directory. Its files are named by it.
struct Call<'a> {
    foreign: Foreign<'a>,
    name: &'a str,
    /// Where a terminal is sent.
    terminal: Option<RawFd>,
}

impl Call<'_> {
    /// One that makes a process.
    fn process(&self, args: &[&str]) -> Result<u32, Failure> {
        let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
        // By short names: a path of a socket has no more than 107 bytes.
        rustix::process::chdir(self.foreign.dir).map_err(|e| system("entering the container's directory")(e.into()))?;
        let (pid_file, socket) = (format!("{}.pid", self.name), format!("{}.tty", self.name));
        let mut args: Vec<&str> = args.iter().copied().chain(["--pid-file", &pid_file]).collect();
        let console = match self.terminal {
            None => None,
            Some(_) => {
                args.extend(["--console-socket", &socket]);
                let _ = fs::remove_file(&socket);
                Some(UnixListener::bind(&socket).map_err(system("listening for the terminal"))?)
            }
        };
        args.push(self.foreign.id);
        let called = self.run(&args).map_err(Failure::Start);
        let pid = called.and_then(|()| {
            let text = fs::read_to_string(&pid_file).map_err(system("reading the process id"))?;
            text.trim().parse().map_err(|_| Failure::System(format!("{text:?} is no process id")))
        });
        if let (Ok(_), Some(console), Some(to)) = (&pid, &console, self.terminal) {
            pass_on(console, to).map_err(system("taking the terminal"))?;
        }
        for file in [&pid_file, &socket] {
            let _ = fs::remove_file(file);
        }
        pid
    }

    /// The text says why it failed, in the runtime's words.
    fn run(&self, args: &[&str]) -> Result<(), String> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let Foreign { runtime, dir, .. } = self.foreign;
        let program = runtime.program.display();
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let log = dir.join(format!("{}-{}-{number}.log", self.name, std::process::id()));
        // Nothing of the shim's: no blocked signal, no ignored one, no time without end.
        execute::default_signals();
        // SAFETY: a number; its signal ends this child, and with it the call.
        unsafe { libc::alarm(LONGEST_CALL_SECONDS) };
        let mut command = Command::new(&runtime.program);
        command.arg("--root").arg(dir.join(ROOT)).arg("--log").arg(&log).args(["--log-format", "json"]);
        command.args(arguments(&runtime.program)).args(args).current_dir(dir);
        if !matches!(args.first(), Some(&("create" | "exec"))) {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        // SAFETY: one system call between fork and exec.
        unsafe { command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)) };
        let ended = command.status();
        let said = read_log(&log);
        let _ = fs::remove_file(&log);
        match ended {
            Err(error) => Err(format!("{program}: {error}")),
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(last_error(&said).unwrap_or_else(|| format!("{program} {}: {status}", args.first().unwrap_or(&"")))),
        }
    }
}

fn read_log(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(LOG_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a runtime needs beside what all of them take. Left alone, gVisor takes the addresses off the pod's interface and keeps them to itself: the pod's
/// other containers would have none, nor would the next run of this one.
fn arguments(program: &Path) -> &'static [&'static str] {
    if program.file_name().is_some_and(|name| name == "runsc") { &["--network=host"] } else { &[] }
}

/// The last message of level error, or the last line that is no JSON. Some write their messages without an end of line.
fn last_error(log: &str) -> Option<String> {
    let message = |line: &str| {
        let values: Result<Vec<serde_json::Value>, _> = serde_json::Deserializer::from_str(line).into_iter().collect();
        let Ok(values) = values else { return Some(line.to_owned()) };
        values.iter().rev().find(|value| value["level"] == "error").and_then(|value| value["msg"].as_str()).map(str::to_owned)
    };
    log.lines().rev().filter(|line| !line.trim().is_empty()).find_map(message)
}

/// The runtime has connected and sent the terminal before it ended.
fn pass_on(console: &UnixListener, to: RawFd) -> io::Result<()> {
    console.set_nonblocking(true)?;
    let (socket, _) = console.accept()?;
    let mut descriptors = Vec::new();
    pass::receive(socket.as_fd(), &mut [0; 4096], &mut descriptors)?;
    let terminal = descriptors.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
    pass::send(kept(to), b"t", &[terminal.as_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_says_why_it_failed() {
        for (log, expected) in [
            ("", None),
            (r#"{"level":"warning","msg":"old"}"#, None),
            ("{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"last\"}\n", Some("last")),
            ("{\"level\":\"error\",\"msg\":\"why\"}\n{\"level\":\"info\",\"msg\":\"x\"}\n\n", Some("why")),
            (r#"{"level":"error","msg":"one"}{"level":"error","msg":"another"}{"level":"info","msg":"x"}"#, Some("another")),
            ("plain words\n", Some("plain words")),
        ] {
            assert_eq!(last_error(log).as_deref(), expected, "{log}");
        }
    }
}
