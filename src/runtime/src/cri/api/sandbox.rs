//! Pod sandboxes.

use std::collections::BTreeMap;

use super::{Int64Value, container::Resources};

/// Which namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// The pod's.
    Pod = 0,
    /// The container's own (pid only).
    Container = 1,
    /// The node's.
    Node = 2,
    /// Another container's (pid only).
    Target = 3,
}

/// The namespaces of a sandbox or container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceOption {
    /// Network.
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
    /// Processes.
    #[prost(enumeration = "NamespaceMode", tag = "2")]
    pub pid: i32,
    /// Shared memory.
    #[prost(enumeration = "NamespaceMode", tag = "3")]
    pub ipc: i32,
    /// The container whose processes are joined.
    #[prost(string, tag = "4")]
    pub target_id: String,
}

/// A system call filter or AppArmor profile.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecurityProfile {
    /// Which kind.
    #[prost(enumeration = "ProfileType", tag = "1")]
    pub profile_type: i32,
    /// The file of a `Localhost` one.
    #[prost(string, tag = "2")]
    pub localhost_ref: String,
}

/// Which profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ProfileType {
    /// The runtime's own.
    RuntimeDefault = 0,
    /// None.
    Unconfined = 1,
    /// A file of the node.
    Localhost = 2,
}

/// Names a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    /// Of the pod.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Of the pod.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Of the pod.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How many the pod had before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// Who the sandbox's own process is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxSandboxSecurityContext {
    /// Shared by its containers.
    #[prost(message, optional, tag = "1")]
    pub namespace_options: Option<NamespaceOption>,
    /// Its user.
    #[prost(message, optional, tag = "3")]
    pub run_as_user: Option<Int64Value>,
    /// Whether privileged containers may come.
    #[prost(bool, tag = "6")]
    pub privileged: bool,
    /// Its filter.
    #[prost(message, optional, tag = "9")]
    pub seccomp: Option<SecurityProfile>,
}

/// A sandbox on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandboxConfig {
    /// The pod's cgroup.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// Security.
    #[prost(message, optional, tag = "2")]
    pub security_context: Option<LinuxSandboxSecurityContext>,
    /// Kernel parameters.
    #[prost(btree_map = "string, string", tag = "3")]
    pub sysctls: BTreeMap<String, String>,
    /// Limits of all its containers together.
    #[prost(message, optional, tag = "5")]
    pub resources: Option<Resources>,
}

/// A sandbox to be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxConfig {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// UTS host name.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// Where logs of its containers go.
    #[prost(string, tag = "3")]
    pub log_directory: String,
    /// Found again by.
    #[prost(btree_map = "string, string", tag = "6")]
    pub labels: BTreeMap<String, String>,
    /// Given back.
    #[prost(btree_map = "string, string", tag = "7")]
    pub annotations: BTreeMap<String, String>,
    /// On Linux.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

/// Makes a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunPodSandboxRequest {
    /// What it is.
    #[prost(message, optional, tag = "1")]
    pub config: Option<PodSandboxConfig>,
    /// Which of the runtime's handlers; empty is its default.
    #[prost(string, tag = "2")]
    pub runtime_handler: String,
}

/// Names a sandbox: in requests to stop, remove, and in the answer to a creation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxId {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// Stands.
    Ready = 0,
    /// Is stopped.
    NotReady = 1,
}

/// Which sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxFilter {
    /// Only this one.
    #[prost(string, tag = "1")]
    pub id: String,
    /// With all of these labels.
    #[prost(btree_map = "string, string", tag = "3")]
    pub label_selector: BTreeMap<String, String>,
}

/// Asks for sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub filter: Option<PodSandboxFilter>,
}

/// A sandbox that is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whether it stands.
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    /// As it was created with.
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
}

/// Sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// All of them.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}
