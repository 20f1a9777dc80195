//! The image store: what is pulled or imported, unpacked into layers that containers share.
//!
//! ```text
//! <root>/index.json        the images, replaced as a whole under a lock; the truth
//! <root>/index.copy        the same, for the day when the disk has damaged the first
//! <root>/blobs/sha256/*    manifests and configurations; layers only until they are unpacked
//! <root>/layers/<chain>/   `fs`, the unpacked layer, and `size`; named by its chain id, shared, read-only
//! <root>/incoming/         what is being written; emptied by `gc`
//! ```
//! Several processes may use one store at once (`coracle images import` beside a server): changes of the index are made under a lock on
//! `index.lock`, and `gc`, which takes things away, excludes all additions by `lock`.

pub(crate) mod arrivals;
mod binary;
mod blobs;
mod challenge;
mod digest;
mod export;
mod import;
mod layer;
mod manifest;
mod pipe;
mod pull;
mod reference;
mod registries;
mod remote;
mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

pub(crate) use self::manifest::ARCHITECTURE;
pub use self::{
    binary::from_binary,
    blobs::BlobError,
    digest::{Digest, InvalidDigest},
    export::ExportError,
    import::ImportError,
    layer::UnpackError,
    manifest::Defaults,
    pull::{Progress, PullOptions},
    registries::{Registries, RegistriesError},
    room::{Share, Spare},
};
use self::{
    blobs::Blobs,
    manifest::Configuration,
    reference::Reference,
    room::{Meter, Room},
};
use crate::{Image, causes::causes};

/// Bytes of the index: some thousand images.
const INDEX_BYTES: u64 = 16 << 20;

/// The index.
const INDEX: &str = "index.json";
/// What is read in its place.
const INDEX_COPY: &str = "index.copy";

/// Letters of a wrong name that are shown.
const NAME_SHOWN: usize = 256;

/// The images of a data directory.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    blobs: Blobs,
    room: Arc<Room>,
    pulls: pull::InFlight,
}

/// What the store knows of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    /// Chain ids, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) defaults: Defaults,
    pub(crate) architecture: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    /// By the digest of their configuration.
    images: BTreeMap<Digest, Record>,
}

/// Why the store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// it could not be done
    #[error("could not {what} {}", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// the index is not one
    #[error("{} is damaged; remove it and index.copy beside it, and import the images again", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// containers are made of it
    #[error("image {0} is in use by a container")]
    InUse(String),
    /// not a name
    #[error("not a valid image name: {0}")]
    Name(String),
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

/// The full name: `busybox` is `docker.io/library/busybox:latest`.
pub fn normalise(name: &str) -> Result<String, StoreError> {
    Ok(reference(name)?.to_string())
}

pub(crate) fn reference(name: &str) -> Result<Reference, StoreError> {
    Reference::parse(name).map_err(|why| StoreError::Name(format!("{:?}: {why}", name.chars().take(NAME_SHOWN).collect::<String>())))
}

