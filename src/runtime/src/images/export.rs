//! Exports images into an archive that is an OCI layout and an archive of `docker save` at once.
//!
//! Layers are kept unpacked, so they are packed anew: the same files by other bytes, and so the image has another id where it arrives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::{
    Digest, ImageStore, Record, StoreError,
    blobs::{BlobError, BlobWriter},
    layer::LAYER_BYTES,
    manifest::{CONFIG_BYTES, Configuration, Layers},
};

/// Bytes of the list of a file's extended attributes: the kernel's own bound.
const ATTRIBUTES_BYTES: usize = 64 << 10;

/// Why an image was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// it is not here
    #[error("there is no image {0}")]
    Unknown(String),
    /// a layer could not be read, or the archive not written
    #[error("could not export to {}", path.display())]
    Io {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// a packed layer could not be laid down
    #[error("a layer could not be packed")]
    Blob(#[from] BlobError),
    /// the store
    #[error("the image store does not give it")]
    Store(#[from] StoreError),
}

/// A layer, packed.
struct Packed {
    digest: Digest,
    bytes: u64,
    /// It has no name any more.
    file: File,
}

impl ImageStore {
    /// Writes these images to `path`, which is replaced when it is whole.
    pub fn export(&self, names: &[String], path: &Path) -> Result<(), ExportError> {
        let _adding = self.adding()?;
        let mut images: BTreeMap<Digest, Record> = BTreeMap::new();
        for name in names {
            let (id, record) = self.record(name)?.ok_or_else(|| ExportError::Unknown(name.clone()))?;
            // By the names that were asked for; who asks by id or digest gets all.
            let full = super::normalise(name).unwrap_or_default();
            let asked = if record.tags.contains(&full) { BTreeSet::from([full]) } else { record.tags.clone() };
            images.entry(id).or_insert_with(|| Record { tags: BTreeSet::new(), ..record }).tags.extend(asked);
        }
        let failed = |source| ExportError::Io { path: path.to_owned(), source };
        let temporary = path.with_extension(format!("new-{}", super::blobs::unique()));
        let written = (|| {
            let file = File::options().write(true).create_new(true).open(&temporary).map_err(failed)?;
            let mut archive = Archive { tar: tar::Builder::new(io::BufWriter::new(file)), blobs: HashMap::new(), layers: HashMap::new() };
            archive.images(self, &images).map_err(|error| match error {
                Failure::Io(source) => failed(source),
                Failure::Blob(error) => error.into(),
            })?;
            let file =
                archive.tar.into_inner().and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error)).map_err(failed)?;
            file.sync_all().and_then(|()| fs::rename(&temporary, path)).map_err(failed)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Blob(BlobError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        Self::Blob(error)
    }
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    /// What is in it already.
    blobs: HashMap<Digest, ()>,
    /// Packed layers by their chain: shared ones are packed once.
    layers: HashMap<Digest, (Digest, u64)>,
}

impl<W: Write> Archive<W> {
    fn images(&mut self, store: &ImageStore, images: &BTreeMap<Digest, Record>) -> Result<(), Failure> {
        self.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let (mut entries, mut saved) = (Vec::new(), Vec::new());
        for (id, record) in images {
            let (entry, old) = self.image(store, id, record)?;
            entries.extend(entry);
            saved.push(old);
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        self.put("index.json", index.to_string().as_bytes())?;
        self.put("manifest.json", Value::from(saved).to_string().as_bytes())
    }

    /// An image's entries of index.json (one per name) and of manifest.json.
    fn image(&mut self, store: &ImageStore, id: &Digest, record: &Record) -> Result<(Vec<Value>, Value), Failure> {
        let mut layers = Vec::new();
        for chain in &record.layers {
            if !self.layers.contains_key(chain) {
                let packed = pack(store, &store.layer_dir(chain).join("fs"))?;
                self.blob(&packed.digest, packed.bytes, packed.file)?;
                self.layers.insert(chain.clone(), (packed.digest, packed.bytes));
            }
            layers.extend(self.layers.get(chain).cloned());
        }
        let diffs: Vec<Digest> = layers.iter().map(|(digest, _)| digest.clone()).collect();
        let config = configuration(store, id, record, diffs).to_string();
        let config_digest = Digest::of(config.as_bytes());
        self.blob(&config_digest, config.len() as u64, config.as_bytes())?;
        let described = |kind: &str, digest: &Digest, bytes: u64| json!({"mediaType": kind, "digest": digest, "size": bytes});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.oci.image.config.v1+json", &config_digest, config.len() as u64),
            "layers": layers.iter().map(|(digest, bytes)| described("application/vnd.oci.image.layer.v1.tar", digest, *bytes)).collect::<Vec<_>>(),
        })
        .to_string();
        let manifest_digest = Digest::of(manifest.as_bytes());
        self.blob(&manifest_digest, manifest.len() as u64, manifest.as_bytes())?;
        let mut entry = described("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len() as u64);
        entry["platform"] =
            json!({"os": "linux", "architecture": if record.architecture.is_empty() { super::ARCHITECTURE } else { &record.architecture }});
        let mut entries: Vec<Value> = record.tags.iter().map(|tag| named(&entry, tag)).collect();
        if entries.is_empty() {
            entries.push(entry);
        }
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let paths: Vec<String> = layers.iter().map(|(digest, _)| path(digest)).collect();
        Ok((entries, json!({"Config": path(&config_digest), "RepoTags": record.tags, "Layers": paths})))
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.file(name, bytes.len() as u64, bytes)
    }

    fn blob(&mut self, digest: &Digest, bytes: u64, content: impl io::Read) -> Result<(), Failure> {
        if self.blobs.insert(digest.clone(), ()).is_some() {
            return Ok(());
        }
        self.file(&format!("blobs/sha256/{}", digest.hex()), bytes, content)
    }

    fn file(&mut self, name: &str, bytes: u64, content: impl io::Read) -> Result<(), Failure> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes);
        Ok(self.tar.append_data(&mut header, name, content)?)
    }
}

/// The names that podman and containerd read.
fn named(entry: &Value, tag: &str) -> Value {
    let mut entry = entry.clone();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag});
    entry
}

