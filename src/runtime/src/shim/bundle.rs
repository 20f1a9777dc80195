//! What a container is: the process that it runs and what it sees mounted. Pure.

use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::{
    devices::{self, Rule},
    nodes::Node,
    state::Container,
};
use crate::{
    Mount, NamespaceMode, SandboxSpec,
    masks::{MASKED, READ_ONLY},
    process::{
        capability,
        execute::Launch,
        user::{User, UserError},
    },
};

/// The search path of an image that names none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a container sees its cgroup.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";
/// Of a container's /dev: 64 MiB are more than its nodes and links take, and a bound for what else is put there.
const DEV_OPTIONS: &[(&str, &str)] = &[("mode", "755"), ("size", "65536k")];
/// Terminals of its own; the group is `tty` in every image.
const PTS_OPTIONS: &[(&str, &str)] = &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];

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
        apparmor: container.apparmor.clone(),
    })
}

/// What a container sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of mounting.
    pub(super) mounts: Vec<Mounting>,
    /// Beside the usual ones.
    pub(super) nodes: Vec<Node>,
    /// Hidden, if they are there.
    pub(super) masked: &'static [&'static str],
    /// Not writable, if they are there.
    pub(super) read_only: &'static [&'static str],
    pub(super) read_only_root: bool,
}

/// Something mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounting {
    pub(super) destination: PathBuf,
    pub(super) what: What,
}

/// Where a mount comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A file system of its own.
    Fresh { kind: &'static str, options: &'static [(&'static str, &'static str)], flags: MountAttrFlags },
    /// Files of the node, with all that is mounted below them.
    Tree { source: PathBuf, read_only: ReadOnly, propagation: Propagation },
    /// The container's own groups.
    Cgroups { writable: bool },
    /// An image of the node's, the so many-th that the container mounts; to be read, and nothing in it is executed.
    Image { id: String, number: usize },
}

/// How much of a tree is not writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOnly {
    No,
    /// Without what is mounted below.
    Top,
    All,
}

/// Who sees what is mounted in a tree later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Propagation {
    Private,
    /// The container sees what the node mounts.
    Slave,
    /// And the node what the container mounts.
    Shared,
}

/// What a container sees. `shm` is the pod's own /dev/shm.
pub(super) fn plan(sandbox: &SandboxSpec, container: &Container, nodes: Vec<Node>, shm: &Path) -> Plan {
    let security = &container.spec.security;
    let unmasked = security.privileged || security.proc_unmasked;
    Plan {
        mounts: mounts(sandbox, container, shm),
        nodes,
        masked: if unmasked { &[] } else { &MASKED },
        read_only: if unmasked { &[] } else { &READ_ONLY },
        read_only_root: security.read_only_root,
    }
}

impl Plan {
    /// Whether a mount of the container is to be seen by the node.
    pub(super) fn shares(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount.what, What::Tree { propagation: Propagation::Shared, .. }))
    }
}

fn mounts(sandbox: &SandboxSpec, container: &Container, shm: &Path) -> Vec<Mounting> {
    let spec = &container.spec;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    let writable = spec.security.privileged;
    let system = |destination: &str, what| Mounting { destination: destination.into(), what };
    let fresh = |kind, options, flags| What::Fresh { kind, options, flags };
    let shm = if sandbox.ipc == NamespaceMode::Host { Path::new("/dev/shm") } else { shm };
    let shm = What::Tree { source: shm.to_owned(), read_only: ReadOnly::No, propagation: Propagation::Private };
    let mut list = vec![
        system("/proc", fresh("proc", &[], closed)),
        system("/dev", fresh("tmpfs", DEV_OPTIONS, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME)),
        system("/dev/pts", fresh("devpts", PTS_OPTIONS, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)),
        system("/dev/shm", shm),
        system("/dev/mqueue", fresh("mqueue", &[], closed)),
        system("/sys", fresh("sysfs", &[], if writable { closed } else { closed | MountAttrFlags::MOUNT_ATTR_RDONLY })),
        system(CGROUPS, What::Cgroups { writable }),
    ];
    let images = spec
        .image_mounts
        .iter()
        .enumerate()
        .map(|(number, image)| Mounting { destination: image.destination.clone(), what: What::Image { id: image.image.clone(), number } });
    let mut own: Vec<Mounting> = spec.mounts.iter().map(volume).chain(images).collect();
    // A volume at a place of the system takes it.
    list.retain(|mount| !own.iter().any(|own| own.destination == mount.destination));
    // Outer before inner, otherwise in the pod's order.
    own.sort_by_key(|mount| mount.destination.components().count());
    list.extend(own);
    list
}

fn volume(mount: &Mount) -> Mounting {
    let what = if mount.source.as_os_str().is_empty() {
        What::Fresh {
            kind: "tmpfs",
            options: &[("mode", "1777")],
            flags: MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        }
    } else {
        What::Tree {
            source: mount.source.clone(),
            read_only: match (mount.read_only, mount.recursive_read_only) {
                (_, true) => ReadOnly::All,
                (true, false) => ReadOnly::Top,
                (false, false) => ReadOnly::No,
            },
            propagation: match mount.propagation.as_str() {
                "rslave" => Propagation::Slave,
                "rshared" => Propagation::Shared,
                _ => Propagation::Private,
            },
        }
    };
    Mounting { destination: mount.destination.clone(), what }
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

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
