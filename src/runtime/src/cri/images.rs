//! Images, by the runtime's own store.

use super::{
    Inner,
    api::image::{AuthConfig, ImageSpec, PullImageRequest},
    client::failed,
    told,
};
use crate::{
    Credentials, Image, ImageFilesystem, PullError, RuntimeError,
    grpc::{Code, Status},
    images,
};

/// Upstream's word for a registry that does not answer, with which such a runtime's message begins.
const UNAVAILABLE: &str = "RegistryUnavailable";

/// A local image by name, digest or id.
pub(super) async fn get(inner: &Inner, reference: &str) -> Result<Option<Image>, RuntimeError> {
    let name = name(reference).map_err(RuntimeError::Invalid)?;
    Ok(inner.client.image(&name).await.map_err(failed("could not ask for an image"))?.map(told::image))
}

/// Names are whole, as the runtime keeps them; ids stay.
fn name(reference: &str) -> Result<String, String> {
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(reference.to_owned());
    }
    images::normalise(reference).map_err(|error| error.to_string())
}

/// Pulls with each of the credentials in turn; without any when there are none.
pub(super) async fn pull(inner: &Inner, reference: &str, credentials: &[Credentials]) -> Result<Image, PullError> {
    let name = images::normalise(reference).map_err(|_| PullError::InvalidName(reference.to_owned()))?;
    let mut last = None;
    let ways = credentials.iter().map(Some).chain(credentials.is_empty().then_some(None));
    for way in ways {
        let request = PullImageRequest {
            image: Some(ImageSpec { image: name.clone(), user_specified_image: reference.to_owned() }),
            auth: way.map(auth),
        };
        match inner.client.pull(request).await {
            Ok(id) => return pulled(inner, &id).await,
            Err(status) => last = Some(status),
        }
    }
    Err(refused(last.unwrap_or_else(|| Status::unknown("the image was not asked for"))))
}

async fn pulled(inner: &Inner, id: &str) -> Result<Image, PullError> {
    let image = inner.client.image(id).await.map_err(refused)?;
    image.map(told::image).ok_or_else(|| PullError::Refused(format!("image {id} was pulled and is not there")))
}

fn auth(credentials: &Credentials) -> AuthConfig {
    match &credentials.token {
        Some(token) => AuthConfig { registry_token: token.clone(), ..AuthConfig::default() },
        None => AuthConfig { username: credentials.username.clone(), password: credentials.password.clone(), ..AuthConfig::default() },
    }
}

fn refused(status: Status) -> PullError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unavailable => PullError::System { what: "the container runtime is away".to_owned(), source: std::io::Error::other(message) },
        _ if message.starts_with(UNAVAILABLE) => PullError::Unavailable(message),
        _ => PullError::Refused(message),
    }
}

/// All local images.
pub(super) async fn list(inner: &Inner) -> Result<Vec<Image>, RuntimeError> {
    let images = inner.client.images().await.map_err(failed("could not list the images"))?;
    Ok(images.into_iter().map(told::image).collect())
}

/// Where they are: the file system that has most of them.
pub(super) async fn filesystem(inner: &Inner) -> Result<Option<ImageFilesystem>, RuntimeError> {
    let told = inner.client.image_filesystems().await.map_err(failed("could not ask where the images are"))?;
    Ok(told.image_filesystems.into_iter().filter_map(told::filesystem).max_by_key(|of| of.used_bytes))
}

/// Removes one that no container of ours uses; the runtime does not look.
pub(super) async fn remove(inner: &Inner, reference: &str) -> Result<(), RuntimeError> {
    let name = name(reference).map_err(RuntimeError::Invalid)?;
    let Some(image) = inner.client.image(&name).await.map_err(failed("could not ask for an image"))? else { return Ok(()) };
    // Without the image of its own process there would be no sandbox any more.
    let of_sandboxes = match &inner.sandbox_image {
        Some(name) => inner.client.image(name).await.map_err(failed("could not ask for an image"))?.is_some_and(|own| own.id == image.id),
        None => false,
    };
    if image.pinned || of_sandboxes {
        return Err(RuntimeError::Invalid(format!("image {reference} is the container runtime's own")));
    }
    if inner.names().images().contains(&image.id) {
        return Err(RuntimeError::Invalid(format!("image {reference} is in use by a container")));
    }
    inner.client.remove_image(&image.id).await.map_err(failed("could not remove an image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_ids_stay() {
        let id = format!("sha256:{}", "a".repeat(64));
        for (given, asked) in [("busybox", Ok("docker.io/library/busybox:latest")), (&id, Ok(id.as_str())), ("UPPER/Case", Err(()))] {
            assert_eq!(name(given).as_deref().map_err(|_| ()), asked, "{given}");
        }
    }

    #[test]
    fn failures_are_told_apart() {
        assert!(matches!(refused(Status::unavailable("x")), PullError::System { .. }));
        assert!(matches!(refused(Status::unknown("RegistryUnavailable: x")), PullError::Unavailable(_)));
        assert!(matches!(refused(Status::not_found("x")), PullError::Refused(_)));
    }
}
