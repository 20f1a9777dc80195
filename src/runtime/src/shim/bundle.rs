//! What a container is, in the OCI runtime specification's words (its `config.json`), and the process that it will run. Pure.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    devices::{self, Rule},
    state::Container,
};
use crate::{
    Mount, NamespaceMode, SandboxSpec,
    process::{
        capability,
        execute::Launch,
        user::{User, UserError},
    },
};

/// Told nothing of the kernel, its hardware and its keys.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Read, never written.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The search path of an image that names none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a container sees its cgroup.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    /// a capability that is none
    #[error("{0}")]
    Capability(#[from] capability::Unknown),
    /// a user that is none
    #[error("{0}")]
    User(#[from] UserError),
    /// nothing to run
    #[error("no command specified")]
    NoCommand,
}

/// A device node as it is on the machine.
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) kind: char,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mode: u32,
    pub(super) permissions: String,
}

/// The process of a container's init.
pub(super) fn launch(container: &Container, user: &User, hostname: Option<&str>) -> Result<Launch, BundleError> {
    let (spec, image) = (&container.spec, &container.defaults);
    let security = &spec.security;
    // A command replaces the image's entry point and with it the image's arguments.
    let args: Vec<String> = match (spec.command.is_empty(), spec.args.is_empty()) {
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        (true, false) => image.entrypoint.iter().chain(&spec.args).cloned().collect(),
        (false, _) => spec.command.iter().chain(&spec.args).cloned().collect(),
    };
    if args.is_empty() {
        return Err(BundleError::NoCommand);
    }
    let mut env: Vec<String> = Vec::new();
    let image_env = image.env.iter().cloned();
    let own_env = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let first = hostname.map(|name| format!("HOSTNAME={name}")).into_iter().chain([format!("HOME={}", user.home), PATH.to_owned()]);
    for pair in first.chain(spec.tty.then(|| "TERM=xterm".to_owned())).chain(image_env).chain(own_env) {
        let name = pair.split('=').next().unwrap_or_default().len();
        match env.iter_mut().find(|known| known.get(..=name) == pair.get(..=name)) {
            Some(known) => *known = pair,
            None => env.push(pair),
        }
    }
    let cwd = [&spec.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty()).map_or("/", |dir| dir);
    Ok(Launch {
        args,
        env,
        cwd: cwd.to_owned(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        capabilities: capability::set(security.privileged, &security.add_capabilities, &security.drop_capabilities)?,
        no_new_privileges: !security.allow_privilege_escalation && !security.privileged,
        filters: container.filters.clone(),
    })
}

/// Where things are that only the shim knows.
pub(super) struct Places<'a> {
    pub(super) rootfs: &'a Path,
    pub(super) shm: &'a Path,
    /// A process in the pod's shared pid namespace.
    pub(super) pid_namespace: Option<u32>,
    pub(super) cgroup: &'a str,
    /// /sys/fs/cgroup is a tmpfs whose hierarchies the last step mounts (`create`).
    pub(super) legacy_cgroups: bool,
}

/// `config.json`: libcontainer makes namespaces, mounts and devices of it. The process in it is root's; `execute` makes it the pod's.
/// Its HOME is there so that libcontainer asks no name service for one: that would load the image's own libraries, as root.
pub(super) fn config(sandbox: &SandboxSpec, container: &Container, nodes: &[Node], at: &Places<'_>) -> Value {
    let spec = &container.spec;
    let privileged = spec.security.privileged;
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match (sandbox.pid, at.pid_namespace) {
        (NamespaceMode::Host, _) => {}
        (_, Some(pid)) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
        (_, None) => namespaces.push(json!({"type": "pid"})),
    }
    let unmasked = privileged || spec.security.proc_unmasked;
    let shared = spec.mounts.iter().any(|mount| mount.propagation == "rshared");
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": at.rootfs, "readonly": spec.security.read_only_root},
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["init"], "cwd": "/", "env": ["HOME=/"]},
        "mounts": mounts(sandbox, container, at),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": at.cgroup,
            "maskedPaths": if unmasked { vec![] } else { MASKED.to_vec() },
            "readonlyPaths": if unmasked { vec![] } else { READ_ONLY.to_vec() },
            "devices": nodes.iter().map(device).collect::<Vec<_>>(),
            "rootfsPropagation": if shared { "shared" } else { "slave" },
        },
    })
}

fn device(node: &Node) -> Value {
    json!({"path": node.path, "type": node.kind.to_string(), "major": node.major, "minor": node.minor, "fileMode": node.mode, "uid": 0, "gid": 0})
}

/// The rules that the nodes of a container need beside the default ones.
pub(super) fn device_rules(privileged: bool, nodes: &[Node]) -> Vec<Rule> {
    if privileged {
        return devices::EVERYTHING.to_vec();
    }
    let own = nodes.iter().map(|node| {
        let has = |access| node.permissions.contains(access);
        Rule { kind: node.kind, major: Some(node.major), minor: Some(node.minor), read: has('r'), write: has('w'), mknod: has('m') }
    });
    devices::DEFAULT.into_iter().chain(own).collect()
}

fn mounts(sandbox: &SandboxSpec, container: &Container, at: &Places<'_>) -> Vec<Value> {
    let spec = &container.spec;
    let privileged = spec.security.privileged;
    let system = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let ro = if privileged { "rw" } else { "ro" };
    let shm = if sandbox.ipc == NamespaceMode::Host { Path::new("/dev/shm") } else { at.shm };
    let mut list = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        json!({"destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "rw"]}),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", ro]),
        match at.legacy_cgroups {
            true => system(CGROUPS, "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]),
            false => system(CGROUPS, "cgroup", &["nosuid", "noexec", "nodev", "relatime", ro]),
        },
    ];
    // A volume at a place of the system takes it.
    list.retain(|mount| !spec.mounts.iter().any(|own| own.destination.to_str() == mount["destination"].as_str()));
    let mut own: Vec<&Mount> = spec.mounts.iter().collect();
    // Outer before inner, otherwise in the pod's order.
    own.sort_by_key(|mount| mount.destination.components().count());
    list.extend(own.into_iter().map(bind));
    list
}

fn bind(mount: &Mount) -> Value {
    if mount.source.as_os_str().is_empty() {
        return json!({"destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]});
    }
    let propagation = if mount.propagation.is_empty() || mount.propagation == "private" { "rprivate" } else { &mount.propagation };
    let mut options = vec!["rbind", propagation];
    match (mount.read_only, mount.recursive_read_only) {
        (_, true) => options.extend(["ro", "rro"]),
        (true, false) => options.push("ro"),
        (false, false) => options.push("rw"),
    }
    json!({"destination": mount.destination, "type": "bind", "source": mount.source, "options": options})
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
