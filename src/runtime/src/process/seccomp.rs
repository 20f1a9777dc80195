//! System call filters: the default profile, profile files of the node, and both compiled to the kernel's BPF.
//!
//! A profile with several actions becomes several filters; the kernel takes the strictest answer of all, and of two errno answers the one of the
//! filter that came last. Filters are for the native architecture; a program of another one is killed.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{capability, syscall};
use crate::images::ARCHITECTURE;

/// Bytes of a profile file on the node.
pub(crate) const PROFILE_BYTES: u64 = 1 << 20;
/// `errno` of a refused call unless the profile names one.
const EPERM: u32 = libc::EPERM as u32;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// not a profile
    #[error("seccomp profile is not valid")]
    Format(#[from] serde_json::Error),
    /// an action that is none
    #[error("seccomp profile: unknown or unsupported action {0:?}")]
    Action(String),
    /// a comparison that is none
    #[error("seccomp profile: unknown comparison {0:?}")]
    Comparison(String),
    /// not translatable
    #[error("seccomp profile cannot be compiled")]
    Compile(#[from] seccompiler::BackendError),
}

/// A profile file, as the field writes them (OCI runtime specification, with conditions on capabilities).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    name: Option<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl Profile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The filters of this profile for a container with these capabilities, in the order of their installation.
    pub(crate) fn compile(&self, capabilities: u64) -> Result<Vec<BpfProgram>, ProfileError> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut others: BTreeMap<String, (SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)> = BTreeMap::new();
        for rule in self.syscalls.iter().filter(|rule| rule.applies(capabilities)) {
            let wanted = action(&rule.action, rule.errno_ret)?;
            if wanted == default {
                continue;
            }
            for number in rule.names.iter().chain(&rule.name).filter_map(|name| syscall::number(name)) {
                if wanted == SeccompAction::Allow {
                    add(&mut allowed, number, rule.conditions()?);
                } else {
                    let (_, rules) = others.entry(format!("{wanted:?}")).or_insert_with(|| (wanted.clone(), BTreeMap::new()));
                    add(rules, number, rule.conditions()?);
                }
            }
        }
        let arch = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
        let mut programs = Vec::new();
        if default != SeccompAction::Allow {
            // What another filter answers must pass this one.
            for rules in others.values() {
                for number in rules.1.keys() {
                    allowed.insert(*number, Vec::new());
                }
            }
            programs.push(BpfProgram::try_from(SeccompFilter::new(allowed, default, SeccompAction::Allow, arch)?)?);
        }
        for (_, (action, rules)) in others {
            programs.push(BpfProgram::try_from(SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?)?);
        }
        Ok(programs)
    }
}

impl Profile {
    /// As another runtime takes it: what does not apply to a container with these capabilities is left out.
    pub(crate) fn to_oci(&self, capabilities: u64) -> Value {
        let rules = self.syscalls.iter().filter(|rule| rule.applies(capabilities)).map(|rule| {
            let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
            let arguments = rule
                .args
                .iter()
                .flatten()
                .map(|a| json!({"index": a.index, "value": a.value, "valueTwo": a.value_two, "op": a.op}))
                .collect::<Vec<_>>();
            let mut out = json!({"names": names, "action": rule.action, "args": arguments});
            if let Some(errno) = rule.errno_ret {
                out["errnoRet"] = errno.into();
            }
            out
        });
        let arch = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
        let mut out = json!({"defaultAction": self.default_action, "architectures": [arch], "syscalls": rules.collect::<Vec<_>>()});
        if let Some(errno) = self.default_errno_ret {
            out["defaultErrnoRet"] = errno.into();
        }
        out
    }
}

/// An empty list of rules is unconditional, and stays so.
fn add(rules: &mut BTreeMap<i64, Vec<SeccompRule>>, number: i64, conditions: Option<SeccompRule>) {
    match (rules.get_mut(&number), conditions) {
        (None, Some(rule)) => drop(rules.insert(number, vec![rule])),
        (Some(list), Some(rule)) if !list.is_empty() => list.push(rule),
        (Some(list), None) => list.clear(),
        (None, None) => drop(rules.insert(number, Vec::new())),
        (Some(_), Some(_)) => {}
    }
}

impl Rule {
    fn applies(&self, capabilities: u64) -> bool {
        let has = |name: &String| capability::bit(name).is_ok_and(|bit| capabilities & bit != 0);
        let arch = |list: &Option<Vec<String>>| list.as_ref().map(|list| list.iter().any(|name| name == ARCHITECTURE));
        self.includes.caps.iter().flatten().all(has)
            && !self.excludes.caps.iter().flatten().any(has)
            && arch(&self.includes.arches).unwrap_or(true)
            && !arch(&self.excludes.arches).unwrap_or(false)
    }

