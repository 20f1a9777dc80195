//! An image of one static binary: what `coracle demo` runs, with no registry at hand.

use std::{fs::File, io, path::Path};

use super::{
    Digest, ImageStore, ImportError,
    blobs::BlobError,
    layer::LAYER_BYTES,
    manifest::{self, CONFIG_BYTES, Configuration, Defaults, Layers},
};
use crate::Image;

/// What /etc/passwd of such an image says.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
/// What /etc/group of such an image says.
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Makes (or finds) the image `name` whose entry point is the file `binary`, at `/bin/<its name>`. The same binary gives the same image.
pub fn from_binary(store: &ImageStore, name: &str, binary: &Path, defaults: &Defaults) -> Result<Image, ImportError> {
    let unread = |source| ImportError::Read { path: binary.to_owned(), source };
    let tag = super::normalise(name)?;
    let _adding = store.adding()?;
    let file_name = binary.file_name().and_then(|name| name.to_str()).unwrap_or("program");
    let mut file = File::open(binary).map_err(unread)?;

    let mut writer = Layered(store.blobs.writer(LAYER_BYTES).map_err(BlobError::Io)?);
    let mut tar = tar::Builder::new(&mut writer);
    tar.mode(tar::HeaderMode::Deterministic);
    let put = |tar: &mut tar::Builder<&mut Layered>, path: &str, mode: u32, kind: tar::EntryType, bytes: u64, data: &mut dyn io::Read| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, data)
    };
    let written = (|| {
        for (path, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777)] {
            put(&mut tar, path, mode, tar::EntryType::Directory, 0, &mut io::empty())?;
        }
        for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
            put(&mut tar, path, 0o644, tar::EntryType::Regular, text.len() as u64, &mut text.as_bytes())?;
        }
        let bytes = file.metadata()?.len();
        put(&mut tar, &format!("bin/{file_name}"), 0o755, tar::EntryType::Regular, bytes, &mut file)?;
        tar.finish()
    })();
    drop(tar);
    written.map_err(unread)?;
    let (diff, _) = writer.0.commit(None)?;

    let mut defaults = defaults.clone();
    if defaults.entrypoint.is_empty() {
        defaults.entrypoint = vec![format!("/bin/{file_name}")];
    }
    let configuration = Configuration {
        architecture: manifest::ARCHITECTURE.to_owned(),
        os: "linux".to_owned(),
        config: Some(defaults),
        rootfs: Layers { kind: "layers".to_owned(), diff_ids: vec![diff.clone()] },
    };
    let bytes =
        serde_json::to_vec(&configuration).map_err(|error| ImportError::Format { path: binary.to_owned(), what: error.to_string() })?;
    let (id, _) = store.blobs.store(&bytes[..], None, CONFIG_BYTES)?;
    let layer = store.blobs.open_blob(&diff).map_err(unread)?;
    store.add_layer(&Digest::chain(None, &diff), &diff, layer)?;
    store.blobs.remove(&diff).map_err(BlobError::Io)?;
    Ok(store.enter(&id, &configuration, &[tag], &[])?)
}

struct Layered(super::blobs::BlobWriter);

impl io::Write for Layered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
