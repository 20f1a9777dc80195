//! The values that pass between a node agent and a runtime. Those that are kept on disk may lack what a later version added.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// Which namespace a container or sandbox uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The node's.
    Host,
    /// The pod's, shared by its containers.
    Pod,
    /// Its own (pid only).
    Container,
}

/// A pod sandbox: what all containers of a pod share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// 64 hex digits, chosen by the agent, new for each sandbox.
    pub id: String,
    /// Of the pod.
    pub namespace: String,
    /// Of the pod.
    pub name: String,
    /// Of the pod.
    pub uid: String,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// Bind-mounted network namespace to join; `None` is the node's.
    pub netns: Option<PathBuf>,
    /// UTS host name; ignored with `netns: None`.
    pub hostname: String,
    /// Of the pod.
    pub ipc: NamespaceMode,
    /// `Container` unless shareProcessNamespace or hostPID.
    pub pid: NamespaceMode,
    /// The pod's cgroup, relative to the hierarchy's root: `/coracle/kubepods/burstable/pod<uid>`. Made by `create_sandbox`.
    pub cgroup: String,
    /// Limits of the pod's cgroup as a whole.
    pub resources: Resources,
    /// Whether one of its containers is: some runtimes want to know that first.
    pub privileged: bool,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Where container logs live: `/var/log/pods/<ns>_<name>_<uid>`.
    pub log_directory: PathBuf,
    /// Which runtime makes its containers (`handler` of its RuntimeClass); empty is the one that others are made with.
    pub handler: String,
    /// Its containers' users are these of the node; `None`: the same.
    pub user_namespace: Option<UserRange>,
    /// Kept and given back, never read.
    pub labels: BTreeMap<String, String>,
    /// Kept and given back, never read.
    pub annotations: BTreeMap<String, String>,
}

/// Users of the node that are a pod's 0 and upwards; groups alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// The pod's root.
    pub first: u32,
    /// How many.
    pub length: u32,
}

/// A runtime that a RuntimeClass may name, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// `handler` of a RuntimeClass; empty is the default.
    pub name: String,
    /// Whether mounts can be read-only with all that is mounted below.
    pub recursive_read_only: bool,
    /// Whether pods can have users of their own.
    pub user_namespaces: bool,
}

/// The file system of a runtime that keeps its images on a disk of its choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilesystem {
    /// Somewhere on it.
    pub mountpoint: PathBuf,
    /// Bytes that images take of it.
    pub used_bytes: u64,
    /// Inodes that they take of it.
    pub inodes_used: u64,
}

impl Default for SandboxSpec {
    /// What a pod has that says nothing, but for names and places, which are empty.
    fn default() -> Self {
        Self {
            id: String::new(),
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            attempt: 0,
            netns: None,
            hostname: String::new(),
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            cgroup: String::new(),
            resources: Resources::default(),
            privileged: false,
            sysctls: BTreeMap::new(),
            log_directory: PathBuf::new(),
            handler: String::new(),
            user_namespace: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// Names a container: its sandbox and its own id (64 hex digits, chosen by the agent).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId {
    /// The sandbox's id.
    pub sandbox: String,
    /// The container's id.
    pub id: String,
}

/// A container to be. The default is what one has of which its pod says nothing, but for names and places, which are empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Its name from now on.
    pub id: ContainerId,
    /// `spec.containers[].name`.
    pub name: String,
    /// How many containers of this name the pod had before.
    pub attempt: u32,
    /// Digest of a local image (`Image::id`).
    pub image: String,
    /// As the pod spec says it; replaces the image's entry point.
    pub command: Vec<String>,
    /// As the pod spec says it; replaces the image's command.
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// Over the image's.
    pub env: Vec<(String, String)>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Files of local images, read-only.
    #[serde(default)]
    pub image_mounts: Vec<ImageMount>,
    /// Joins the pid namespace of this container of the sandbox (its id), which must run.
    #[serde(default)]
    pub pid_target: Option<String>,
    /// Host devices to add.
    pub devices: Vec<Device>,
    /// Devices that the node describes (CDI): `vendor.example/class=name`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    /// Limits of the container's cgroup.
    pub resources: Resources,
    /// Who it runs as and what it may.
    pub security: Security,
    /// Log file, relative to the sandbox's log directory: `web/0.log`.
    pub log_path: PathBuf,
    /// Keeps stdin open.
    pub stdin: bool,
    /// Closes stdin after the first attach.
    pub stdin_once: bool,
    /// With a terminal.
    pub tty: bool,
    /// What asks it to end; `None` is SIGTERM, or what another runtime finds in the image.
    pub stop_signal: Option<i32>,
    /// Kept and given back, never read.
    pub labels: BTreeMap<String, String>,
    /// Kept and given back, never read.
    pub annotations: BTreeMap<String, String>,
}

/// A bind mount or a tmpfs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the node. Volumes are made by the agent before.
    pub source: PathBuf,
    /// Path in the container.
    pub destination: PathBuf,
    /// Not writable.
    pub read_only: bool,
    /// And no mount below is.
    pub recursive_read_only: bool,
    /// `private`, `rslave` (HostToContainer) or `rshared` (Bidirectional).
    pub propagation: String,
}

