//! Imports images from OCI layouts (a directory or a tar of one) and from tars of `docker save`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Digest, ImageStore, StoreError, UnpackError, blobs,
    blobs::BlobError,
    chains, layer,
    manifest::{self, CONFIG_BYTES, Configuration, Descriptor, LAYERS, MANIFEST_BYTES, Manifest},
};
use crate::Image;

/// Entries of an archive of images.
const ENTRIES: usize = 100_000;
/// Bytes of an archive after its own compression is undone.
const ARCHIVE_BYTES: u64 = 64 << 30;
/// Depth to which an index may hold indexes.
const NESTED: usize = 3;

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// it holds no image that fits
    #[error("{}: {what}", path.display())]
    Format {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// it could not be read
    #[error("could not read {}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// a blob does not hold what its name says
    #[error("an image of the archive is damaged")]
    Blob(#[from] BlobError),
    /// a layer could not be unpacked
    #[error("a layer of the archive could not be unpacked")]
    Unpack(#[from] UnpackError),
    /// the store
    #[error("the image store refused it")]
    Store(#[from] StoreError),
}

/// Where the files of an archive are.
enum Source {
    Directory(PathBuf),
    Archive { file: File, entries: HashMap<PathBuf, (u64, u64)> },
}

/// An image of an archive before its layers are unpacked.
struct Found {
    config: Vec<u8>,
    config_digest: Option<Digest>,
    layers: Vec<String>,
    tags: Vec<String>,
    manifest: Option<Digest>,
}

/// An entry of `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl ImageStore {
    /// Imports all images of `path` that are for this machine; `name` names them where the archive does not (or else its own name).
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImportError> {
        let _adding = self.adding()?;
        let source = self.source(path)?;
        let wrong = |what: String| ImportError::Format { path: path.to_owned(), what };
        let found = if let Some(bytes) = source.read("manifest.json", MANIFEST_BYTES).map_err(|e| unreadable(path, e))? {
            docker(&source, &bytes).map_err(wrong)?
        } else if let Some(bytes) = source.read("index.json", MANIFEST_BYTES).map_err(|e| unreadable(path, e))? {
            let index: Manifest = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("index.json: {e}")))?;
            let mut found = Vec::new();
            for descriptor in &index.manifests {
                found.extend(oci(&source, descriptor, &descriptor.annotations, 0).map_err(wrong)?);
            }
            found
        } else {
            return Err(wrong("neither an OCI layout (index.json) nor an archive of docker save (manifest.json)".into()));
        };
        if found.is_empty() {
            return Err(wrong(format!("holds no image for linux/{}", manifest::ARCHITECTURE)));
        }
        found.into_iter().map(|image| self.import_one(path, &source, image, name)).collect()
    }

    fn import_one(&self, path: &Path, source: &Source, found: Found, name: Option<&str>) -> Result<Image, ImportError> {
        let wrong = |what: String| ImportError::Format { path: path.to_owned(), what };
        let configuration: Configuration = serde_json::from_slice(&found.config).map_err(|e| wrong(format!("image configuration: {e}")))?;
        if !manifest::runs_here(&configuration.architecture) {
            return Err(wrong(format!("is for {}, this machine is {}", configuration.architecture, manifest::ARCHITECTURE)));
        }
        let diffs = &configuration.rootfs.diff_ids;
        if diffs.len() != found.layers.len() || diffs.len() > LAYERS {
            return Err(wrong(format!(
                "{} layers for {} entries of diff_ids; up to {LAYERS} are possible",
                found.layers.len(),
                diffs.len()
            )));
        }
        let (id, _) = self.blobs.store(&found.config[..], found.config_digest.as_ref(), CONFIG_BYTES)?;
        for ((chain, diff), file) in chains(diffs).iter().zip(diffs).zip(&found.layers) {
            if !self.has_layer(chain) {
                let reader =
                    source.open(file).map_err(|e| unreadable(path, e))?.ok_or_else(|| wrong(format!("layer {file} is missing")))?;
                self.add_layer(chain, diff, reader)?;
            }
        }
        let named = match (name, found.tags.is_empty()) {
            (Some(name), _) => vec![name.to_owned()],
            (None, false) => found.tags,
            (None, true) => Vec::new(),
        };
        let tags = named.iter().map(|tag| super::normalise(tag)).collect::<Result<Vec<_>, _>>()?;
        let digests = match (&found.manifest, tags.first()) {
            (Some(digest), Some(tag)) => {
                let name = super::reference(tag)?;
                vec![format!("{}@{digest}", name.name())]
            }
            _ => Vec::new(),
        };
        Ok(self.enter(&id, &configuration, &tags, &digests)?)
    }

    fn source(&self, path: &Path) -> Result<Source, ImportError> {
        let unread = |source| unreadable(path, source);
        if fs::metadata(path).map_err(unread)?.is_dir() {
            return Ok(Source::Directory(path.to_owned()));
        }
        let mut file = File::open(path).map_err(unread)?;
        let mut magic = [0; 4];
        let n = file.read(&mut magic).map_err(unread)?;
        file.seek(SeekFrom::Start(0)).map_err(unread)?;
        if matches!(magic[..n], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            // Its entries are read in any order, so it is laid down plain first; the file has no name, so it cannot stay behind.
            let plain = self.root.join("incoming").join(blobs::unique());
            let mut whole = File::options().read(true).write(true).create_new(true).open(&plain).map_err(unread)?;
            let limit = self.limits().map_err(unread)?.bytes.min(ARCHIVE_BYTES);
            let copied = fs::remove_file(&plain)
                .and_then(|()| io::copy(&mut layer::decompressed(file)?.take(limit + 1), &mut whole))
                .map_err(unread)?;
            if copied > limit {
                return Err(ImportError::Format { path: path.to_owned(), what: format!("unpacks to more than {limit} bytes") });
            }
            whole.seek(SeekFrom::Start(0)).map_err(unread)?;
            file = whole;
        }
        let mut entries = HashMap::new();
        let mut archive = tar::Archive::new(io::BufReader::new(&mut file));
        for entry in archive.entries_with_seek().map_err(unread)? {
            let entry = entry.map_err(unread)?;
            if entries.len() == ENTRIES {
                return Err(ImportError::Format { path: path.to_owned(), what: format!("holds more than {ENTRIES} files") });
            }
            if entry.header().entry_type().is_file() {
                let name = entry.path().map_err(unread)?.components().filter(|part| *part != Component::CurDir).collect();
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            } else if let (true, Some(target)) = (entry.header().entry_type().is_symlink(), entry.link_name().map_err(unread)?) {
                // Old archives of docker save link a layer that occurs twice.
                let name: PathBuf = entry.path().map_err(unread)?.into_owned();
                let target = name.parent().unwrap_or(Path::new("")).join(target);
                let mut clean = PathBuf::new();
                for part in target.components() {
                    match part {
                        Component::ParentDir => _ = clean.pop(),
                        part => clean.push(part),
                    }
                }
                if let Some(place) = entries.get(&clean).copied() {
                    entries.insert(name, place);
                }
            }
        }
        drop(archive);
        Ok(Source::Archive { file, entries })
    }
}

