//! Makes a container: in the process that is its init, a child of the shim in new namespaces, from there to the moment before its program.
//!
//! Everything is done here that needs the machine as it is; what needs the pod's word to start is `process::execute`.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::MountPropagationFlags,
    thread::{LinkNameSpaceType, UnshareFlags},
};
use serde::{Deserialize, Serialize};

use super::{
    bundle, devices,
    jobs::say,
    nodes, oci, overlay, place,
    protocol::Failure,
    root::{self, Groups},
    spawn::{self, kept},
    state::{Container, Sandbox},
    users::{self, Users},
};
use crate::{
    NamespaceMode,
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
    /// Made and limited.
    pub(super) cgroup: &'a Cgroup,
    pub(super) cgroup_path: &'a str,
    pub(super) pid_namespace: Option<u32>,
    /// The shim, which has the pod's namespaces.
    pub(super) shim: u32,
    pub(super) stdio: [Option<RawFd>; 3],
    /// Where the terminal is sent.
    pub(super) terminal: Option<RawFd>,
    /// Where it says what came of it.
    pub(super) result: RawFd,
    /// The pod's own users.
    pub(super) users: Option<Users>,
    /// What brings a byte when the container is to start.
    pub(super) go: RawFd,
    /// Where an init says why it could not execute its program.
    pub(super) trouble: RawFd,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) launch: Launch,
    /// The init, where it is not the one that says this.
    pub(super) pid: Option<u32>,
}

/// In the child, from its first moment on: becomes the container's init and waits to be started.
pub(super) fn run(creation: &Creation<'_>) {
    let made = prepare(creation);
    let (answer, launch) = match made {
        // The shim has the filters from where they came.
        Ok(launch) => (Ok(Created { launch: Launch { filters: Vec::new(), ..launch.clone() }, pid: None }), launch),
        Err(failure) => return say(kept(creation.result), &Err::<Created, _>(failure)),
    };
    say(kept(creation.result), &answer);
    // No byte: the shim is gone, and who started it meanwhile has given the container up.
    if rustix::io::read(kept(creation.go), &mut [0; 1]) == Ok(1) {
        let become_pods = || creation.users.map_or(Ok(()), |users| users::enter(users, &launch, true));
        let terminal = || creation.terminal.map(|fd| execute::take_terminal(kept(fd), true)).transpose();
        let text = match become_pods() {
            Err(error) => format!("entering the user namespace: {error}"),
            Ok(()) => match terminal() {
                Err(error) => format!("opening a terminal: {error}"),
                Ok(_) => execute::execute(&launch),
            },
        };
        let _ = rustix::io::write(kept(creation.trouble), text.as_bytes());
    }
    spawn::exit(NOT_STARTED)
}

fn prepare(creation: &Creation<'_>) -> Result<Launch, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    let (sandbox, spec) = (&creation.sandbox.spec, &creation.container.spec);
    // What the container's `/` and its mount points are to others.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::setsid().map_err(|e| system("making a session")(e.into()))?;
    set_oom_score(spec.resources.oom_score_adj.unwrap_or(0));
    let nodes = nodes::nodes(&spec.devices, spec.security.privileged)?;
    let rules = bundle::device_rules(spec.security.privileged, &nodes);
    enter_cgroup(creation.cgroup, &rules).map_err(system("entering the cgroup"))?;
    unshare(UnshareFlags::NEWCGROUP).map_err(system("making a cgroup namespace"))?;
    if let Some(netns) = &sandbox.netns {
        let netns = fs::File::open(netns).map_err(|error| Failure::System(format!("network namespace {}: {error}", netns.display())))?;
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| system("entering the network namespace")(error.into()))?;
    }
    let Staged { rootfs, plan, trees, launch } = stage(creation, nodes)?;
    let config = oci::config(sandbox, &plan, &launch, creation.pid_namespace, creation.cgroup_path);
    write_config(&creation.dir.join("config.json"), config.to_string().as_bytes()).map_err(system("writing config.json"))?;

    let groups = Groups { unified: creation.cgroup.is_v2(), dirs: creation.cgroup.named_dirs() };
    // Nodes are as open as they are on the node.
    rustix::process::umask(Mode::empty());
    let owner = creation.users.map(|users| users.range.first);
    root::build(rootfs.as_fd(), &plan, trees, &groups, owner).map_err(|trouble| Failure::Invalid(trouble.to_string()))?;
    root::enter(rootfs.as_fd(), plan.shares()).map_err(system("entering the root file system"))?;
    take_stdio(creation.stdio).map_err(system("passing stdin, stdout and stderr"))?;
    Ok(launch)
}

