//! Containers.

use std::collections::BTreeMap;

use super::{
    Int64Value,
    image::ImageSpec,
    sandbox::{NamespaceOption, PodSandboxConfig, SecurityProfile},
};

/// Limits; zero is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resources {
    /// Microseconds.
    #[prost(int64, tag = "1")]
    pub cpu_period: i64,
    /// Microseconds of a period.
    #[prost(int64, tag = "2")]
    pub cpu_quota: i64,
    /// Weight.
    #[prost(int64, tag = "3")]
    pub cpu_shares: i64,
    /// Bytes.
    #[prost(int64, tag = "4")]
    pub memory_limit_in_bytes: i64,
    /// Who is killed first.
    #[prost(int64, tag = "5")]
    pub oom_score_adj: i64,
    /// By page size.
    #[prost(message, repeated, tag = "8")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Further files of cgroup v2.
    #[prost(btree_map = "string, string", tag = "9")]
    pub unified: BTreeMap<String, String>,
}

/// Of one page size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HugepageLimit {
    /// `2MB`.
    #[prost(string, tag = "1")]
    pub page_size: String,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub limit: u64,
}

/// What of the node is seen in a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mount {
    /// Where in it.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// Where on the node.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Not writable.
    #[prost(bool, tag = "3")]
    pub readonly: bool,
    /// Whether mounts below are seen.
    #[prost(enumeration = "MountPropagation", tag = "5")]
    pub propagation: i32,
    /// Nor is what lies below.
    #[prost(bool, tag = "8")]
    pub recursive_read_only: bool,
    /// An image instead of a path.
    #[prost(message, optional, tag = "9")]
    pub image: Option<ImageSpec>,
    /// A path in the image.
    #[prost(string, tag = "10")]
    pub image_sub_path: String,
}

/// Whether mounts are seen on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    /// Neither way.
    Private = 0,
    /// Into the container.
    HostToContainer = 1,
    /// Both ways.
    Bidirectional = 2,
}

/// A device node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Device {
    /// In the container.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the node.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Of `rwm`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A device of the container device interface.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CdiDevice {
    /// `vendor.com/class=name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Over and under the default set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Capability {
    /// More.
    #[prost(string, repeated, tag = "1")]
    pub add_capabilities: Vec<String>,
    /// Less.
    #[prost(string, repeated, tag = "2")]
    pub drop_capabilities: Vec<String>,
}

/// Who a container runs as and what it may.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainerSecurityContext {
    /// Its capabilities.
    #[prost(message, optional, tag = "1")]
    pub capabilities: Option<Capability>,
    /// All of them, and all devices.
    #[prost(bool, tag = "2")]
    pub privileged: bool,
    /// Its namespaces.
    #[prost(message, optional, tag = "3")]
    pub namespace_options: Option<NamespaceOption>,
    /// By number.
    #[prost(message, optional, tag = "5")]
    pub run_as_user: Option<Int64Value>,
    /// By number; needs a user.
    #[prost(message, optional, tag = "12")]
    pub run_as_group: Option<Int64Value>,
    /// By name.
    #[prost(string, tag = "6")]
    pub run_as_username: String,
    /// No writable layer.
    #[prost(bool, tag = "7")]
    pub readonly_rootfs: bool,
    /// More groups.
    #[prost(int64, repeated, tag = "8")]
    pub supplemental_groups: Vec<i64>,
    /// Whether the image's groups count.
    #[prost(enumeration = "SupplementalGroupsPolicy", tag = "17")]
    pub supplemental_groups_policy: i32,
    /// No way to more rights.
    #[prost(bool, tag = "11")]
    pub no_new_privs: bool,
    /// Not to be seen.
    #[prost(string, repeated, tag = "13")]
    pub masked_paths: Vec<String>,
    /// Not to be written.
    #[prost(string, repeated, tag = "14")]
    pub readonly_paths: Vec<String>,
    /// System call filter.
    #[prost(message, optional, tag = "15")]
    pub seccomp: Option<SecurityProfile>,
    /// AppArmor profile.
    #[prost(message, optional, tag = "16")]
    pub apparmor: Option<SecurityProfile>,
}

/// Whether the image's groups count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SupplementalGroupsPolicy {
    /// They do.
    Merge = 0,
    /// They do not.
    Strict = 1,
}

/// A container on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainerConfig {
    /// Limits.
    #[prost(message, optional, tag = "1")]
    pub resources: Option<Resources>,
    /// Security.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxContainerSecurityContext>,
}