fn unreadable(path: &Path, source: io::Error) -> ImportError {
    ImportError::Read { path: path.to_owned(), source }
}

impl Source {
    /// A file by its name in the archive; `None` when there is none. Names that lead out are none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read + Send + '_>>> {
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(None);
        }
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                match fs::symlink_metadata(&path) {
                    Ok(meta) if meta.is_file() => Ok(Some(Box::new(File::open(path)?))),
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Self::Archive { file, entries } => match entries.get(name) {
                None => Ok(None),
                Some((start, size)) => {
                    let mut file = file.try_clone()?;
                    file.seek(SeekFrom::Start(*start))?;
                    Ok(Some(Box::new(file.take(*size))))
                }
            },
        }
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(reader) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(io::Error::other(format!("{name} has more than {limit} bytes"))) } else { Ok(Some(bytes)) }
    }

    fn must(&self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        self.read(name, limit).map_err(|e| format!("{name}: {e}"))?.ok_or_else(|| format!("{name} is missing"))
    }
}

fn docker(source: &Source, bytes: &[u8]) -> Result<Vec<Found>, String> {
    let saved: Vec<Saved> = serde_json::from_slice(bytes).map_err(|e| format!("manifest.json: {e}"))?;
    let found = |image: Saved| {
        let config = source.must(&image.config, CONFIG_BYTES)?;
        Ok(Found { config, config_digest: None, layers: image.layers, tags: image.repo_tags.unwrap_or_default(), manifest: None })
    };
    saved.into_iter().map(found).collect()
}

fn oci(
    source: &Source,
    descriptor: &Descriptor,
    names: &std::collections::BTreeMap<String, String>,
    depth: usize,
) -> Result<Vec<Found>, String> {
    if manifest::for_this_machine(std::slice::from_ref(descriptor)).is_none() {
        return Ok(Vec::new());
    }
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let bytes = source.must(&blob(&descriptor.digest), MANIFEST_BYTES)?;
    if Digest::of(&bytes) != descriptor.digest {
        return Err(format!("{} has other content than its name promises", blob(&descriptor.digest)));
    }
    let read: Manifest = serde_json::from_slice(&bytes).map_err(|e| format!("manifest {}: {e}", descriptor.digest))?;
    let Some(config) = read.config else {
        if depth == NESTED {
            return Err(format!("an index within more than {NESTED} others"));
        }
        let Some(ours) = manifest::for_this_machine(&read.manifests) else { return Ok(Vec::new()) };
        return oci(source, ours, names, depth + 1);
    };
    // The annotation of the specification may be a bare tag; containerd's is a full name.
    let full = names.get("io.containerd.image.name");
    let name = full.or_else(|| names.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
    Ok(vec![Found {
        config: source.must(&blob(&config.digest), CONFIG_BYTES)?,
        config_digest: Some(config.digest),
        layers: read.layers.iter().map(|layer| blob(&layer.digest)).collect(),
        tags: name.into_iter().cloned().collect(),
        manifest: Some(descriptor.digest.clone()),
    }])
}