/// The files of a local image, for a container to read and not to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Digest of the image (`Image::id`).
    pub image: String,
    /// A path in it; empty is all of it.
    pub sub_path: String,
    /// Path in the container.
    pub destination: PathBuf,
}

/// A device node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// On the node.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// Of `rwm`.
    pub permissions: String,
    /// What it is, where nothing on the node says it.
    #[serde(default)]
    pub numbers: Option<DeviceNumbers>,
}

/// What a device node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumbers {
    /// `c` or `b`.
    pub kind: char,
    /// Of the driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
    /// Who may open it, as of files.
    pub mode: u32,
}

/// Limits; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Weight from requests: 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<i64>,
    /// Processes.
    pub pids_limit: Option<i64>,
    /// Clamped where the process may not lower it.
    pub oom_score_adj: Option<i32>,
    /// Page size (`2MB`) to bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Further files of cgroup v2 and what is written to them; nothing on v1.
    pub unified: BTreeMap<String, String>,
}

/// Who a container runs as and what it may.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `None`: the image's `User`, by number or by name from its /etc/passwd.
    pub run_as_user: Option<i64>,
    /// `None`: the image's.
    pub run_as_group: Option<i64>,
    /// Refuse uid 0 (checked after the image's user is known).
    pub run_as_non_root: bool,
    /// Beside the image's groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's /etc/group adds groups (policy `Merge`).
    pub merge_image_groups: bool,
    /// All capabilities, all devices, no masks, no seccomp.
    pub privileged: bool,
    /// Over the default set; `ALL` is all.
    pub add_capabilities: Vec<String>,
    /// From the default set; `ALL` is all.
    pub drop_capabilities: Vec<String>,
    /// Root file system.
    pub read_only_root: bool,
    /// Sets no_new_privs when false.
    pub allow_privilege_escalation: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// AppArmor profile; `None`: the runtime's default one, where the node has AppArmor.
    pub apparmor: Option<AppArmor>,
    /// /proc without masks.
    pub proc_unmasked: bool,
}

impl Default for Security {
    /// What a container has of which its pod says nothing: the image's user, no more capabilities than the usual ones, the default filter.
    fn default() -> Self {
        Self {
            run_as_user: None,
            run_as_group: None,
            run_as_non_root: false,
            supplemental_groups: Vec::new(),
            merge_image_groups: true,
            privileged: false,
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            read_only_root: false,
            allow_privilege_escalation: true,
            seccomp: Seccomp::RuntimeDefault,
            apparmor: None,
            proc_unmasked: false,
        }
    }
}

/// Which system calls a container may make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The runtime's default profile.
    RuntimeDefault,
    /// All.
    Unconfined,
    /// A profile file on the node.
    Localhost(PathBuf),
}

/// Which AppArmor profile confines a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// The runtime's default profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One that is loaded on the node, by its name.
    Localhost(String),
}

/// A sandbox and what is in it.
#[derive(Clone, Debug)]
pub struct SandboxStatus {
    /// As it was created.
    pub spec: SandboxSpec,
    /// Whether its shim lives. A dead one is removed and made anew.
    pub ready: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// All its containers, also exited ones that are not removed yet.
    pub containers: Vec<ContainerStatus>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running since.
    Running {
        /// When the entry point was executed.
        started_at: Timestamp,
    },
    /// Over.
    Exited {
        /// `None`: it was never started.
        started_at: Option<Timestamp>,
        /// When.
        finished_at: Timestamp,
        /// 128 + signal when killed by one.
        exit_code: i32,
        /// The signal.
        signal: Option<i32>,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
        reason: String,
        /// Why, when the runtime knows more.
        message: String,
    },
}

