//! Makes a container: in a child of the shim, which ends when its sibling, the container's init, waits to be started.
//!
//! libcontainer makes namespaces, mounts and devices. What it knows to be dropped (user, capabilities, no_new_privs, seccomp) is left to the last
//! step, `process::execute`, by its `Executor` trait: one piece of code for init and exec, and no C library.

use std::{
    fs,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, MountPropagationFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};
use serde::{Deserialize, Serialize};

use super::{
    bundle::{self, Node, Places},
    devices, overlay,
    protocol::Failure,
    spawn::{self, kept},
    state::{Container, Sandbox},
};
use crate::{
    Device, NamespaceMode,
    cgroup::Cgroup,
    process::{
        execute::{self, Launch},
        user,
    },
};

/// Exit code of an init whose program could not be executed: as containerd reports it.
pub(super) const NOT_STARTED: i32 = 128;

/// Everything that the child needs.
pub(super) struct Creation<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) container: &'a Container,
    /// The container's own directory of state.
    pub(super) dir: &'a Path,
    pub(super) shm: &'a Path,
    pub(super) cgroup: &'a Cgroup,
    pub(super) cgroup_path: &'a str,
    pub(super) pid_namespace: Option<u32>,
    pub(super) stdio: [Option<RawFd>; 3],
    /// Where the terminal is sent.
    pub(super) terminal: Option<RawFd>,
    /// Where an init says why it could not execute its program.
    pub(super) trouble: RawFd,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) pid: u32,
    pub(super) launch: Launch,
}

/// In the child: all of it.
pub(super) fn run(creation: &Creation<'_>) -> Result<Created, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    let (sandbox, container) = (&creation.sandbox.spec, creation.container);
    let spec = &container.spec;
    set_oom_score(spec.resources.oom_score_adj.unwrap_or(0));
    let nodes = nodes(&spec.devices, spec.security.privileged)?;
    let rules = bundle::device_rules(spec.security.privileged, &nodes);
    enter_cgroup(creation, &rules).map_err(system("setting up the cgroup"))?;
    if let Some(netns) = &sandbox.netns {
        let netns = fs::File::open(netns).map_err(|error| Failure::System(format!("network namespace {}: {error}", netns.display())))?;
        rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
            .map_err(|error| system("entering the network namespace")(error.into()))?;
    }

    let hierarchies = creation.cgroup.v1_mounts();
    let rootfs = creation.dir.join("rootfs");
    fs::create_dir_all(&rootfs).map_err(system("making the root's mount point"))?;
    for dir in ["upper", "work"] {
        fs::create_dir_all(container.writable.join(dir)).map_err(system("making the writable layer"))?;
    }
    // The mount is seen by nobody but this process and the container, and so is gone with them. Only a container whose mounts the node is to
    // see shares the node's namespace; its mount is then removed with it (`embedded`).
    if !spec.mounts.iter().any(|mount| mount.propagation == "rshared") {
        rustix_unshare(UnshareFlags::NEWNS).map_err(system("making a mount namespace"))?;
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .map_err(|error| system("making the mount namespace private")(error.into()))?;
        // The container is in its v1 groups already. libcontainer would look for each of them anew, at twenty system calls a piece, and mount
        // them at ninety; it is shown v2 alone instead, in this namespace that nobody else sees.
        if !hierarchies.is_empty() {
            let covered = rustix::mount::mount("cgroup2", bundle::CGROUPS, "cgroup2", MountFlags::empty(), None);
            covered.map_err(|error| system("mounting cgroup2")(error.into()))?;
        }
    }
    overlay::mount(&container.layers, &container.writable, &rootfs).map_err(system("mounting the root file system"))?;

    let (passwd, group) = (file_of_image(&rootfs, "etc/passwd"), file_of_image(&rootfs, "etc/group"));
    let invalid = |error: bundle::BundleError| Failure::Invalid(error.to_string());
    let user = user::resolve(&spec.security, &container.defaults.user, &passwd, &group).map_err(|error| invalid(error.into()))?;
    let hostname = sandbox.netns.is_some().then_some(sandbox.hostname.as_str());
    let launch = bundle::launch(container, &user, hostname).map_err(invalid)?;
    let places = Places {
        rootfs: &rootfs,
        shm: creation.shm,
        pid_namespace: creation.pid_namespace,
        cgroup: creation.cgroup_path,
        legacy_cgroups: !hierarchies.is_empty(),
    };
    let config = bundle::config(sandbox, container, &nodes, &places);
    fs::write(creation.dir.join("config.json"), config.to_string()).map_err(system("writing config.json"))?;
    take_stdio(creation.stdio).map_err(system("passing stdin, stdout and stderr"))?;

    let volume_there = spec.mounts.iter().any(|mount| mount.destination == Path::new(bundle::CGROUPS));
    let hierarchies = if volume_there { Vec::new() } else { hierarchies };
    let writable = spec.security.privileged;
    let last = LastStep { launch: Rc::new(launch.clone()), hierarchies, writable, terminal: creation.terminal, trouble: creation.trouble };
    let made = ContainerBuilder::new(spec.id.id.clone(), SyscallType::default())
        .with_executor(last)
        .with_root_path(creation.dir.join("libcontainer"))
        .and_then(|builder| builder.as_init(creation.dir).with_systemd(false).with_detach(true).as_sibling(true).build())
        .map_err(|error| Failure::Invalid(told(&error)))?;
    let pid = made
        .pid()
        .and_then(|pid| u32::try_from(pid.as_raw()).ok())
        .ok_or_else(|| Failure::System("the init has no process id".to_owned()))?;
    // The shim has the filters from where they came.
    Ok(Created { pid, launch: Launch { filters: Vec::new(), ..launch } })
}