impl ImageStore {
    /// Opens the store of a data directory, making it if it is not there.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let root = data_dir.join("images");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed("make", &root))?;
        fs::create_dir_all(root.join("layers")).map_err(failed("make", &root))?;
        let room = Room::new(&root);
        let blobs = Blobs::open(&root, &room).map_err(failed("make", &root))?;
        Ok(Self { root, blobs, room, pulls: Default::default() })
    }

    /// Says, once, what of the disk must stay free: no image is brought that would take of it.
    pub fn keep_free(&self, spare: Spare) {
        self.room.keep_free(spare);
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        Ok(self.index()?.images.iter().map(|(id, record)| image(id, record)).collect())
    }

    /// By name, `name@digest`, or id (`sha256:...`, or its hex digits). One of which a layer is lost is not here: it can be pulled again.
    pub fn get(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let Some((id, record)) = self.record(name)? else { return Ok(None) };
        if let Some(lost) = record.layers.iter().find(|chain| !self.has_layer(chain)) {
            tracing::warn!(image = name, layer = directory_name(lost), "a layer of an image is lost; the image counts as not here");
            return Ok(None);
        }
        Ok(Some(image(&id, &record)))
    }

    pub(crate) fn record(&self, name: &str) -> Result<Option<(Digest, Record)>, StoreError> {
        let index = self.index()?;
        let id = name.parse::<Digest>().or_else(|_| format!("sha256:{name}").parse());
        if let Ok(id) = id {
            let found = index.images.get(&id).cloned();
            return Ok(found.map(|record| (id, record)));
        }
        let name = normalise(name)?;
        Ok(index.images.into_iter().find(|(_, record)| record.tags.contains(&name) || record.digests.contains(&name)))
    }

    /// The directories of an image's layers, top first, as overlayfs wants them.
    pub(crate) fn layer_dirs(&self, record: &Record) -> Vec<PathBuf> {
        record.layers.iter().rev().map(|chain| self.layer_dir(chain).join("fs")).collect()
    }

    /// Takes a name away; by id or when it was the last name, the image. `in_use` holds the ids that containers are made of.
    pub fn remove(&self, name: &str, in_use: &HashSet<String>) -> Result<(), StoreError> {
        let Some((id, _)) = self.record(name)? else { return Ok(()) };
        let by_id = name.parse::<Digest>().is_ok() || format!("sha256:{name}").parse::<Digest>().is_ok();
        let full = if by_id { String::new() } else { normalise(name)? };
        let removed = self.change(|index| {
            let Some(record) = index.images.get_mut(&id) else { return Ok(false) };
            record.tags.remove(&full);
            record.digests.remove(&full);
            let named = !record.tags.is_empty() || !record.digests.is_empty();
            if named && !by_id {
                return Ok(false);
            }
            if in_use.contains(id.as_str()) {
                return Err(StoreError::InUse(name.to_owned()));
            }
            index.images.remove(&id);
            Ok(true)
        })?;
        if removed { self.gc().map(|_| ()) } else { Ok(()) }
    }

    /// Takes away layers and blobs that no image has; returns the bytes gained. Does nothing while another process adds.
    pub fn gc(&self) -> Result<u64, StoreError> {
        let Some(_alone) = self.lock("lock", FlockOperation::NonBlockingLockExclusive)? else { return Ok(0) };
        let index = self.index()?;
        let layers: HashSet<String> = index.images.values().flat_map(|record| &record.layers).map(directory_name).collect();
        let mut gained = 0;
        let dir = self.root.join("layers");
        for entry in fs::read_dir(&dir).map_err(failed("read", &dir))?.flatten() {
            if !entry.file_name().to_str().is_some_and(|name| layers.contains(name)) {
                gained += read_size(&entry.path()).unwrap_or(0);
                fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        for digest in self.blobs.list().map_err(failed("read", &self.root))? {
            if !index.images.contains_key(&digest) {
                self.blobs.remove(&digest).map_err(failed("remove a blob of", &self.root))?;
            }
        }
        let incoming = self.root.join("incoming");
        for entry in fs::read_dir(&incoming).map_err(failed("read", &incoming))?.flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
        Ok(gained)
    }

    /// Held by whoever adds to the store.
    fn adding(&self) -> Result<File, StoreError> {
        loop {
            if let Some(lock) = self.lock("lock", FlockOperation::LockShared)? {
                return Ok(lock);
            }
        }
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<Option<File>, StoreError> {
        let path = self.root.join(name);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed("open", &path))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// The index, or its copy when it cannot be read. Without either there are no images yet.
    fn index(&self) -> Result<Index, StoreError> {
        let wrong = match self.read_index(INDEX) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match (self.read_index(INDEX_COPY), wrong) {
            (Ok(Some(copy)), None) => Ok(copy),
            (Ok(Some(copy)), Some(wrong)) => {
                tracing::warn!(error = causes(&wrong), "the index of the images cannot be read; its copy is used");
                Ok(copy)
            }
            (_, Some(wrong)) | (Err(wrong), None) => Err(wrong),
            (Ok(None), None) => Ok(Index::default()),
        }
    }

    fn read_index(&self, name: &str) -> Result<Option<Index>, StoreError> {
        let path = self.root.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(INDEX_BYTES).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
            Ok(_) => serde_json::from_slice(&bytes).map(Some).map_err(|source| StoreError::Index { path, source }),
        }
    }

    fn change<T>(&self, how: impl FnOnce(&mut Index) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let path = self.root.join(INDEX);
        let _lock = loop {
            if let Some(lock) = self.lock("index.lock", FlockOperation::LockExclusive)? {
                break lock;
            }
        };
        let mut index = self.index()?;
        let result = how(&mut index)?;
        let bytes = serde_json::to_vec(&index).map_err(|source| StoreError::Index { path: path.clone(), source })?;
        write_atomically(&path, &bytes).map_err(failed("write", &path))?;
        // Not synced: it is asked only where the other, which is, cannot be read.
        let (copy, new) = (self.root.join(INDEX_COPY), self.root.join("incoming").join(blobs::unique()));
        if let Err(error) = fs::write(&new, &bytes).and_then(|()| fs::rename(&new, &copy)) {
            tracing::warn!(%error, "the copy of the index of the images is not written");
        }
        Ok(result)
    }

    /// What the disk lets one layer be.
    fn limits(&self) -> io::Result<layer::Limits> {
        self.room.left().map(layer::Limits::of_disk)
    }

    fn layer_dir(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(directory_name(chain))
    }

    /// Whether the layer that ends this chain is unpacked.
    fn has_layer(&self, chain: &Digest) -> bool {
        self.layer_dir(chain).join("fs").is_dir()
    }

    /// Unpacks one layer to its place; the last step is the rename, so a place that exists is whole.
    fn add_layer(&self, chain: &Digest, diff: &Digest, source: impl Read + Send) -> Result<(), UnpackError> {
        let place = self.layer_dir(chain);
        if self.has_layer(chain) {
            return Ok(());
        }
        if place.exists() {
            // Damaged: what is whole has files.
            fs::remove_dir_all(&place)?;
        }
        let work = self.root.join("incoming").join(blobs::unique());
        let result = (|| {
            fs::create_dir(&work)?;
            // What a container sees as `/` when no layer says otherwise.
            fs::DirBuilder::new().mode(0o755).create(work.join("fs"))?;
            let (_, bytes) = layer::unpack(source, Some(diff), &work.join("fs"), self.limits()?, Meter::of(&self.room))?;
            fs::write(work.join("size"), bytes.to_string())?;
            // The name must not reach the disk before the files do.
            rustix::fs::syncfs(&File::open(&work)?).map_err(io::Error::from)?;
            match fs::rename(&work, &place) {
                Err(_) if self.has_layer(chain) => Ok(()),
                Err(error) => Err(error.into()),
                // The index is about to say that it is there.
                Ok(()) => Ok(File::open(self.root.join("layers"))?.sync_all()?),
            }
        })();
        if work.exists() {
            let _ = fs::remove_dir_all(&work);
        }
        result
    }

    /// Enters an image whose layers are all unpacked. A tag leaves the image that had it before.
    fn enter(&self, id: &Digest, configuration: &Configuration, tags: &[String], digests: &[String]) -> Result<Image, StoreError> {
        let layers = chains(&configuration.rootfs.diff_ids);
        let size = layers.iter().filter_map(|chain| read_size(&self.layer_dir(chain))).sum();
        self.change(|index| {
            for record in index.images.values_mut() {
                record.tags.retain(|tag| !tags.contains(tag));
            }
            let record = index.images.entry(id.clone()).or_insert_with(|| Record {
                tags: BTreeSet::new(),
                digests: BTreeSet::new(),
                layers,
                size,
                defaults: configuration.config.clone().unwrap_or_default(),
                architecture: configuration.architecture.clone(),
            });
            record.tags.extend(tags.iter().cloned());
            record.digests.extend(digests.iter().cloned());
            Ok(image(id, record))
        })
    }
}

/// Chain ids of a stack of layers, lowest first.
fn chains(diffs: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diffs.len());
    for diff in diffs {
        chains.push(Digest::chain(chains.last(), diff));
    }
    chains
}

/// Half of the digits: paths of many layers must fit into one page of mount options, and 128 bits cannot be made to collide with another's layer.
fn directory_name(chain: &Digest) -> String {
    chain.hex()[..32].to_owned()
}

fn read_size(layer: &Path) -> Option<u64> {
    fs::read_to_string(layer.join("size")).ok()?.parse().ok()
}

/// Replaces a file as a whole, durably.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", blobs::unique()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    // The new name is on the disk when its directory is.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn image(id: &Digest, record: &Record) -> Image {
    Image {
        id: id.to_string(),
        tags: record.tags.iter().cloned().collect(),
        digests: record.digests.iter().cloned().collect(),
        size: record.size,
        user: record.defaults.user.clone(),
        entrypoint: record.defaults.entrypoint.clone(),
        cmd: record.defaults.cmd.clone(),
        working_dir: record.defaults.working_dir.clone(),
        env: record
            .defaults
            .env
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
        stop_signal: record.defaults.stop_signal.clone(),
    }
}