/// Names a container in its pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMetadata {
    /// `spec.containers[].name`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How many before.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// A variable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value: bytes on the wire, as text is.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A container to be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerConfig {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// Instead of the image's entry point.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// Instead of the image's command.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    /// Empty: the image's.
    #[prost(string, tag = "5")]
    pub working_dir: String,
    /// Over the image's.
    #[prost(message, repeated, tag = "6")]
    pub envs: Vec<KeyValue>,
    /// Volumes and files.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    /// Device nodes.
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<Device>,
    /// Found again by.
    #[prost(btree_map = "string, string", tag = "9")]
    pub labels: BTreeMap<String, String>,
    /// Given back.
    #[prost(btree_map = "string, string", tag = "10")]
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's directory.
    #[prost(string, tag = "11")]
    pub log_path: String,
    /// Keeps it open.
    #[prost(bool, tag = "12")]
    pub stdin: bool,
    /// Until the first attach has ended.
    #[prost(bool, tag = "13")]
    pub stdin_once: bool,
    /// With a terminal.
    #[prost(bool, tag = "14")]
    pub tty: bool,
    /// On Linux.
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainerConfig>,
    /// By the container device interface.
    #[prost(message, repeated, tag = "17")]
    pub cdi_devices: Vec<CdiDevice>,
    /// How it is asked to stop: the protocol's own number; zero is the image's way.
    #[prost(int32, tag = "18")]
    pub stop_signal: i32,
}

/// Makes a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainerRequest {
    /// Where.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// What it is.
    #[prost(message, optional, tag = "2")]
    pub config: Option<ContainerConfig>,
    /// What the sandbox is.
    #[prost(message, optional, tag = "3")]
    pub sandbox_config: Option<PodSandboxConfig>,
}

/// Names a container: in requests to start, remove, reopen its log, and in the answer to a creation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerId {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// Asks it to end, and makes it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StopContainerRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Seconds until it is killed; zero is now.
    #[prost(int64, tag = "2")]
    pub timeout: i64,
}

/// Changes limits.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateContainerResourcesRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The new ones.
    #[prost(message, optional, tag = "2")]
    pub linux: Option<Resources>,
}

/// Which containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerFilter {
    /// With all of these labels.
    #[prost(btree_map = "string, string", tag = "4")]
    pub label_selector: BTreeMap<String, String>,
}

/// Asks for containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<ContainerFilter>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Made, not started.
    Created = 0,
    /// Runs.
    Running = 1,
    /// Is over.
    Exited = 2,
    /// Nobody knows.
    Unknown = 3,
}

/// A container that is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Of its sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Where it is.
    #[prost(enumeration = "ContainerState", tag = "6")]
    pub state: i32,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "8")]
    pub labels: BTreeMap<String, String>,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "9")]
    pub annotations: BTreeMap<String, String>,
}

/// Containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersResponse {
    /// All of them.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// Asks how one is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatusRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// With `info`.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// How one is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatusResponse {
    /// What every runtime says.
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    /// What only this one says, as JSON.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
}

/// How one is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatus {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Where it is.
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// Zero: never.
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    /// Zero: not yet.
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    /// Once it has exited.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    /// Name with digest, or the image's id.
    #[prost(string, tag = "9")]
    pub image_ref: String,
    /// `Completed`, `Error`, `OOMKilled`.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// In words.
    #[prost(string, tag = "11")]
    pub message: String,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "12")]
    pub labels: BTreeMap<String, String>,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "13")]
    pub annotations: BTreeMap<String, String>,
    /// Limits now; older runtimes do not say.
    #[prost(message, optional, tag = "16")]
    pub resources: Option<ContainerResources>,
    /// Who it runs as; older runtimes do not say.
    #[prost(message, optional, tag = "18")]
    pub user: Option<ContainerUser>,
}

/// Limits now.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerResources {
    /// On Linux.
    #[prost(message, optional, tag = "1")]
    pub linux: Option<Resources>,
}

/// Who it runs as.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerUser {
    /// On Linux.
    #[prost(message, optional, tag = "1")]
    pub linux: Option<LinuxContainerUser>,
}

/// On Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainerUser {
    /// User.
    #[prost(int64, tag = "1")]
    pub uid: i64,
    /// First group.
    #[prost(int64, tag = "2")]
    pub gid: i64,
    /// Others.
    #[prost(int64, repeated, tag = "3")]
    pub supplemental_groups: Vec<i64>,
}

/// Asks for events as they come.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerEvent {
    /// Of the container, or of the sandbox.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// What happened.
    #[prost(enumeration = "ContainerEventType", tag = "2")]
    pub kind: i32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerEventType {
    /// Made.
    Created = 0,
    /// Runs.
    Started = 1,
    /// Is over.
    Stopped = 2,
    /// Is no more.
    Deleted = 3,
}
