//! Pulls images from registries and their mirrors: several layers at once, every size and digest checked, one pull per image and key.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Digest, ImageStore, StoreError,
    blobs::{BlobError, BlobWriter},
    chains,
    layer::{LAYER_BYTES, UnpackError},
    manifest::{self, CONFIG_BYTES, Configuration, Descriptor, LAYERS, MANIFEST_BYTES, Manifest},
    reference::{Reference, Version},
    registries::{Endpoint, Registries, authority},
    remote::{self, Fault, Session},
};
use crate::{Credentials, Image, PullError, causes::causes};

/// Layers of one image that come at the same time, as other clients do.
const LAYERS_AT_ONCE: usize = 3;
/// Times that a document or a blob is asked for, each time for what of it is still missing.
const TRIES: u32 = 4;
/// Before the second of them; twice as long before each that follows.
const PAUSE: Duration = Duration::from_millis(250);
/// Depth to which an index may point to indexes.
const NESTED: usize = 3;
/// The documents that a pull understands.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Pulls of one process that have not ended, by image and keys: the second caller waits for the first and shares its result.
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
    /// Mirrors, and how hosts are met.
    pub registries: Registries,
    /// Told after every piece.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for PullOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions").field("credentials", &self.credentials).field("registries", &self.registries).finish_non_exhaustive()
    }
}

/// One pull from one endpoint with one key.
struct From<'a> {
    session: Session,
    name: &'a Reference,
    tell: &'a (dyn Fn(Progress) + Send + Sync),
}

impl ImageStore {
    /// Brings an image here, or up to date.
    pub async fn pull(self: &Arc<Self>, name: &str, options: &PullOptions<'_>) -> Result<Image, PullError> {
        let reference = super::reference(name).map_err(|error| match error {
            StoreError::Name(why) => PullError::InvalidName(why),
            other => stored(other),
        })?;
        let slot_name = slot(&reference, options.credentials);
        let slot = self.pulls.lock().unwrap_or_else(PoisonError::into_inner).entry(slot_name.clone()).or_default().clone();
        let mut result = slot.lock().await;
        if let Some(image) = &*result {
            return Ok(image.clone());
        }
        // Also when the caller gives up in the middle: who asks from now on asks the registry again; who waits already has the slot.
        let _leaves = Leaves(&self.pulls, slot_name);
        let pulled = self.pull_now(&reference, options).await;
        if let Ok(image) = &pulled {
            *result = Some(image.clone());
        }
        pulled
    }

    async fn pull_now(self: &Arc<Self>, name: &Reference, options: &PullOptions<'_>) -> Result<Image, PullError> {
        let store = Arc::clone(self);
        let _adding =
            tokio::task::spawn_blocking(move || store.adding()).await.map_err(|e| system("lock the image store", e))?.map_err(stored)?;
        let tell = |progress: Progress| {
            if let Some(listener) = &options.progress {
                listener(progress);
            }
        };
        let endpoints = options.registries.endpoints(name);
        let mut failures = Vec::new();
        for endpoint in &endpoints {
            let http = match remote::http(endpoint) {
                Ok(http) => http,
                Err(why) => {
                    failures.push((endpoint, failed(name, endpoint, why)));
                    continue;
                }
            };
            let mut last = None;
            for credentials in candidates(endpoint, options.credentials) {
                let from = From { session: Session::new(http.clone(), endpoint.clone(), credentials), name, tell: &tell };
                match self.pull_from(&from).await {
                    Ok(image) => return Ok(image),
                    Err(At::Here(error)) => return Err(error),
                    Err(At::There(why)) => {
                        // Another key opens no door at which nobody answers.
                        let closed = matches!(why, Fault::Unreachable(_) | Fault::Unavailable(_));
                        last = Some(failed(name, endpoint, why));
                        if closed {
                            break;
                        }
                    }
                }
            }
            failures.extend(last.map(|last| (endpoint, last)));
        }
        Err(summary(name, failures))
    }

