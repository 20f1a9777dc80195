//! Images and containers: content store, overlay, a shim per pod that makes its containers.
//!
//! [`PodRuntime`] is what the node agent needs of a runtime. The embedded one is `runtime::embedded`; `runtime::cri` is
//! whatever serves CRI v1 at a socket.

pub mod apparmor;
mod causes;
mod cdi;
mod cgroup;
pub mod cri;
mod dispatch;
pub mod embedded;
pub mod group;
pub mod grpc;
pub mod handlers;
pub mod images;
mod masks;
pub mod plugin;
mod process;
mod shim;
pub mod spdy;
pub mod types;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use causes::causes;
pub use dispatch::dispatch;
pub use types::*;

/// Names of containers where the runtime gives them ids of its own, by which its tools and the API know them.
pub trait Naming: Send + Sync {
    /// What the API shows for a container of ours: `containerd://<id>`.
    fn shown(&self, id: &str) -> String;
    /// Our id of a container that the API shows so, or the runtime's when it has none of it; `None` for another runtime's.
    fn known(&self, shown: &str) -> Option<String>;
}

/// Runs pod sandboxes and containers. Every call is idempotent, everything survives a restart of the caller (a shim per pod owns the processes).
#[async_trait]
pub trait PodRuntime: Send + Sync + fmt::Debug + 'static {
    /// Name and version, for `nodeInfo.containerRuntimeVersion`: `coracle://0.1.0`.
    fn version(&self) -> String;
    /// Set when the API shows other ids than the agent's own, which are shown as `coracle://<id>`.
    fn naming(&self) -> Option<&dyn Naming> {
        None
    }
    /// Why it can run no pods now, though it answers: the node is not ready, and says so.
    async fn trouble(&self) -> Result<Option<String>, RuntimeError> {
        Ok(None)
    }
    /// The runtimes that a sandbox may name, the default first; none where the runtime does not say, and then any may be tried.
    fn handlers(&self) -> Vec<Handler> {
        vec![Handler::default()]
    }

    /// Starts the pod's shim, with the namespaces that its containers share. Known ids are returned as they are.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError>;
    /// Changes the limits of the pod as a whole.
    async fn update_sandbox(&self, sandbox: &str, resources: &Resources) -> Result<(), RuntimeError>;
    /// Kills what still runs in it, ends the shim, removes mounts, cgroup and state. An unknown id is no error.
    async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError>;
    /// All sandboxes with all their containers: how a restarted agent learns what is there.
    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// Unpacks the root file system, writes the OCI bundle, creates the container's init (stopped before exec of the entry point).
    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError>;
    /// Lets a created container run.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Sends a signal to the container's init.
    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError>;
    /// Removes a container that has exited (killing it first if need be): its root file system, cgroup, state; not its log.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// The container now.
    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;
    /// Changes limits of a running container.
    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError>;
    /// Makes the shim close the log file and open it anew by name (rotation).
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Runs a command to its end (exec probes, hooks); killed after `timeout`. Output beyond 16 KiB is cut.
    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, RuntimeError>;
    /// Runs a command with streams.
    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Streams, RuntimeError>;
    /// Joins the streams of the container's own init.
    async fn attach(&self, id: &ContainerId, request: &AttachRequest) -> Result<Streams, RuntimeError>;

    /// What happens from now on, by pidfd: never polled. Ends only with the runtime.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
    /// Memory and CPU now.
    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError>;
    /// The same of a whole sandbox, with all that ran in it before; `None` of a runtime that does not say.
    async fn sandbox_stats(&self, _sandbox: &str) -> Result<Option<ContainerStats>, RuntimeError> {
        Ok(None)
    }

    /// A local image by name (normalised: `busybox` is `docker.io/library/busybox:latest`), digest or id.
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    /// Pulls, verifies and unpacks; concurrent pulls of one image are one.
    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<Image, PullError>;
    /// All local images.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Where images are, of a runtime that does not keep them in the node's data directory.
    async fn image_filesystem(&self) -> Result<Option<ImageFilesystem>, RuntimeError> {
        Ok(None)
    }
    /// Removes an image that no container uses.
    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError>;
}
