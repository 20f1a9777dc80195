//! What a shim sets up once: its own place on the machine, and the namespaces that the pod's containers share.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};

use super::{
    create::{has_own_ipc, has_own_uts, set_oom_score},
    protocol,
    spawn::{self, Birth},
    state, users,
};
use crate::{
    NamespaceMode,
    cgroup::{Cgroup, Hierarchies},
    process::execute,
};

/// Bytes of a pod's /dev/shm, as pods have everywhere.
const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=65536k";
/// Of a process that its node loses last: all of a pod's containers hang on it.
const OOM_SCORE: i32 = -998;

/// What a shim holds.
pub(super) struct Held {
    pub(super) dir: PathBuf,
    pub(super) record: state::Sandbox,
    pub(super) cgroup: Cgroup,
    /// A process of the pod's own pid namespace, where its containers share one.
    pub(super) pid_namespace: Option<u32>,
    /// The pod's own users, where it has such.
    pub(super) users: Option<OwnedFd>,
    pub(super) listener: UnixListener,
}

/// Becomes the shim of the sandbox in `dir`. The text is for the main process.
pub(super) fn open(dir: &Path) -> Result<Held, String> {
    let record: state::Sandbox = state::read(&dir.join(state::SANDBOX)).map_err(at("reading the sandbox"))?;
    let spec = &record.spec;
    // A session of its own: no terminal's signal reaches it.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    close_inherited();
    // Children inherit it until they execute their program: processes of the pod must not look into those that are on their way to join them.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| at("becoming unreadable")(e.into()))?;
    let hierarchies = Hierarchies::detect().map_err(at("reading the cgroup mounts"))?;
    let own = Cgroup::new(&hierarchies, &record.shim_cgroup).map_err(at("cgroup of shims"))?;
    own.create().and_then(|()| own.join_v1()).and_then(|()| own.join_v2()).map_err(at("entering the cgroup of shims"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| at("becoming a subreaper")(e.into()))?;
    set_oom_score(OOM_SCORE);

    let cgroup = Cgroup::new(&hierarchies, &spec.cgroup).map_err(at("cgroup of the pod"))?;
    cgroup.create().and_then(|()| cgroup.limit(&spec.resources, false)).map_err(at("making the pod's cgroup"))?;
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWUTS, has_own_uts(&record));
    flags.set(UnshareFlags::NEWIPC, has_own_ipc(&record));
    // SAFETY: one thread, and no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| at("making namespaces")(e.into()))?;
    if has_own_uts(&record) {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(|e| at("setting the host name")(e.into()))?;
    }
    sysctls(&record).map_err(|error| format!("setting kernel parameters: {error}"))?;
    if has_own_ipc(&record) {
        mount_shm(&dir.join("shm")).map_err(at("mounting /dev/shm"))?;
    }
    let pid_namespace = match spec.pid {
        NamespaceMode::Pod => Some(pid_namespace(&cgroup).map_err(at("making a pid namespace"))?),
        _ => None,
    };
    let users = spec.user_namespace.map(users::namespace).transpose().map_err(at("making a user namespace"))?;
    let listener = listen(dir).map_err(at("listening"))?;
    let pid = std::process::id();
    let who = state::Who { protocol: protocol::VERSION, pid, start_time: state::start_time(pid).unwrap_or(0) };
    state::write(&dir.join(state::SHIM), &who).map_err(at("writing its state"))?;
    Ok(Held { dir: dir.to_owned(), record, cgroup, pid_namespace, users, listener })
}

fn at(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// One line to the process that waits for it; after that there is none.
pub(super) fn tell(text: &str) {
    use io::Write;
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = execute::dup_onto(&null, 1);
    }
}

