//! The calls of CRI v1 that this client makes, with their deadlines, and how their failures read.

use std::{io, path::PathBuf, time::Duration};

use prost::Message;

use super::api::{
    Done, Empty,
    container::{
        ContainerEvent, ContainerFilter, ContainerId, ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest,
        ListContainersRequest, ListContainersResponse, StopContainerRequest, UpdateContainerResourcesRequest,
    },
    image::{
        Image, ImageFsInfoResponse, ImageRequest, ImageSpec, ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest,
        PullImageResponse,
    },
    node::{RuntimeConfigResponse, StatusRequest, StatusResponse, VersionRequest, VersionResponse},
    sandbox::{ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxFilter, PodSandboxId, RunPodSandboxRequest},
    stats::{ContainerStats, ContainerStatsResponse},
    stream::{AttachRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse, StreamUrl},
};
use crate::{
    RuntimeError,
    grpc::{Channel, Code, Status, Streaming},
};

/// How long a call may take: upstream's `--runtime-request-timeout`.
const CALL: Duration = Duration::from_secs(120);
/// A sandbox may need its image first.
const SANDBOX: Duration = Duration::from_secs(240);
/// What a command may take beyond its own limit until its end is told.
const SLACK: Duration = Duration::from_secs(10);

/// Why an endpoint is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint of a container runtime: unix:///path/of/its.sock is one")]
pub struct EndpointError(String);

/// The socket of an endpoint: `unix:///run/containerd/containerd.sock`, or its path alone.
pub fn socket(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') && path.len() > 1 { Ok(path.into()) } else { Err(EndpointError(endpoint.to_owned())) }
}

