//! The images that a start needs: the container's own, and those that it mounts.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use coracle_runtime::{Image, ImageMount, PullError, RuntimeError};
use jiff::Timestamp;

use super::{Start, Waiting, failed};
use crate::{context::chain, images::keys::Key};

/// The local image, pulled if the policy says so.
pub(super) async fn local(start: &Start, name: &str, policy: &str) -> Result<Image, Waiting> {
    let (runtime, images) = (&start.ctx.runtime, &start.ctx.images);
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
    let mut known = None;
    if let Some(image) = local.filter(|_| matches!(policy, "IfNotPresent" | "Never")) {
        let may = if images.asks(&image, name) {
            let keys = keys(start, name).await;
            let may = images.may(&image, name, &keys);
            known = Some(keys);
            may
        } else {
            true
        };
        if may {
            start.tell(false, "Pulled", format!("Container image {name:?} already present on machine and can be accessed by the pod"));
            return Ok(image);
        }
    }
    // One that is here and that the pod may not use is not here for it.
    if policy == "Never" {
        let message = format!("Container image {name:?} is not present with pull policy of Never");
        start.tell(true, "ErrImageNeverPull", message.clone());
        start.tell(true, "Failed", "Error: ErrImageNeverPull".to_owned());
        return Err(Waiting { reason: "ErrImageNeverPull", message });
    }
    start.tell(false, "Pulling", format!("Pulling image {name:?}"));
    let (began, began_at) = (Instant::now(), Timestamp::now());
    let pull = async {
        let keys = match known {
            Some(keys) => keys,
            None => keys(start, name).await,
        };
        let _turn = images.turn().await;
        let own = Instant::now();
        images.pull(&**runtime, name, &keys).await.map(|image| (image, own.elapsed()))
    };
    let pulled = tokio::select! {
        pulled = pull => pulled,
        () = start.cancel.cancelled() => return Err(Waiting { reason: "ContainerCreating", message: "the pod ends".to_owned() }),
    };
    start.pulls.add(began_at, Timestamp::now());
    match pulled {
        Ok((image, own)) => {
            let (own, all, bytes) = (shown(own), shown(began.elapsed()), image.size);
            let text = format!("Successfully pulled image {name:?} in {own} ({all} including waiting). Image size: {bytes} bytes.");
            start.tell(false, "Pulled", text);
            Ok(image)
        }
        Err(PullError::InvalidName(message)) => Err(bad_name(message)),
        Err(error) => {
            let message = chain(&error);
            start.tell(true, "Failed", format!("Failed to pull image {name:?}: {message}"));
            let (reason, message) = told(name, message);
            start.tell(true, "Failed", format!("Error: {reason}"));
            Err(Waiting { reason, message })
        }
    }
}

/// The reason of a pull that failed, and its message: a runtime beside may name one of two that clients know by what its message begins with.
fn told(name: &str, message: String) -> (&'static str, String) {
    const NAMED: [(&str, &str); 2] =
        [("RegistryUnavailable", "the registry is unavailable"), ("SignatureValidationFailed", "the signature validation failed")];
    let named = NAMED.into_iter().find_map(|(reason, words)| Some((reason, words, message.strip_prefix(reason)?)));
    match named {
        Some((reason, words, rest)) => (reason, format!("image pull failed for {name} because {words}{rest}")),
        None => ("ErrImagePull", message),
    }
}

/// A length of time in milliseconds, as Go writes it.
fn shown(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (minutes, seconds) = (millis / 60_000, (millis % 60_000) as f64 / 1000.0);
    match (minutes, millis) {
        (0, 0) => "0s".to_owned(),
        (0, ..1000) => format!("{millis}ms"),
        (0, _) => format!("{seconds}s"),
        (..60, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}

async fn keys(start: &Start, name: &str) -> Vec<Key> {
    let snapshot = start.used.snapshot().await.ok();
    start.ctx.images.keys(&start.ctx, &start.pod, snapshot.as_ref(), name).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reasons_are_taken_from_the_runtime() {
        for (message, reason, want) in [
            ("no such image", "ErrImagePull", "no such image"),
            (
                "RegistryUnavailable: no route",
                "RegistryUnavailable",
                "image pull failed for a because the registry is unavailable: no route",
            ),
            (
                "SignatureValidationFailed: no key",
                "SignatureValidationFailed",
                "image pull failed for a because the signature validation failed: no key",
            ),
        ] {
            assert_eq!(told("a", message.to_owned()), (reason, want.to_owned()));
        }
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (millis, want) in
            [(0, "0s"), (7, "7ms"), (1000, "1s"), (1234, "1.234s"), (60_000, "1m0s"), (61_500, "1m1.5s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(shown(Duration::from_millis(millis)), want);
        }
    }
}