    async fn pull_from(self: &Arc<Self>, from: &From<'_>) -> Result<Image, At> {
        let name = from.name;
        let (manifest, digest) = from.manifest().await?;
        let config = manifest.config.as_ref().ok_or_else(|| lie("its manifest has no configuration"))?;
        if manifest.layers.len() > LAYERS {
            return Err(lie(format!("its image has {} layers; up to {LAYERS} are possible", manifest.layers.len())));
        }
        let bytes = match self.blobs.read(&config.digest, CONFIG_BYTES) {
            Ok(bytes) => bytes,
            // Not here, or damaged since: a blob is not synced to the disk by itself.
            Err(_) => {
                self.blob(from, config, CONFIG_BYTES, &|_| ()).await?;
                self.blobs.read(&config.digest, CONFIG_BYTES).map_err(blob_error)?
            }
        };
        let configuration: Configuration = parse(&bytes, "configuration")?;
        let diffs = &configuration.rootfs.diff_ids;
        if diffs.len() != manifest.layers.len() {
            return Err(lie(format!("its image has {} layers for {} entries of diff_ids", manifest.layers.len(), diffs.len())));
        }
        if !manifest::runs_here(&configuration.architecture) {
            let text = format!("no match for platform in manifest: {name} is for {}", configuration.architecture);
            return Err(At::There(Fault::Refused(text)));
        }
        let chains = chains(diffs).into_iter().zip(diffs).zip(&manifest.layers);
        let missing: Vec<_> = chains.filter(|((chain, _), _)| !self.has_layer(chain)).collect();
        let total = missing.iter().map(|(_, layer)| layer.size).sum();
        let done = AtomicU64::new(0);
        let tell = |bytes: u64| (from.tell)(Progress { done: done.fetch_add(bytes, Ordering::Relaxed) + bytes, total });
        tell(0);
        let mut layers = Vec::new();
        for ((chain, diff), layer) in missing {
            layers.push(self.layer(from, layer, chain, diff, &tell));
        }
        stream::iter(layers).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;

        let tags = if matches!(name.version, Version::Tag(_)) { vec![name.to_string()] } else { Vec::new() };
        let digests = [format!("{}@{digest}", name.name())];
        Ok(self.enter(&config.digest, &configuration, &tags, &digests).map_err(stored)?)
    }

    async fn layer(
        self: &Arc<Self>,
        from: &From<'_>,
        layer: &Descriptor,
        chain: Digest,
        diff: &Digest,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), At> {
        // One that is here was left by a process that ended before it was unpacked; perhaps by a power loss, and then it is not whole.
        if self.blobs.contains(&layer.digest) && self.unpack(&layer.digest, &chain, diff).await?.is_ok() {
            tell(layer.size);
            return Ok(());
        }
        self.blob(from, layer, LAYER_BYTES, tell).await?;
        self.unpack(&layer.digest, &chain, diff).await?.map_err(|error| match error {
            UnpackError::Io(source) => At::Here(PullError::System { what: "could not unpack a layer".to_owned(), source }),
            other => lie(causes(&other)),
        })
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
    async fn blob(&self, from: &From<'_>, blob: &Descriptor, limit: u64, tell: &(dyn Fn(u64) + Send + Sync)) -> Result<(), At> {
        if blob.size > limit {
            return Err(lie(format!("a blob of {} bytes is refused: {limit} are allowed", blob.size)));
        }
        let writer = self.blobs.writer(blob.size);
        let mut writer = writer.map_err(|source| PullError::System { what: "could not store a blob".to_owned(), source })?;
        let mut pause = PAUSE;
        for last in (1..=TRIES).map(|n| n == TRIES) {
            match from.receive(blob, &mut writer, tell).await {
                Err(At::There(Fault::Unreachable(why) | Fault::Unavailable(why))) if !last => {
                    tracing::debug!(image = %from.name, blob = %blob.digest, have = writer.bytes(), why, "asking for the rest of a blob");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(writer.commit(Some(&blob.digest)).map(|_| ()).map_err(blob_error)?)
    }
}

impl From<'_> {
    /// The manifest for this machine, and the digest that the name stands for (of the index, where there is one).
    async fn manifest(&self) -> Result<(Manifest, Digest), At> {
        let name = self.name;
        let mut at = name.version.clone();
        let mut size = None;
        let mut top = None;
        for _ in 0..=NESTED {
            let bytes = self.document(at.as_str()).await?;
            let found = Digest::of(&bytes);
            if let Version::Digest(expected) = &at
                && *expected != found
            {
                return Err(lie(format!("gives {found} for {expected}")));
            }
            if size.is_some_and(|size| size != bytes.len() as u64) {
                return Err(lie(format!("its index promises other than the {} bytes of {found}", bytes.len())));
            }
            let manifest: Manifest = parse(&bytes, "manifest")?;
            let top = top.get_or_insert(found).clone();
            if manifest.schema == 1 {
                return Err(At::There(Fault::Refused(format!("{name} has a manifest of schema 1, which nobody has made since 2016"))));
            }
            if manifest.config.is_some() {
                return Ok((manifest, top));
            }
            let ours = manifest::for_this_machine(&manifest.manifests).ok_or_else(|| {
                let text = format!("no match for platform in manifest: {name} has none for linux/{}", manifest::ARCHITECTURE);
                At::There(Fault::Refused(text))
            })?;
            (at, size) = (Version::Digest(ours.digest.clone()), Some(ours.size).filter(|size| *size > 0));
        }
        Err(lie(format!("{name} is an index within more than {NESTED} others")))
    }

    /// A document, asked for again when the registry stumbles.
    async fn document(&self, version: &str) -> Result<Vec<u8>, At> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.session.manifest(version, ACCEPTED, MANIFEST_BYTES).await {
                Err(Fault::Unavailable(why)) => tracing::debug!(image = %self.name, why, "asking for a manifest again"),
                other => return other.map_err(At::There),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.session.manifest(version, ACCEPTED, MANIFEST_BYTES).await.map_err(At::There)
    }

    /// Adds to `writer` what it lacks of a blob.
    async fn receive(&self, blob: &Descriptor, writer: &mut BlobWriter, tell: &(dyn Fn(u64) + Send + Sync)) -> Result<(), At> {
        let have = writer.bytes();
        if have == blob.size && have > 0 {
            return Ok(());
        }
        let (mut response, start) = self.session.blob(blob.digest.as_str(), have).await.map_err(At::There)?;
        // A registry that begins anew; what is known of it is passed over.
        let mut known = have.saturating_sub(start);
        if response.content_length().is_some_and(|length| start.saturating_add(length) != blob.size) {
            let length = response.content_length().unwrap_or_default();
            return Err(lie(format!("gives {length} bytes from {start} on of {}, whose manifest says {}", blob.digest, blob.size)));
        }
        while let Some(piece) = response.chunk().await.map_err(|error| At::There(remote::fault(error)))? {
            let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(piece.len());
            known -= skipped as u64;
            let new = &piece[skipped..];
            writer.write(new).map_err(blob_error)?;
            tell(new.len() as u64);
        }
        match writer.bytes() {
            bytes if bytes < blob.size => {
                Err(At::There(Fault::Unavailable(format!("{} ends after {bytes} of {} bytes", blob.digest, blob.size))))
            }
            _ => Ok(()),
        }
    }
}

/// Frees the slot of a pull.
struct Leaves<'a>(&'a InFlight, String);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Whose fault it is: of this machine, or of the endpoint, and then the next one may do better.
enum At {
    Here(PullError),
    There(Fault),
}

impl std::convert::From<PullError> for At {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Corrupt(why) => Self::There(Fault::Lies(why)),
            other => Self::Here(other),
        }
    }
}