fn close_inherited() {
    // SAFETY: called first; what is open above 2 was left by the caller's program and nothing here has opened a descriptor yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// By its short name: a path of a socket has no more than 107 bytes.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    rustix::process::chdir(dir)?;
    let _ = fs::remove_file(state::SOCKET);
    let listener = UnixListener::bind(state::SOCKET);
    if listener.is_ok() {
        fs::set_permissions(state::SOCKET, fs::Permissions::from_mode(0o600))?;
    }
    rustix::process::chdir("/")?;
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn mount_shm(shm: &Path) -> io::Result<()> {
    fs::create_dir_all(shm)?;
    rustix::mount::mount("shm", shm, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC, SHM_OPTIONS)?;
    Ok(rustix::mount::mount_change(shm, MountPropagationFlags::PRIVATE)?)
}

/// Which namespace has a kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Ipc,
    Network,
}

fn scope(name: &str) -> Option<Scope> {
    let name = name.replace('/', ".");
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix)) || name == "kernel.sem";
    match name {
        _ if name.split('.').any(str::is_empty) => None,
        _ if of_ipc => Some(Scope::Ipc),
        _ if name.starts_with("net.") => Some(Scope::Network),
        _ => None,
    }
}

fn sysctls(record: &state::Sandbox) -> Result<(), String> {
    let mut network = BTreeMap::new();
    for (name, value) in &record.spec.sysctls {
        match scope(name) {
            Some(Scope::Ipc) if has_own_ipc(record) => set(name, value)?,
            Some(Scope::Network) if record.spec.netns.is_some() => _ = network.insert(name, value),
            Some(_) => return Err(format!("{name} is the node's own for a pod with the node's namespace")),
            None => return Err(format!("{name} is not of a pod's namespaces")),
        }
    }
    let low_ports = "net.ipv4.ip_unprivileged_port_start".to_owned();
    let none = "0".to_owned();
    if record.spec.user_namespace.is_some() && record.spec.netns.is_some() {
        // Its root has no rights in the network namespace, which is the node's: any user of the pod may listen on low ports.
        network.entry(&low_ports).or_insert(&none);
    }
    let (Some(netns), false) = (&record.spec.netns, network.is_empty()) else { return Ok(()) };
    let text = |error: io::Error| format!("network namespace: {error}");
    let own = fs::File::open("/proc/self/ns/net").map_err(text)?;
    let pods = fs::File::open(netns).map_err(text)?;
    let enter = |file: &fs::File| {
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|e| text(e.into()))
    };
    enter(&pods)?;
    let done = network.into_iter().try_for_each(|(name, value)| set(name, value));
    enter(&own)?;
    done
}

fn set(name: &str, value: &str) -> Result<(), String> {
    fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).map_err(|error| format!("{name} = {value}: {error}"))
}

/// Makes the first process of a pid namespace that containers share: it adopts their orphans and sleeps.
fn pid_namespace(pod: &Cgroup) -> io::Result<u32> {
    let cgroup = pod.child("init");
    cgroup.create()?;
    let birthplace = cgroup.v2_birthplace()?;
    let birth = Birth { namespaces: libc::CLONE_NEWPID, cgroup: birthplace.as_ref().map(AsFd::as_fd) };
    let (mut from, to) = io::pipe()?;
    let pid = spawn::child(birth, &[to.as_raw_fd()], || {
        set_oom_score(0);
        if cgroup.join_v1().is_ok() && rustix::io::write(&to, &[1]).is_ok() {
            adopt();
        }
    })?;
    drop(to);
    match io::Read::read(&mut from, &mut [0])? {
        0 => Err(io::Error::other("its first process could not enter its cgroup")),
        _ => Ok(pid),
    }
}

fn adopt() {
    // SAFETY: an ignored SIGCHLD lets the kernel reap; all others have no handler, and the first process of a namespace is not killed from within.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        loop {
            libc::pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_pods_namespaces_are_set() {
        for (name, expected) in [
            ("net.ipv4.ip_unprivileged_port_start", Some(Scope::Network)),
            ("kernel.shmmax", Some(Scope::Ipc)),
            ("kernel/msgmax", Some(Scope::Ipc)),
            ("fs.mqueue.msg_max", Some(Scope::Ipc)),
            ("vm.swappiness", None),
            ("net...kernel.panic", None),
            ("kernel.panic", None),
        ] {
            assert_eq!(scope(name), expected, "{name}");
        }
    }
}
