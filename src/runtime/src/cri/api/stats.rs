//! Use of resources.

use super::UInt64Value;

/// Of one container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatsResponse {
    /// It.
    #[prost(message, optional, tag = "1")]
    pub stats: Option<ContainerStats>,
}

/// Of one container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStats {
    /// Of processors.
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<CpuUsage>,
    /// Of memory.
    #[prost(message, optional, tag = "3")]
    pub memory: Option<MemoryUsage>,
    /// Of what it has written.
    #[prost(message, optional, tag = "4")]
    pub writable_layer: Option<FilesystemUsage>,
}

/// Of processors.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CpuUsage {
    /// Since its start.
    #[prost(message, optional, tag = "2")]
    pub usage_core_nano_seconds: Option<UInt64Value>,
}

/// Of memory.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct MemoryUsage {
    /// In use.
    #[prost(message, optional, tag = "2")]
    pub working_set_bytes: Option<UInt64Value>,
    /// All.
    #[prost(message, optional, tag = "4")]
    pub usage_bytes: Option<UInt64Value>,
    /// Anonymous.
    #[prost(message, optional, tag = "5")]
    pub rss_bytes: Option<UInt64Value>,
}

/// Of a file system.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilesystemUsage {
    /// Which.
    #[prost(message, optional, tag = "2")]
    pub fs_id: Option<FilesystemIdentifier>,
    /// Bytes.
    #[prost(message, optional, tag = "3")]
    pub used_bytes: Option<UInt64Value>,
    /// Inodes.
    #[prost(message, optional, tag = "4")]
    pub inodes_used: Option<UInt64Value>,
}

/// Names a file system.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilesystemIdentifier {
    /// A directory on it.
    #[prost(string, tag = "1")]
    pub mountpoint: String,
}
