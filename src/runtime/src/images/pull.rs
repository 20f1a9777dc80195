//! Pulls images from registries (OCI distribution specification) over TLS: several layers at once, every digest checked, one pull per image.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use super::{
    Digest, ImageStore, StoreError,
    blobs::{BlobError, BlobWriter},
    chains,
    layer::{LAYER_BYTES, UnpackError},
    manifest::{self, CONFIG_BYTES, Configuration, Descriptor, LAYERS, MANIFEST_BYTES, Manifest},
};
use crate::{Credentials, Image, PullError};

/// Layers of one image that come at the same time, as other clients do.
const LAYERS_AT_ONCE: usize = 3;
/// A registry that does not accept a connection in this time does not answer.
const CONNECT: Duration = Duration::from_secs(15);
/// Silence in the middle of a body that ends a pull.
const SILENCE: Duration = Duration::from_secs(60);
/// Times that a blob is asked for, each time for what of it is still missing.
const TRIES: u32 = 4;
/// Before the second of them; twice as long before each that follows.
const PAUSE: Duration = Duration::from_millis(250);
/// Depth to which an index may point to indexes.
const NESTED: usize = 3;

/// The documents that a pull understands.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Pulls of one process that have not ended: the second caller of an image waits for the first and shares its result.
pub(super) type InFlight = Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Image>>>>>;

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of layers that have come.
    pub done: u64,
    /// Bytes of layers that have to come, once the manifest is known.
    pub total: u64,
}

