//! The images that a start needs: the container's own, and those that it mounts.

use std::{path::PathBuf, time::Instant};

use coracle_runtime::{Credentials, Image, ImageMount, PullError, RuntimeError};

use super::{Start, Waiting, failed};
use crate::{container::env::Source as _, context::chain, pull_secrets};

/// The local image, pulled if the policy says so.
pub(super) async fn local(start: &Start, name: &str, policy: &str) -> Result<Image, Waiting> {
    let runtime = &start.ctx.runtime;
    let bad_name = |message: String| {
        start.tell(true, "InspectFailed", format!("Failed to apply default image tag {name:?}: {message}"));
        start.tell(true, "Failed", "Error: InvalidImageName".to_owned());
        Waiting { reason: "InvalidImageName", message }
    };
    let local = match runtime.image(name).await {
        Ok(local) => local,
        Err(RuntimeError::Invalid(message)) => return Err(bad_name(message)),
        Err(error) => {
            let message = chain(&error);
            start.tell(true, "InspectFailed", format!("Failed to inspect image {name:?}: {message}"));
            return Err(failed(start, "ImageInspectError", message));
        }
    };
    match (local, policy) {
        (Some(image), "IfNotPresent" | "Never") => {
            start.tell(false, "Pulled", format!("Container image {name:?} already present on machine"));
            return Ok(image);
        }
        (None, "Never") => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            start.tell(true, "ErrImageNeverPull", message.clone());
            start.tell(true, "Failed", "Error: ErrImageNeverPull".to_owned());
            return Err(Waiting { reason: "ErrImageNeverPull", message });
        }
        _ => {}
    }
    let credentials = credentials(start, name).await;
    start.tell(false, "Pulling", format!("Pulling image {name:?}"));
    let began = Instant::now();
    let pulled = tokio::select! {
        pulled = runtime.pull(name, &credentials) => pulled,
        () = start.cancel.cancelled() => return Err(Waiting { reason: "ContainerCreating", message: "the pod ends".to_owned() }),
    };
    match pulled {
        Ok(image) => {
            let (millis, bytes) = (began.elapsed().as_millis(), image.size);
            start.tell(false, "Pulled", format!("Successfully pulled image {name:?} in {millis}ms. Image size: {bytes} bytes."));
            Ok(image)
        }
        Err(PullError::InvalidName(message)) => Err(bad_name(message)),
        Err(error) => {
            let message = chain(&error);
            start.tell(true, "Failed", format!("Failed to pull image {name:?}: {message}"));
            start.tell(true, "Failed", "Error: ErrImagePull".to_owned());
            Err(Waiting { reason: "ErrImagePull", message })
        }
    }
}

async fn credentials(start: &Start, image: &str) -> Vec<Credentials> {
    let Ok(snapshot) = start.used.snapshot().await else { return Vec::new() };
    let names = start.pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
    let secrets = names.filter_map(|r| snapshot.secret(&r.name));
    secrets.flat_map(|data| pull_secrets::credentials(&data, image)).collect()
}

/// The image volumes that the container mounts, each with its image here.
pub(super) async fn volumes(start: &Start) -> Result<Vec<ImageMount>, Waiting> {
    let mut out = Vec::new();
    let volumes = start.pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    for mount in start.part.spec.volume_mounts.iter().flatten() {
        let Some(source) = volumes.iter().find(|v| v.name == mount.name).and_then(|v| v.image.as_ref()) else { continue };
        let (name, policy) = (source.reference.as_deref().unwrap_or_default(), source.pull_policy.as_deref().unwrap_or("IfNotPresent"));
        let image = local(start, name, policy).await?;
        let sub_path = mount.sub_path.clone().unwrap_or_default();
        out.push(ImageMount { image: image.id, sub_path, destination: PathBuf::from(&mount.mount_path) });
    }
    Ok(out)
}