/// What a container is made of, in a mount namespace that is cut off from the node's.
pub(super) struct Staged {
    pub(super) rootfs: OwnedFd,
    pub(super) plan: bundle::Plan,
    /// Of the mounts, in their order.
    pub(super) trees: Vec<Option<OwnedFd>>,
    pub(super) launch: Launch,
}

/// Mounts the root file system and opens what is to be mounted in it.
pub(super) fn stage(creation: &Creation<'_>, nodes: Vec<nodes::Node>) -> Result<Staged, Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::System(format!("{what}: {error}"));
    let (sandbox, container) = (&creation.sandbox.spec, creation.container);
    let security = &container.spec.security;
    let plan = bundle::plan(sandbox, container, nodes, creation.shm);
    let users = creation.users.map(|users| kept(users.namespace));
    let invalid = |trouble: root::Trouble| Failure::Invalid(trouble.to_string());
    let mut trees = root::trees(&plan, users).map_err(invalid)?;
    // From here on nothing that is mounted is seen by the node, and so it is gone with the container.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| system("cutting off the mount namespace")(error.into()))?;
    let rootfs = overlay(creation).map_err(system("mounting the root file system"))?;
    root::images(&plan, container, creation.dir, users, &mut trees).map_err(invalid)?;

    let (passwd, group) = (file_of_image(rootfs.as_fd(), "etc/passwd"), file_of_image(rootfs.as_fd(), "etc/group"));
    let invalid_bundle = |error: bundle::BundleError| Failure::Invalid(error.to_string());
    let user = user::resolve(security, &container.defaults.user, &passwd, &group).map_err(|error| invalid_bundle(error.into()))?;
    let hostname = sandbox.netns.is_some().then_some(sandbox.hostname.as_str());
    let launch = bundle::launch(container, &user, hostname).map_err(invalid_bundle)?;
    Ok(Staged { rootfs, plan, trees, launch })
}

/// Not for others: there may be secrets in its environment.
pub(super) fn write_config(path: &Path, text: &[u8]) -> io::Result<()> {
    fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?.write_all(text)
}

fn overlay(creation: &Creation<'_>) -> io::Result<OwnedFd> {
    let (container, rootfs) = (creation.container, creation.dir.join("rootfs"));
    fs::create_dir_all(&rootfs)?;
    for dir in ["upper", "work"] {
        fs::create_dir_all(container.writable.join(dir))?;
    }
    let devices = creation.cgroup.guards_devices();
    match creation.users {
        None => overlay::mount(&container.layers, &container.writable, &rootfs, devices)?,
        Some(users) => {
            for dir in ["upper", "work"] {
                std::os::unix::fs::chown(container.writable.join(dir), Some(users.range.first), Some(users.range.first))?;
            }
            let layers = users::layers(&container.layers, &creation.dir.join("layers"), kept(users.namespace))?;
            overlay::mount(&layers, &container.writable, &rootfs, devices)?;
        }
    }
    Ok(rustix::fs::open(&rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Not lower than the machine lets us: a pod is not failed for that.
pub(super) fn set_oom_score(score: i32) {
    let path = "/proc/self/oom_score_adj";
    if fs::write(path, score.to_string()).is_err() {
        let now = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0);
        let _ = fs::write(path, score.max(now).to_string());
    }
}

/// Of v2 it was born a member.
fn enter_cgroup(cgroup: &Cgroup, rules: &[devices::Rule]) -> io::Result<()> {
    if cgroup.is_v2() {
        let dir = cgroup.v2_dir().ok_or(io::ErrorKind::NotFound)?;
        devices::attach(&dir, rules)?;
    } else {
        let rules: Vec<String> = rules.iter().map(|rule| rule.to_v1()).collect();
        cgroup.limit_devices_v1(&rules)?;
    }
    cgroup.join_v1()
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: a process of one thread; no descriptor table is unshared.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// A small file of the image, resolved inside of it; a missing or unreadable one is empty.
fn file_of_image(rootfs: BorrowedFd<'_>, name: &str) -> String {
    let read = || -> io::Result<String> {
        let file = place::find(rootfs, Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut bytes = Vec::new();
        fs::File::from(file).take(user::FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
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
