//! A container runtime whose operations are counted and timed, under the names that upstream's kubelet has for CRI's.

use std::{sync::Arc, time::Duration, time::Instant};

use async_trait::async_trait;
use coracle_runtime::{
    AttachRequest, ContainerId, ContainerSpec, ContainerStats, ContainerStatus, Credentials, ExecRequest, ExecResult, Handler, Image,
    ImageFilesystem, Naming, PodRuntime, PullError, Resources, RuntimeError, RuntimeEvent, SandboxSpec, SandboxStatus, Streams,
};
use futures::stream::BoxStream;

use super::meters::{IMAGE_PULL, Meters, OPERATION_DURATION, OPERATION_ERRORS, OPERATIONS, SANDBOX_DURATION, SANDBOX_ERRORS, image_size};

/// The runtime, and where its operations are counted.
#[derive(Debug)]
pub struct Measured {
    /// What does it.
    pub runtime: Arc<dyn PodRuntime>,
    /// Who counts.
    pub meters: Arc<Meters>,
}

impl Measured {
    fn told<T, E>(&self, operation: &str, since: Instant, result: Result<T, E>) -> Result<T, E> {
        self.meters.count(&OPERATIONS, &[operation]);
        self.meters.took(&OPERATION_DURATION, &[operation], since);
        if result.is_err() {
            self.meters.count(&OPERATION_ERRORS, &[operation]);
        }
        result
    }
}

#[async_trait]
impl PodRuntime for Measured {
    fn version(&self) -> String {
        self.runtime.version()
    }

    fn naming(&self) -> Option<&dyn Naming> {
        self.runtime.naming()
    }

    async fn trouble(&self) -> Result<Option<String>, RuntimeError> {
        let since = Instant::now();
        self.told("status", since, self.runtime.trouble().await)
    }

    fn handlers(&self) -> Vec<Handler> {
        self.runtime.handlers()
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<(), RuntimeError> {
        let since = Instant::now();
        let handler = spec.handler.as_str();
        let result = self.runtime.create_sandbox(spec).await;
        self.meters.took(&SANDBOX_DURATION, &[handler], since);
        if result.is_err() {
            self.meters.count(&SANDBOX_ERRORS, &[handler]);
        }
        self.told("run_podsandbox", since, result)
    }

    async fn update_sandbox(&self, sandbox: &str, resources: &Resources) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("update_podsandbox_resources", since, self.runtime.update_sandbox(sandbox, resources).await)
    }

    async fn remove_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("remove_podsandbox", since, self.runtime.remove_sandbox(sandbox).await)
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let since = Instant::now();
        self.told("list_podsandbox", since, self.runtime.sandboxes().await)
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("create_container", since, self.runtime.create_container(spec).await)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("start_container", since, self.runtime.start_container(id).await)
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("stop_container", since, self.runtime.signal_container(id, signal).await)
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("remove_container", since, self.runtime.remove_container(id).await)
    }

    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let since = Instant::now();
        self.told("container_status", since, self.runtime.container(id).await)
    }

    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("update_container", since, self.runtime.update_container(id, resources).await)
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("reopen_container_log", since, self.runtime.reopen_log(id).await)
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, RuntimeError> {
        let since = Instant::now();
        self.told("exec_sync", since, self.runtime.exec_sync(id, command, timeout).await)
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Streams, RuntimeError> {
        let since = Instant::now();
        self.told("exec", since, self.runtime.exec(id, request).await)
    }

    async fn attach(&self, id: &ContainerId, request: &AttachRequest) -> Result<Streams, RuntimeError> {
        let since = Instant::now();
        self.told("attach", since, self.runtime.attach(id, request).await)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.runtime.events()
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        let since = Instant::now();
        self.told("container_stats", since, self.runtime.stats(id).await)
    }

    async fn sandbox_stats(&self, sandbox: &str) -> Result<Option<ContainerStats>, RuntimeError> {
        let since = Instant::now();
        self.told("podsandbox_stats", since, self.runtime.sandbox_stats(sandbox).await)
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        let since = Instant::now();
        self.told("image_status", since, self.runtime.image(reference).await)
    }

    async fn pull(&self, reference: &str, credentials: &[Credentials]) -> Result<Image, PullError> {
        let since = Instant::now();
        let result = self.runtime.pull(reference, credentials).await;
        if let Ok(image) = &result {
            self.meters.took(&IMAGE_PULL, &[image_size(image.size)], since);
        }
        self.told("pull_image", since, result)
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let since = Instant::now();
        self.told("list_images", since, self.runtime.images().await)
    }

    async fn image_filesystem(&self) -> Result<Option<ImageFilesystem>, RuntimeError> {
        let since = Instant::now();
        self.told("image_fs_info", since, self.runtime.image_filesystem().await)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        let since = Instant::now();
        self.told("remove_image", since, self.runtime.remove_image(reference).await)
    }
}