/// A runtime at its socket.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { channel: Channel::new(socket) }
    }

    async fn ask<Q: Message + 'static, A: Message + Default + 'static>(&self, method: &'static str, message: Q) -> Result<A, Status> {
        self.channel.unary(method, message, Some(CALL)).await
    }

    pub(super) async fn version(&self) -> Result<VersionResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/Version", VersionRequest { version: "v1".to_owned() }).await
    }

    pub(super) async fn conditions(&self) -> Result<StatusResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/Status", StatusRequest { verbose: false }).await
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/Status", StatusRequest { verbose: true }).await
    }

    /// `None` when the runtime is too old to say.
    pub(super) async fn runtime_config(&self) -> Result<Option<RuntimeConfigResponse>, Status> {
        match self.ask("/runtime.v1.RuntimeService/RuntimeConfig", Empty {}).await {
            Ok(config) => Ok(Some(config)),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub(super) async fn run_sandbox(&self, request: RunPodSandboxRequest) -> Result<String, Status> {
        let made: PodSandboxId = self.channel.unary("/runtime.v1.RuntimeService/RunPodSandbox", request, Some(SANDBOX)).await?;
        Ok(made.pod_sandbox_id)
    }

    /// Stops and removes; one that is gone is no error.
    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let request = || PodSandboxId { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.ask("/runtime.v1.RuntimeService/StopPodSandbox", request()).await)?;
        gone_is_fine(self.ask("/runtime.v1.RuntimeService/RemovePodSandbox", request()).await)
    }

    pub(super) async fn sandboxes(&self, filter: PodSandboxFilter) -> Result<ListPodSandboxResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListPodSandbox", ListPodSandboxRequest { filter: Some(filter) }).await
    }

    pub(super) async fn containers(&self, filter: ContainerFilter) -> Result<ListContainersResponse, Status> {
        self.ask("/runtime.v1.RuntimeService/ListContainers", ListContainersRequest { filter: Some(filter) }).await
    }

    pub(super) async fn create(&self, request: CreateContainerRequest) -> Result<String, Status> {
        let made: ContainerId = self.ask("/runtime.v1.RuntimeService/CreateContainer", request).await?;
        Ok(made.container_id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Status> {
        self.ask("/runtime.v1.RuntimeService/StartContainer", named(id)).await.map(|Done {}| ())
    }

    /// Returns when it has ended. Its own grace is the deadline, so there is none here.
    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX) };
        let deadline = grace.is_zero().then_some(CALL);
        gone_is_fine(self.channel.unary("/runtime.v1.RuntimeService/StopContainer", request, deadline).await)
    }

    /// One that is gone is no error; one that runs is killed.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        gone_is_fine(self.ask("/runtime.v1.RuntimeService/RemoveContainer", named(id)).await)
    }

    pub(super) async fn container(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse, Status> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose };
        self.ask("/runtime.v1.RuntimeService/ContainerStatus", request).await
    }

    pub(super) async fn update(&self, request: UpdateContainerResourcesRequest) -> Result<(), Status> {
        self.ask("/runtime.v1.RuntimeService/UpdateContainerResources", request).await.map(|Done {}| ())
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        self.ask("/runtime.v1.RuntimeService/ReopenContainerLog", named(id)).await.map(|Done {}| ())
    }

    pub(super) async fn exec_sync(&self, id: &str, command: &[String], limit: Option<Duration>) -> Result<ExecSyncResponse, Status> {
        // Whole seconds, and never the zero that would be no limit.
        let seconds = limit.map_or(0, |limit| limit.as_secs() + u64::from(limit.subsec_nanos() > 0)).max(u64::from(limit.is_some()));
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout };
        self.channel.unary("/runtime.v1.RuntimeService/ExecSync", request, limit.map(|limit| limit.saturating_add(SLACK))).await
    }

    pub(super) async fn exec(&self, request: ExecRequest) -> Result<StreamUrl, Status> {
        self.ask("/runtime.v1.RuntimeService/Exec", request).await
    }

    pub(super) async fn attach(&self, request: AttachRequest) -> Result<StreamUrl, Status> {
        self.ask("/runtime.v1.RuntimeService/Attach", request).await
    }

    pub(super) async fn stats(&self, id: &str) -> Result<ContainerStats, Status> {
        let answer: ContainerStatsResponse = self.ask("/runtime.v1.RuntimeService/ContainerStats", named(id)).await?;
        answer.stats.ok_or_else(|| Status::not_found("the container has no figures"))
    }

    pub(super) async fn events(&self) -> Result<Streaming<ContainerEvent>, Status> {
        self.channel.streaming("/runtime.v1.RuntimeService/GetContainerEvents", Empty {}).await
    }

    pub(super) async fn images(&self) -> Result<Vec<Image>, Status> {
        let answer: ListImagesResponse = self.ask("/runtime.v1.ImageService/ListImages", ListImagesRequest {}).await?;
        Ok(answer.images)
    }

    pub(super) async fn image(&self, name: &str) -> Result<Option<Image>, Status> {
        let answer: ImageStatusResponse = self.ask("/runtime.v1.ImageService/ImageStatus", image(name)).await?;
        Ok(answer.image)
    }

    pub(super) async fn image_filesystems(&self) -> Result<ImageFsInfoResponse, Status> {
        self.ask("/runtime.v1.ImageService/ImageFsInfo", Empty {}).await
    }

    /// Without a deadline: the caller ends it by dropping the call.
    pub(super) async fn pull(&self, request: PullImageRequest) -> Result<String, Status> {
        let answer: PullImageResponse = self.channel.unary("/runtime.v1.ImageService/PullImage", request, None).await?;
        Ok(answer.image_ref)
    }

    pub(super) async fn remove_image(&self, name: &str) -> Result<(), Status> {
        gone_is_fine(self.ask("/runtime.v1.ImageService/RemoveImage", image(name)).await)
    }
}

fn named(id: &str) -> ContainerId {
    ContainerId { container_id: id.to_owned() }
}

fn image(name: &str) -> ImageRequest {
    ImageRequest { image: Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() }) }
}

fn gone_is_fine(answer: Result<Done, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// A failed call as the agent tells of it.
pub(super) fn failed(what: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| match status.code() {
        Code::NotFound => RuntimeError::NotFound("container"),
        _ => RuntimeError::System { what: what.to_owned(), source: io::Error::other(status.message().to_owned()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        for (endpoint, path) in [("unix:///run/c.sock", Some("/run/c.sock")), ("/run/c.sock", Some("/run/c.sock"))] {
            assert_eq!(socket(endpoint).ok(), path.map(PathBuf::from), "{endpoint}");
        }
        for endpoint in ["", "unix://", "unix:///", "tcp://127.0.0.1:1", "unix://run/c.sock", "c.sock"] {
            assert_eq!(socket(endpoint), Err(EndpointError(endpoint.to_owned())), "{endpoint}");
        }
    }
}
