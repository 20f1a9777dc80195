//! A container in the words of the OCI runtime specification. Pure.

use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;
use serde_json::{Value, json};

use super::{
    bundle::{Mounting, Plan, Propagation, ReadOnly, What},
    devices::Rule,
    nodes::Node,
};
use crate::{
    NamespaceMode, SandboxSpec,
    process::{capability, execute::Launch},
};

/// Flags of mounts by their names.
const OPTIONS: [(MountAttrFlags, &str); 5] = [
    (MountAttrFlags::MOUNT_ATTR_NOSUID, "nosuid"),
    (MountAttrFlags::MOUNT_ATTR_NOEXEC, "noexec"),
    (MountAttrFlags::MOUNT_ATTR_NODEV, "nodev"),
    (MountAttrFlags::MOUNT_ATTR_RDONLY, "ro"),
    (MountAttrFlags::MOUNT_ATTR_STRICTATIME, "strictatime"),
];

/// `config.json`: for people, and for another runtime to do the same (the bench has runc do it). The process in it is without its user, whom only the
/// last step (`execute`) makes of root.
pub(super) fn config(sandbox: &SandboxSpec, plan: &Plan, launch: &Launch, pid_namespace: Option<u32>, cgroup: &str) -> Value {
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    match (sandbox.pid, pid_namespace) {
        (NamespaceMode::Host, _) => {}
        (_, Some(pid)) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
        (_, None) => namespaces.push(json!({"type": "pid"})),
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": plan.read_only_root},
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": launch.args, "cwd": launch.cwd, "env": launch.env},
        "mounts": plan.mounts.iter().map(described).collect::<Vec<_>>(),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "maskedPaths": plan.masked,
            "readonlyPaths": plan.read_only,
            "devices": plan.nodes.iter().map(device).collect::<Vec<_>>(),
            "rootfsPropagation": if plan.shares() { "shared" } else { "slave" },
        },
    })
}

/// What another runtime needs beside [`config`].
pub(super) struct Rest<'a> {
    /// A process that has the pod's namespaces.
    pub(super) shim: u32,
    pub(super) own_uts: bool,
    pub(super) own_ipc: bool,
    pub(super) terminal: bool,
    pub(super) oom_score: i32,
    pub(super) rules: &'a [Rule],
    pub(super) seccomp: Option<&'a Value>,
    /// Where the trees of the mounts are, in their order.
    pub(super) sources: &'a [Option<PathBuf>],
}

/// `config.json` for another runtime.
pub(super) fn whole(mut config: Value, sandbox: &SandboxSpec, launch: &Launch, rest: &Rest<'_>) -> Value {
    config["process"] = process(launch, rest.terminal);
    config["process"]["oomScoreAdj"] = rest.oom_score.into();
    let joined = [
        ("network", sandbox.netns.clone()),
        ("uts", rest.own_uts.then(|| PathBuf::from(format!("/proc/{}/ns/uts", rest.shim)))),
        ("ipc", rest.own_ipc.then(|| PathBuf::from(format!("/proc/{}/ns/ipc", rest.shim)))),
    ];
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        let joined = joined.into_iter().filter_map(|(kind, path)| Some(json!({"type": kind, "path": path?})));
        namespaces.extend(joined);
    }
    for (mount, source) in config["mounts"].as_array_mut().into_iter().flatten().zip(rest.sources) {
        if let Some(source) = source {
            mount["source"] = source.to_string_lossy().into();
        }
    }
    let closed = json!({"allow": false, "access": "rwm"});
    let devices: Vec<Value> = std::iter::once(closed).chain(rest.rules.iter().map(|rule| opened(*rule))).collect();
    config["linux"]["resources"] = json!({"devices": devices});
    if let Some(seccomp) = rest.seccomp {
        config["linux"]["seccomp"] = seccomp.clone();
    }
    config
}

/// A process of a container, for `config.json` and for an exec.
pub(super) fn process(launch: &Launch, terminal: bool) -> Value {
    let capabilities = capability::names(launch.capabilities);
    let mut process = json!({
        "terminal": terminal,
        "user": {"uid": launch.uid, "gid": launch.gid, "additionalGids": launch.groups, "umask": 0o022},
        "args": launch.args,
        "env": launch.env,
        "cwd": launch.cwd,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": launch.no_new_privileges,
    });
    if let Some(profile) = &launch.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    process
}

fn opened(rule: Rule) -> Value {
    let access: String =
        [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')].into_iter().filter_map(|(on, c)| on.then_some(c)).collect();
    let mut out = json!({"allow": true, "type": rule.kind.to_string(), "access": access});
    for (name, number) in [("major", rule.major), ("minor", rule.minor)] {
        if let Some(number) = number {
            out[name] = number.into();
        }
    }
    out
}

fn described(mount: &Mounting) -> Value {
    let (kind, source, options): (&str, &Path, Vec<String>) = match &mount.what {
        What::Fresh { kind, options, flags } => {
            let names = OPTIONS.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name.to_owned());
            let own = options.iter().map(|(key, value)| if value.is_empty() { (*key).to_owned() } else { format!("{key}={value}") });
            (kind, Path::new(kind), names.chain(own).collect())
        }
        What::Tree { source, read_only, propagation } => {
            let seen = match propagation {
                Propagation::Private => "rprivate",
                Propagation::Slave => "rslave",
                Propagation::Shared => "rshared",
            };
            let access: &[&str] = match read_only {
                ReadOnly::No => &["rw"],
                ReadOnly::Top => &["ro"],
                ReadOnly::All => &["ro", "rro"],
            };
            ("bind", source, ["rbind", seen].iter().chain(access).map(|option| (*option).to_owned()).collect())
        }
        What::Image { id, .. } => {
            ("bind", Path::new(id), ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec())
        }
        What::Cgroups { writable } => {
            let access = if *writable { "rw" } else { "ro" };
            ("cgroup", Path::new("cgroup"), ["nosuid", "noexec", "nodev", "relatime", access].map(str::to_owned).to_vec())
        }
    };
    json!({"destination": mount.destination, "type": kind, "source": source, "options": options})
}

fn device(node: &Node) -> Value {
    json!({"path": node.path, "type": node.kind.to_string(), "major": node.major, "minor": node.minor, "fileMode": node.mode, "uid": 0, "gid": 0})
}