    fn conditions(&self) -> Result<Option<SeccompRule>, ProfileError> {
        let list: Vec<SeccompCondition> = self.args.iter().flatten().map(Argument::condition).collect::<Result<_, _>>()?;
        if list.is_empty() { Ok(None) } else { Ok(Some(SeccompRule::new(list)?)) }
    }
}

impl Argument {
    fn condition(&self) -> Result<SeccompCondition, ProfileError> {
        let (op, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, self.value),
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, self.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, self.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, self.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, self.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, self.value),
            // The mask first, what must be left of it second.
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(self.value), self.value_two),
            other => return Err(ProfileError::Comparison(other.to_owned())),
        };
        Ok(SeccompCondition::new(self.index, SeccompCmpArgLen::Qword, op, value)?)
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(EPERM)),
        other => return Err(ProfileError::Action(other.to_owned())),
    })
}

/// The default profile: what programs need, nothing that reaches beyond their container; more for those whose capabilities allow it anyway.
pub(crate) fn default_profile() -> Profile {
    let allow = |names: &str| Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: "SCMP_ACT_ALLOW".to_owned(),
        ..Rule::default()
    };
    let argument = |index, op: &str, value, value_two| Some(vec![Argument { index, value, value_two, op: op.to_owned() }]);
    let caps = |name: &str| Condition { caps: Some(vec![name.to_owned()]), arches: None };
    let mut syscalls = vec![allow(ALWAYS)];
    // Sockets of any family but those to the hypervisor.
    syscalls.push(Rule { args: argument(0, "SCMP_CMP_NE", libc::AF_VSOCK as u64, 0), ..allow("socket") });
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        syscalls.push(Rule { args: argument(0, "SCMP_CMP_EQ", persona, 0), ..allow("personality") });
    }
    for (capability, names) in BY_CAPABILITY {
        syscalls.push(Rule { includes: caps(capability), ..allow(names) });
    }
    // Without CAP_SYS_ADMIN no new namespaces: clone by its flags; clone3, whose flags no filter can read, is said not to exist.
    syscalls.push(Rule { excludes: caps("CAP_SYS_ADMIN"), args: argument(0, "SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, 0), ..allow("clone") });
    syscalls.push(Rule {
        action: "SCMP_ACT_ERRNO".to_owned(),
        errno_ret: Some(libc::ENOSYS as u32),
        excludes: caps("CAP_SYS_ADMIN"),
        ..allow("clone3")
    });
    Profile { default_action: "SCMP_ACT_ERRNO".to_owned(), default_errno_ret: Some(EPERM), syscalls }
}

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Allowed to whoever holds the capability.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount \
         mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Allowed to every container.
const ALWAYS: &str = "\
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres clock_gettime \
    clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait \
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync \
    ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid \
    getsockname getsockopt get_thread_area gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek \
    lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap \
    modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync \
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc \
    pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename \
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl \
    semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid \
    setresuid setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setxattr setxattrat shmat shmctl shmdt \
    shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs \
    sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime \
    times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles_for_every_set_of_capabilities() {
        for capabilities in [0, capability::set(false, &[], &[]).unwrap(), capability::ALL] {
            let programs = default_profile().compile(capabilities).unwrap();
            let lengths: Vec<usize> = programs.iter().map(Vec::len).collect();
            assert!(lengths.iter().all(|len| (4..4096).contains(len)), "{lengths:?}");
            assert_eq!(programs.len(), if capabilities == capability::ALL { 1 } else { 2 }, "clone3 has a filter of its own");
        }
    }

    #[test]
    fn profiles_of_the_node_are_read_and_wrong_ones_named() {
        let parse = |text: &str| Profile::parse(text.as_bytes()).and_then(|profile| profile.compile(0));
        assert_eq!(
            parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","no_such"],"action":"SCMP_ACT_ERRNO"}]}"#)
                .unwrap()
                .len(),
            1
        );
        assert_eq!(parse(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap().len(), 0);
        assert!(matches!(parse("{}"), Err(ProfileError::Format(_))));
        assert!(matches!(parse(r#"{"defaultAction":"NO"}"#), Err(ProfileError::Action(_))));
        let compared = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["kill"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":1,"op":"X"}]}]}"#;
        assert!(matches!(parse(compared), Err(ProfileError::Comparison(_))));
    }

    #[test]
    fn unknown_names_of_the_lists_are_other_architectures() {
        let names = ALWAYS.split_whitespace().chain(BY_CAPABILITY.iter().flat_map(|(_, names)| names.split_whitespace()));
        let unknown: Vec<&str> = names.filter(|name| syscall::number(name).is_none()).collect();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                unknown,
                ["ipc", "umount", "stime", "clock_settime64"]
                    .into_iter()
                    .filter(|name| syscall::number(name).is_none())
                    .collect::<Vec<_>>()
            );
        }
        assert!(BY_CAPABILITY.iter().all(|(name, _)| capability::bit(name).is_ok()));
    }
}