/// An error with its causes, once each.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// Not lower than the machine lets us: a pod is not failed for that.
pub(super) fn set_oom_score(score: i32) {
    let path = "/proc/self/oom_score_adj";
    if fs::write(path, score.to_string()).is_err() {
        let now = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0);
        let _ = fs::write(path, score.max(now).to_string());
    }
}

fn enter_cgroup(creation: &Creation<'_>, rules: &[devices::Rule]) -> io::Result<()> {
    let cgroup = creation.cgroup;
    cgroup.create()?;
    cgroup.limit(&creation.container.spec.resources, true)?;
    if cgroup.is_v2() {
        let dir = cgroup.v2_dir().ok_or(io::ErrorKind::NotFound)?;
        devices::attach(&dir, rules)?;
    } else {
        let rules: Vec<String> = rules.iter().map(|rule| rule.to_v1()).collect();
        cgroup.limit_devices_v1(&rules)?;
    }
    cgroup.join(0)
}

fn rustix_unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: a process of one thread; no descriptor table is unshared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// A small file of the image, resolved inside of it; a missing or unreadable one is empty.
fn file_of_image(rootfs: &Path, name: &str) -> String {
    let read = || -> io::Result<String> {
        let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat2(&root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?;
        let mut bytes = Vec::new();
        fs::File::from(file).take(user::FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// The pod's devices as they are on this machine; all of them for a privileged container.
fn nodes(devices: &[Device], privileged: bool) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    for device in devices {
        let wrong = |what: String| Failure::Invalid(format!("device {}: {what}", device.host_path.display()));
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let meta = fs::metadata(&device.host_path).map_err(|error| wrong(error.to_string()))?;
        if meta.is_dir() {
            collect_nodes(&device.host_path, &device.container_path, permissions, &mut nodes);
        } else {
            nodes.push(node(&device.container_path, &meta, permissions).ok_or_else(|| wrong("not a device".to_owned()))?);
        }
    }
    if privileged {
        collect_nodes(Path::new("/dev"), Path::new("/dev"), "rwm", &mut nodes);
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        nodes.dedup_by(|a, b| a.path == b.path);
    }
    Ok(nodes)
}

fn collect_nodes(from: &Path, to: &Path, permissions: &str, into: &mut Vec<Node>) {
    /// Directories and nodes that a container has of its own.
    const OWN: [&str; 9] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr"];
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let (Ok(meta), false) = (entry.metadata(), OWN.iter().any(|own| name == *own)) else { continue };
        if meta.is_dir() {
            collect_nodes(&entry.path(), &to.join(&name), permissions, into);
        } else {
            into.extend(node(&to.join(&name), &meta, permissions));
        }
    }
}

fn node(path: &Path, meta: &fs::Metadata, permissions: &str) -> Option<Node> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Some(Node { path: PathBuf::from(path), kind, major, minor, mode: meta.mode() & 0o777, permissions: permissions.to_owned() })
}

/// What is not given is /dev/null.
pub(super) fn take_stdio(stdio: [Option<RawFd>; 3]) -> io::Result<()> {
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for (number, fd) in (0..).zip(stdio) {
        let fd: OwnedFd = match fd {
            Some(fd) => kept(fd).try_clone_to_owned()?,
            None => null.try_clone()?,
        };
        execute::dup_onto(&fd, number)?;
    }
    Ok(())
}

/// Runs in the container's init once it is told to start.
#[derive(Clone)]
struct LastStep {
    launch: Rc<Launch>,
    /// v1 hierarchies to mount, as the container's cgroup namespace shows them.
    hierarchies: Vec<(String, &'static str, String)>,
    /// Whether the container may write to them.
    writable: bool,
    terminal: Option<RawFd>,
    trouble: RawFd,
}

impl LastStep {
    fn mount_cgroups(&self) -> io::Result<()> {
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
        flags.set(MountFlags::RDONLY, !self.writable);
        for (name, kind, options) in &self.hierarchies {
            let dir = Path::new(bundle::CGROUPS).join(name);
            fs::create_dir(&dir)?;
            let options = std::ffi::CString::new(options.as_str()).map_err(io::Error::other)?;
            rustix::mount::mount(*kind, &dir, *kind, flags, options.as_c_str())?;
        }
        if self.hierarchies.is_empty() || self.writable {
            return Ok(());
        }
        Ok(rustix::mount::mount_remount(bundle::CGROUPS, flags | MountFlags::BIND, "")?)
    }

    fn take(&self) -> Result<(), String> {
        self.mount_cgroups().map_err(|error| format!("mounting cgroups: {error}"))?;
        let terminal = self.terminal.map(|fd| execute::take_terminal(kept(fd), true)).transpose();
        terminal.map(drop).map_err(|error| format!("opening a terminal: {error}"))
    }
}

impl Executor for LastStep {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let text = self.take().err().unwrap_or_else(|| execute::execute(&self.launch));
        let _ = rustix::io::write(kept(self.trouble), text.as_bytes());
        spawn::exit(NOT_STARTED)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes to execve as it is; this process keeps none of it.
        Ok(())
    }
}

/// Whether a sandbox's containers see its own host name.
pub(super) fn has_own_uts(sandbox: &Sandbox) -> bool {
    sandbox.spec.netns.is_some()
}

/// Whether a sandbox's containers share an IPC namespace of the pod.
pub(super) fn has_own_ipc(sandbox: &Sandbox) -> bool {
    sandbox.spec.ipc != NamespaceMode::Host
}

/// Names a descriptor for a child.
pub(super) fn number(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
