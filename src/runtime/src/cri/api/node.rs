//! What the runtime says of itself.

use std::collections::BTreeMap;

/// Asks for the version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionRequest {
    /// Of the caller's API.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// Who it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    /// `containerd`, `cri-o`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// `1.6.20~ds1`, without a rule.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// `v1`.
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

/// Asks how it is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct StatusRequest {
    /// With what only people read.
    #[prost(bool, tag = "1")]
    pub verbose: bool,
}

/// How it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// Its conditions.
    #[prost(message, optional, tag = "1")]
    pub status: Option<RuntimeStatus>,
    /// What only this one says, as JSON.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
    /// What a sandbox may name as its handler; nothing from older runtimes.
    #[prost(message, repeated, tag = "3")]
    pub runtime_handlers: Vec<RuntimeHandler>,
}

/// A handler.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeHandler {
    /// Empty for the default.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it can do.
    #[prost(message, optional, tag = "2")]
    pub features: Option<RuntimeHandlerFeatures>,
}

/// What a handler can do.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RuntimeHandlerFeatures {
    /// Mounts that are read-only with all below.
    #[prost(bool, tag = "1")]
    pub recursive_read_only_mounts: bool,
    /// Pods with users of their own.
    #[prost(bool, tag = "2")]
    pub user_namespaces: bool,
}

/// Its conditions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeStatus {
    /// `RuntimeReady`, `NetworkReady` and others.
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<RuntimeCondition>,
}

/// One of them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeCondition {
    /// Its name.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Whether it holds.
    #[prost(bool, tag = "2")]
    pub status: bool,
    /// Why not, as a word.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Why not.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// How it is set up, as far as both sides must agree. Runtimes of before 2023 do not answer.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RuntimeConfigResponse {
    /// On Linux.
    #[prost(message, optional, tag = "1")]
    pub linux: Option<LinuxRuntimeConfiguration>,
}

/// On Linux.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct LinuxRuntimeConfiguration {
    /// Who makes cgroups.
    #[prost(enumeration = "CgroupDriver", tag = "1")]
    pub cgroup_driver: i32,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CgroupDriver {
    /// systemd, by slices.
    Systemd = 0,
    /// The runtime, by directories.
    Cgroupfs = 1,
}