/// A container now.
#[derive(Clone, Debug)]
pub struct ContainerStatus {
    /// As it was created.
    pub spec: ContainerSpec,
    /// The image's digest (`imageID` of the pod's status).
    pub image_id: String,
    /// Its init, while it runs, on the node.
    pub pid: Option<u32>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it is.
    pub state: ContainerState,
    /// Who it runs as: uid, gid, groups; `None` when the runtime does not say.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum RuntimeEvent {
    /// The container's init exited; `PodRuntime::container` tells how.
    Exited(ContainerId),
    /// The shim is gone; its containers' fate is `ContainerStatusUnknown`.
    SandboxLost(String),
    /// The set of local images is another one.
    ImagesChanged,
    /// Events were lost: look at everything.
    Resync,
}

/// End of an `exec_sync`.
#[derive(Clone, Debug, Default)]
pub struct ExecResult {
    /// 128 + signal when killed.
    pub exit_code: i32,
    /// First 16 KiB.
    pub stdout: Vec<u8>,
    /// First 16 KiB.
    pub stderr: Vec<u8>,
    /// Killed for taking too long.
    pub timed_out: bool,
}

/// A command with streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Executable and arguments.
    pub command: Vec<String>,
    /// Give it a stdin.
    pub stdin: bool,
    /// Take its stdout.
    pub stdout: bool,
    /// Take its stderr (never with a terminal).
    pub stderr: bool,
    /// With a terminal.
    pub tty: bool,
}

/// The streams of a container that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Write to its stdin.
    pub stdin: bool,
    /// Take its stdout.
    pub stdout: bool,
    /// Take its stderr.
    pub stderr: bool,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Live streams of an exec or attach. Dropping them ends the exec.
pub struct Streams {
    /// Drop to close stdin.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends at end of file.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Ends at end of file.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes new sizes of the terminal.
    pub resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
    /// The exit code, once (exec; for attach, the container's).
    pub exit: tokio::sync::oneshot::Receiver<i32>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).field("stdout", &self.stdout.is_some()).finish_non_exhaustive()
    }
}

/// Use of resources as cgroups know it, beyond what every runtime does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupDetail {
    /// Nanoseconds of CPU outside the kernel.
    pub cpu_user_nanoseconds: u64,
    /// Nanoseconds of CPU in the kernel.
    pub cpu_system_nanoseconds: u64,
    /// Bytes that are swapped out.
    pub memory_swap: u64,
    /// How often its memory was at its limit.
    pub memory_failures: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// Use of resources now.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerStats {
    /// Nanoseconds of CPU since start.
    pub cpu_nanoseconds: u64,
    /// Periods of its CPU limit in which it ran.
    pub cpu_periods: u64,
    /// Those of them in which it had to wait.
    pub cpu_throttled_periods: u64,
    /// Nanoseconds that it waited.
    pub cpu_throttled_nanoseconds: u64,
    /// Bytes, with caches that are in use.
    pub memory_working_set: u64,
    /// Bytes, all.
    pub memory_usage: u64,
    /// Bytes, anonymous.
    pub memory_rss: u64,
    /// Processes.
    pub pids: u64,
    /// Bytes written to the writable layer.
    pub rootfs_bytes: u64,
    /// Files and directories of it.
    pub rootfs_inodes: u64,
    /// What only cgroups tell: another runtime keeps it to itself.
    pub detail: Option<CgroupDetail>,
}

/// A local image.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:...` of its configuration.
    pub id: String,
    /// `name:tag` names.
    pub tags: Vec<String>,
    /// `name@sha256:...` names.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// `User` of its configuration.
    pub user: String,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `Env`.
    pub env: Vec<(String, String)>,
    /// `StopSignal`, by name or number; empty when it has none, or another runtime keeps it to itself.
    pub stop_signal: String,
}

/// What opens a registry.
#[derive(Clone)]
pub struct Credentials {
    /// Basic authentication.
    pub username: String,
    /// Basic authentication.
    pub password: String,
    /// Bearer instead of basic, when set.
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why a runtime did not do as asked; the variant says what the pod's status shows.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// no {0} of this id
    #[error("no {0} of this id")]
    NotFound(&'static str),
    /// the pod or its image asks for something impossible (`CreateContainerConfigError`, `CreateContainerError`)
    #[error("{0}")]
    Invalid(String),
    /// the container could not be started (`RunContainerError`, `StartError`, exit code 128): no such executable and the like
    #[error("{0}")]
    Start(String),
    /// {what}
    #[error("{what}")]
    System {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// not a valid image name: {0} (`InvalidImageName`)
    #[error("not a valid image name: {0}")]
    InvalidName(String),
    /// the registry knows no such image, or refuses it (`ErrImagePull`)
    #[error("{0}")]
    Refused(String),
    /// the registry does not answer (`RegistryUnavailable`)
    #[error("{0}")]
    Unavailable(String),
    /// what came is not what its digest says
    #[error("{0}")]
    Corrupt(String),
    /// {what}
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
