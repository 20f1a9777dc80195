//! Commands in containers, and their streams.

/// Runs a command to its end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecSyncRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Executable and arguments.
    #[prost(string, repeated, tag = "2")]
    pub cmd: Vec<String>,
    /// Seconds; zero is no limit.
    #[prost(int64, tag = "3")]
    pub timeout: i64,
}

/// How it ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecSyncResponse {
    /// Output.
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    /// Output.
    #[prost(bytes = "vec", tag = "2")]
    pub stderr: Vec<u8>,
    /// Code.
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}

/// Prepares a command with streams.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Executable and arguments.
    #[prost(string, repeated, tag = "2")]
    pub cmd: Vec<String>,
    /// With a terminal.
    #[prost(bool, tag = "3")]
    pub tty: bool,
    /// Give it one.
    #[prost(bool, tag = "4")]
    pub stdin: bool,
    /// Take it.
    #[prost(bool, tag = "5")]
    pub stdout: bool,
    /// Take it.
    #[prost(bool, tag = "6")]
    pub stderr: bool,
}

/// Prepares to join a container's own streams.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttachRequest {
    /// The runtime's id.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Write to it.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    /// It has a terminal.
    #[prost(bool, tag = "3")]
    pub tty: bool,
    /// Take it.
    #[prost(bool, tag = "4")]
    pub stdout: bool,
    /// Take it.
    #[prost(bool, tag = "5")]
    pub stderr: bool,
}

/// Where the streams are to be had, once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamUrl {
    /// Of the runtime's streaming server.
    #[prost(string, tag = "1")]
    pub url: String,
}