/// What a pull may be told.
#[derive(Clone, Default)]
pub struct PullOptions<'a> {
    /// Tried in this order; none is anonymous.
    pub credentials: &'a [Credentials],
    /// PEM certificates of authorities to trust beside the usual ones.
    pub authorities: Vec<Vec<u8>>,
    /// Told after every piece.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for PullOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Brings an image here, or up to date.
    pub async fn pull(self: &Arc<Self>, name: &str, options: &PullOptions<'_>) -> Result<Image, PullError> {
        let reference = super::reference(name).map_err(|error| PullError::InvalidName(error.to_string()))?;
        let name = reference.whole();
        let slot = self.pulls.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone();
        let mut result = slot.lock().await;
        if let Some(image) = &*result {
            return Ok(image.clone());
        }
        let pulled = self.pull_now(&reference, options).await;
        if let Ok(image) = &pulled {
            *result = Some(image.clone());
        }
        // Who asks from now on asks the registry again; who waits already has the slot.
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        pulled
    }

    async fn pull_now(self: &Arc<Self>, name: &Reference, options: &PullOptions<'_>) -> Result<Image, PullError> {
        let store = Arc::clone(self);
        let _adding =
            tokio::task::spawn_blocking(move || store.adding()).await.map_err(|e| system("lock the image store", e))?.map_err(stored)?;
        // Ring is the provider of the whole program; a second installation is refused, and that is well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client(name, options);
        let auth = authenticate(&client, name, options.credentials).await?;

        let (manifest_bytes, digest) = self.manifest(&client, name, &auth).await?;
        let manifest: Manifest = parse(&manifest_bytes, "manifest")?;
        let config = manifest.config.as_ref().ok_or_else(|| PullError::Corrupt("manifest without a configuration".to_owned()))?;
        if manifest.layers.len() > LAYERS {
            return Err(PullError::Corrupt(format!("image of {} layers; up to {LAYERS} are possible", manifest.layers.len())));
        }
        let bytes = match self.blobs.read(&config.digest, CONFIG_BYTES) {
            Ok(bytes) => bytes,
            // Not here, or damaged since: a blob is not synced to the disk by itself.
            Err(_) => {
                self.blob(&client, name, config, CONFIG_BYTES, &|_| ()).await?;
                self.blobs.read(&config.digest, CONFIG_BYTES).map_err(blob_error)?
            }
        };
        let configuration: Configuration = parse(&bytes, "configuration")?;
        let diffs = &configuration.rootfs.diff_ids;
        if diffs.len() != manifest.layers.len() {
            return Err(PullError::Corrupt(format!("{} layers for {} entries of diff_ids", manifest.layers.len(), diffs.len())));
        }
        if !configuration.architecture.is_empty() && configuration.architecture != manifest::ARCHITECTURE {
            return Err(PullError::Refused(format!("no match for platform in manifest: {name} is for {}", configuration.architecture)));
        }

        let mut missing = Vec::new();
        for ((chain, diff), layer) in chains(diffs).into_iter().zip(diffs).zip(&manifest.layers) {
            if !self.has_layer(&chain) {
                missing.push((chain, diff.clone(), layer.clone()));
            }
        }
        let total = missing.iter().map(|(_, _, layer)| layer.size).sum();
        let done = std::sync::atomic::AtomicU64::new(0);
        let tell = |bytes: u64| {
            let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
            if let Some(progress) = &options.progress {
                progress(Progress { done, total });
            }
        };
        tell(0);
        let mut layers = Vec::new();
        for (chain, diff, layer) in missing {
            layers.push(self.layer(&client, name, layer, chain, diff, &tell));
        }
        stream::iter(layers).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;

        let tags: Vec<String> = name.tag().map(|tag| format!("{}/{}:{tag}", name.registry(), name.repository())).into_iter().collect();
        let digests = [format!("{}/{}@{digest}", name.registry(), name.repository())];
        self.enter(&config.digest, &configuration, &tags, &digests).map_err(stored)
    }

    /// The manifest for this machine, and the digest that the name stands for (of the index, where there is one).
    async fn manifest(&self, client: &Client, name: &Reference, auth: &RegistryAuth) -> Result<(Vec<u8>, Digest), PullError> {
        let mut at = name.clone();
        let mut top = None;
        for _ in 0..=NESTED {
            let (bytes, _) = client.pull_manifest_raw(&at, auth, &ACCEPTED).await.map_err(|e| registry(name, &e))?;
            if bytes.len() as u64 > MANIFEST_BYTES {
                return Err(PullError::Corrupt(format!("manifest of {name} has {} bytes; {MANIFEST_BYTES} are allowed", bytes.len())));
            }
            let found = Digest::of(&bytes);
            if at.digest().is_some_and(|expected| expected != found.as_str()) {
                return Err(PullError::Corrupt(format!("the registry gave {found} for {at}")));
            }
            let manifest: Manifest = parse(&bytes, "manifest")?;
            let top = top.get_or_insert(found).clone();
            if manifest.config.is_some() {
                return Ok((bytes.to_vec(), top));
            }
            let ours = manifest::for_this_machine(&manifest.manifests).ok_or_else(|| {
                PullError::Refused(format!("no match for platform in manifest: {name} has none for linux/{}", manifest::ARCHITECTURE))
            })?;
            at = name.clone_with_digest(ours.digest.to_string());
        }
        Err(PullError::Corrupt(format!("{name} is an index within more than {NESTED} others")))
    }

    async fn layer(
        self: &Arc<Self>,
        client: &Client,
        name: &Reference,
        layer: Descriptor,
        chain: Digest,
        diff: Digest,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), PullError> {
        let failed = |error: UnpackError| match error {
            UnpackError::Io(source) => PullError::System { what: "could not unpack a layer".to_owned(), source },
            other => PullError::Corrupt(format!("{name}: {}", told(&other))),
        };
        // One that is here was left by a process that ended before it was unpacked; perhaps by a power loss, and then it is not whole.
        if self.blobs.contains(&layer.digest) && self.unpack(&layer.digest, &chain, &diff).await?.is_ok() {
            tell(layer.size);
            return Ok(());
        }
        self.blob(client, name, &layer, LAYER_BYTES, tell).await?;
        self.unpack(&layer.digest, &chain, &diff).await?.map_err(failed)
    }

    /// Makes a layer of a blob, which is not needed any more then, however it went.
    async fn unpack(self: &Arc<Self>, blob: &Digest, chain: &Digest, diff: &Digest) -> Result<Result<(), UnpackError>, PullError> {
        let (store, blob, chain, diff) = (Arc::clone(self), blob.clone(), chain.clone(), diff.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let unpacked = store.blobs.open_blob(&blob).map_err(UnpackError::Io).and_then(|source| store.add_layer(&chain, &diff, source));
            store.blobs.remove(&blob)?;
            unpacked
        });
        unpacked.await.map_err(|e| system("unpack a layer", e))
    }

    /// Brings a blob; when the way breaks, goes on where it broke.
    async fn blob(
        &self,
        client: &Client,
        name: &Reference,
        blob: &Descriptor,
        limit: u64,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), PullError> {
        let mut writer =
            self.blobs.writer(limit).map_err(|source| PullError::System { what: "could not store a blob".to_owned(), source })?;
        let mut pause = PAUSE;
        for last in (1..=TRIES).map(|n| n == TRIES) {
            match receive(client, name, blob, &mut writer, tell).await {
                Err(PullError::Unavailable(why)) if !last => {
                    tracing::debug!(image = %name, blob = %blob.digest, have = writer.bytes(), why, "asking for the rest of a blob");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        writer.commit(Some(&blob.digest)).map(|_| ()).map_err(blob_error)
    }
}

/// Adds to `writer` what it lacks of a blob.
async fn receive(
    client: &Client,
    name: &Reference,
    blob: &Descriptor,
    writer: &mut BlobWriter,
    tell: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), PullError> {
    let descriptor = OciDescriptor { digest: blob.digest.to_string(), media_type: blob.media_type.clone(), ..OciDescriptor::default() };
    let refused = |error| registry(name, &error);
    let (mut pieces, mut known) = match writer.bytes() {
        0 => (client.pull_blob_stream(name, &descriptor).await.map_err(refused)?.stream, 0),
        have => match client.pull_blob_stream_partial(name, &descriptor, have, None).await.map_err(refused)? {
            BlobResponse::Partial(rest) => (rest.stream, 0),
            // A registry that begins anew; what is known of it is passed over.
            BlobResponse::Full(whole) => (whole.stream, have),
        },
    };
    while let Some(piece) = pieces.next().await {
        // The stream checks the digest itself at its end; whatever it then says is no answer of a registry.
        let piece = piece.map_err(|error| {
            let text = format!("{name}: {}", told(&error));
            if error.to_string().contains("igest") { PullError::Corrupt(text) } else { PullError::Unavailable(text) }
        })?;
        let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(piece.len());
        known -= skipped as u64;
        let new = &piece[skipped..];
        writer.write(new).map_err(blob_error)?;
        tell(new.len() as u64);
    }
    Ok(())
}

fn client(name: &Reference, options: &PullOptions<'_>) -> Client {
    let registry = name.resolve_registry();
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    // As containerd: a registry on this very machine may speak plainly.
    let plain = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let trusted_here = !options.authorities.is_empty();
    Client::new(ClientConfig {
        protocol: if plain && !trusted_here { ClientProtocol::HttpsExcept(vec![registry.to_owned()]) } else { ClientProtocol::Https },
        extra_root_certificates: options
            .authorities
            .iter()
            .map(|pem| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() })
            .collect(),
        platform_resolver: None,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

/// The first credentials that open the repository, or none where it is open.
async fn authenticate(client: &Client, name: &Reference, credentials: &[Credentials]) -> Result<RegistryAuth, PullError> {
    let mut candidates: Vec<RegistryAuth> = credentials
        .iter()
        .map(|one| match &one.token {
            Some(token) => RegistryAuth::Bearer(token.clone()),
            None => RegistryAuth::Basic(one.username.clone(), one.password.clone()),
        })
        .collect();
    if candidates.is_empty() {
        candidates.push(RegistryAuth::Anonymous);
    }
    let mut last = None;
    for auth in candidates {
        let opened = async {
            client.auth(name, &auth, RegistryOperation::Pull).await?;
            client.fetch_manifest_digest(name, &auth).await
        };
        match opened.await {
            Ok(_) => return Ok(auth),
            Err(error) => last = Some(registry(name, &error)),
        }
    }
    Err(last.unwrap_or_else(|| PullError::Refused(format!("no credentials open {name}"))))
}

fn registry(name: &Reference, error: &OciDistributionError) -> PullError {
    let text = format!("could not pull {name}: {}", told(error));
    match error {
        OciDistributionError::RequestError(cause) if cause.is_connect() || cause.is_timeout() || cause.is_request() => {
            PullError::Unavailable(text)
        }
        OciDistributionError::ServerError { code, .. } if *code >= 500 => PullError::Unavailable(text),
        OciDistributionError::DigestError(_) => PullError::Corrupt(text),
        OciDistributionError::ImageManifestNotFoundError(_) => PullError::Refused(format!("{name}: not found")),
        _ => PullError::Refused(text),
    }
}

/// An error with its causes in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, PullError> {
    serde_json::from_slice(bytes).map_err(|error| PullError::Corrupt(format!("{what}: {error}")))
}

fn blob_error(error: BlobError) -> PullError {
    match error {
        BlobError::Io(source) => PullError::System { what: "could not store a blob".to_owned(), source },
        other => PullError::Corrupt(other.to_string()),
    }
}

fn stored(error: StoreError) -> PullError {
    system("change the image store", error)
}

fn system(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> PullError {
    PullError::System { what: format!("could not {what}"), source: std::io::Error::other(error) }
}