fn lie(what: impl Into<String>) -> At {
    At::There(Fault::Lies(what.into()))
}

/// Who pulls with other keys does not share what these open.
fn slot(name: &Reference, credentials: &[Credentials]) -> String {
    let keys: Vec<_> = credentials.iter().map(|c| (&c.username, &c.password, &c.token)).collect();
    format!("{name} {}", Digest::of(format!("{keys:?}").as_bytes()))
}

/// The keys for an endpoint: the caller's and its own; a mirror's own first. Nobody's, where there are none.
fn candidates(endpoint: &Endpoint, given: &[Credentials]) -> Vec<Option<Credentials>> {
    let own = endpoint.host.credentials.iter();
    let mut out: Vec<_> = if endpoint.mirror_of.is_some() {
        own.chain(given).cloned().map(Some).collect()
    } else {
        given.iter().chain(own).cloned().map(Some).collect()
    };
    if out.is_empty() {
        out.push(None);
    }
    out
}

fn failed(name: &Reference, endpoint: &Endpoint, why: Fault) -> PullError {
    let place = authority(&endpoint.base);
    match why {
        Fault::NotFound => PullError::Refused(format!("{name}: not found")),
        Fault::Unreachable(why) | Fault::Unavailable(why) => PullError::Unavailable(format!("could not pull {name}: {place}: {why}")),
        Fault::Refused(why) => PullError::Refused(format!("could not pull {name}: {place}: {why}")),
        Fault::Lies(why) => PullError::Corrupt(format!("could not pull {name}: {place}: {why}")),
    }
}

/// What all endpoints said, each by its place; what the last one answered is what the pull came to.
fn summary(name: &Reference, mut failures: Vec<(&Endpoint, PullError)>) -> PullError {
    let Some((_, last)) = failures.pop() else {
        return PullError::Refused(format!("could not pull {name}: no endpoint may be asked for it"));
    };
    if failures.is_empty() {
        return last;
    }
    let start = format!("could not pull {name}: ");
    let told = |endpoint: &Endpoint, error: &PullError| {
        let text = error.to_string();
        text.strip_prefix(&start).map_or_else(|| format!("{}: not found", authority(&endpoint.base)), str::to_owned)
    };
    let mut text = failures.iter().map(|(endpoint, error)| told(endpoint, error)).collect::<Vec<_>>().join("; ");
    let all = |same: fn(&PullError) -> bool| same(&last) && failures.iter().all(|(_, error)| same(error));
    let unavailable = all(|error| matches!(error, PullError::Unavailable(_)));
    let last_text = last.to_string();
    text = format!("{start}mirrors: {text}; then {}", last_text.strip_prefix(&start).unwrap_or(&last_text));
    match last {
        PullError::Corrupt(_) => PullError::Corrupt(text),
        _ if unavailable => PullError::Unavailable(text),
        _ => PullError::Refused(text),
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, At> {
    serde_json::from_slice(bytes).map_err(|error| lie(format!("its {what}: {error}")))
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