/// The configuration as it came, with the new layers; what is known of it, when it is damaged.
fn configuration(store: &ImageStore, id: &Digest, record: &Record, diff_ids: Vec<Digest>) -> Value {
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let came = store.blobs.read(id, CONFIG_BYTES).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    if let Some(mut config) = came.filter(Value::is_object) {
        config["rootfs"] = rootfs;
        return config;
    }
    let known = Configuration {
        architecture: record.architecture.clone(),
        os: "linux".to_owned(),
        config: Some(record.defaults.clone()),
        rootfs: Layers { kind: "layers".to_owned(), diff_ids },
    };
    serde_json::to_value(known).unwrap_or_else(|_| json!({"rootfs": rootfs}))
}

/// Packs a layer's directory: the same files give the same bytes.
fn pack(store: &ImageStore, root: &Path) -> Result<Packed, Failure> {
    let writer = store.blobs.writer(LAYER_BYTES).map_err(BlobError::Io)?;
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, Laid(writer)));
    let mut links = HashMap::new();
    add(&mut tar, root, Path::new(""), &mut links)?;
    let laid = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    let (digest, bytes) = laid.0.commit(None)?;
    let file = store.blobs.open_blob(&digest)?;
    store.blobs.remove(&digest)?;
    Ok(Packed { digest, bytes, file })
}

struct Laid(BlobWriter);

impl Write for Laid {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds what is in a directory, and the directory itself before it.
fn add(tar: &mut tar::Builder<impl Write>, root: &Path, dir: &Path, links: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let full = root.join(&dir);
        let mut names: Vec<_> = fs::read_dir(&full)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
        names.sort_unstable();
        if attribute(&full, "trusted.overlay.opaque")?.is_some() {
            whiteout(tar, &dir.join(".wh..wh..opq"))?;
        }
        for name in names {
            let path = dir.join(&name);
            let meta = fs::symlink_metadata(root.join(&path))?;
            entry(tar, root, &path, &meta, links)?;
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(())
}

fn whiteout(tar: &mut tar::Builder<impl Write>, path: &Path) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    tar.append_data(&mut header, path, io::empty())
}

fn entry(
    tar: &mut tar::Builder<impl Write>,
    root: &Path,
    path: &Path,
    meta: &fs::Metadata,
    links: &mut HashMap<u64, PathBuf>,
) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_char_device() && meta.rdev() == 0 {
        let mut hidden = std::ffi::OsString::from(".wh.");
        hidden.push(path.file_name().unwrap_or_default());
        return whiteout(tar, &path.with_file_name(hidden));
    }
    let mut header = Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        return tar.append_link(&mut header, path, fs::read_link(root.join(path))?);
    }
    if meta.is_file() && meta.nlink() > 1 {
        if let Some(first) = links.get(&meta.ino()) {
            header.set_entry_type(EntryType::Link);
            return tar.append_link(&mut header, path, first);
        }
        links.insert(meta.ino(), path.to_owned());
    }
    let kept = kept_attributes(&root.join(path))?;
    tar.append_pax_extensions(kept.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
    if meta.is_dir() {
        header.set_entry_type(EntryType::Directory);
        let mut name = path.as_os_str().to_owned();
        name.push("/");
        return tar.append_data(&mut header, name, io::empty());
    }
    if meta.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(meta.len());
        return tar.append_data(&mut header, path, File::open(root.join(path))?);
    }
    let device = |kind| {
        let mut header = header.clone();
        header.set_entry_type(kind);
        header.set_device_major(rustix::fs::major(meta.rdev()))?;
        header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        io::Result::Ok(header)
    };
    let mut header = if kind.is_char_device() {
        device(EntryType::Char)?
    } else if kind.is_block_device() {
        device(EntryType::Block)?
    } else {
        device(EntryType::Fifo)?
    };
    tar.append_data(&mut header, path, io::empty())
}

/// Attributes that an image may have, under the names that archives give them.
fn kept_attributes(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; ATTRIBUTES_BYTES];
    let n = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut out = BTreeMap::new();
    for name in names[..n].split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if (name == "security.capability" || name.starts_with("user."))
            && let Some(value) = attribute(path, name)?
        {
            out.insert(format!("SCHILY.xattr.{name}"), value);
        }
    }
    Ok(out)
}

fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; ATTRIBUTES_BYTES];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(n) => {
            value.truncate(n);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
