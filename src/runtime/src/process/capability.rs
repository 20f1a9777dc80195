//! Linux capabilities: names, the default set of containers, and what a pod adds and drops.

/// In the order of their numbers (capabilities(7)).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless its pod says otherwise: containerd's fourteen.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability that has a name here.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// There is no such capability.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub(crate) struct Unknown(String);

/// The bit of a capability: `NET_ADMIN`, `CAP_NET_ADMIN`, in any case.
pub(crate) fn bit(name: &str) -> Result<u64, Unknown> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|n| 1 << n).ok_or_else(|| Unknown(name.to_owned()))
}

/// The names of a set, as the OCI runtime specification has them.
pub(crate) fn names(set: u64) -> Vec<String> {
    NAMES.iter().enumerate().filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// The set of a container. `ALL` is taken first, so that `drop: [ALL], add: [X]` is X alone and `add: [ALL], drop: [X]` all but X.
pub(crate) fn set(privileged: bool, add: &[String], drop: &[String]) -> Result<u64, Unknown> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all");
    let mut set = if privileged { ALL } else { DEFAULT.iter().map(|name| bit(name)).sum::<Result<u64, _>>()? };
    if add.iter().any(is_all) {
        set = ALL;
    }
    if drop.iter().any(is_all) {
        set = 0;
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set |= bit(name)?;
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set &= !bit(name)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_containers() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let check = |privileged, add: &[&str], drop: &[&str]| set(privileged, &list(add), &list(drop)).unwrap();
        let b = |name| bit(name).unwrap();
        // What /proc/self/status of a container of containerd shows.
        assert_eq!(check(false, &[], &[]), 0xa804_25fb);
        assert_eq!(check(false, &[], &["ALL"]), 0);
        assert_eq!(check(false, &["NET_BIND_SERVICE"], &["all"]), b("NET_BIND_SERVICE"));
        assert_eq!(check(false, &["ALL"], &["CAP_SYS_ADMIN"]), ALL & !b("sys_admin"));
        assert_eq!(check(false, &["net_admin"], &["KILL"]), 0xa804_25fb & !b("KILL") | b("NET_ADMIN"));
        assert_eq!(check(true, &[], &[]), 0x1ff_ffff_ffff);
        assert_eq!(names(b("KILL") | b("CHECKPOINT_RESTORE")), ["CAP_KILL", "CAP_CHECKPOINT_RESTORE"]);
        assert_eq!(set(false, &list(&["FLY"]), &[]), Err(Unknown("FLY".into())));
    }
}
