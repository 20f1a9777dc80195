//! The key file: the keys that values are sealed under, the one that writes first. It is replaced as a whole, and synced before a key is used.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    envelope::Key,
    wrap::{KeyWrapper, WrapError},
};

/// Bytes of a key file: some hundred keys, of which two are usual.
const MAX_BYTES: u64 = 64 << 10;

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not read.
    #[error("the key file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not written.
    #[error("the key file {path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("the key file {path} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It is gone, and values are sealed under its keys.
    #[error("the key file {path} is missing, but there are values sealed under {id}; restore it from a backup")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key of one such value.
        id: String,
    },
    /// The service that keeps the keys.
    #[error("the key file {path} cannot be used")]
    Wrapper {
        /// The file.
        path: PathBuf,
        /// Its word.
        #[source]
        source: WrapError,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: Vec<Written>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    wrapper: String,
    key: String,
}

/// The keys of a file, the one that writes first; `None` when there is no file.
pub async fn read(path: &Path, wrapper: &dyn KeyWrapper) -> Result<Option<Vec<Arc<Key>>>, KeyFileError> {
    let damaged = |what: String| KeyFileError::Damaged { path: path.to_owned(), what };
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if size > MAX_BYTES {
        return Err(damaged(format!("it has {size} bytes, the bound is {MAX_BYTES}")));
    }
    // What serde says of a wrong value would show it: a place is enough.
    let document: Document = serde_json::from_slice(&fs::read(path).map_err(failed)?)
        .map_err(|error| damaged(format!("it is not as it was written from line {} on", error.line())))?;
    let mut keys = Vec::with_capacity(document.keys.len());
    for written in document.keys {
        let Written { id, wrapper: by, key } = written;
        if by != wrapper.name() {
            return Err(damaged(format!("key {id:?} is kept by {by:?}, which this server does not use")));
        }
        let wrapped = STANDARD.decode(&key).map_err(|_| damaged(format!("key {id:?} is not base64")))?;
        let bytes = wrapper.unwrap(&wrapped).await.map_err(|source| KeyFileError::Wrapper { path: path.to_owned(), source })?;
        let key =
            Key::of(&bytes).filter(|key| key.id == id).ok_or_else(|| damaged(format!("key {id:?} is not the one that was written")))?;
        keys.push(Arc::new(key));
    }
    if keys.is_empty() { Err(damaged("it has no key".into())) } else { Ok(Some(keys)) }
}

/// Puts these keys into the file; after it they outlive a power loss.
pub async fn write(path: &Path, wrapper: &dyn KeyWrapper, keys: &[Arc<Key>]) -> Result<(), KeyFileError> {
    let mut document = Document { keys: Vec::with_capacity(keys.len()) };
    for key in keys {
        let wrapped = wrapper.wrap(key.bytes()).await.map_err(|source| KeyFileError::Wrapper { path: path.to_owned(), source })?;
        document.keys.push(Written { id: key.id.clone(), wrapper: wrapper.name().to_owned(), key: STANDARD.encode(wrapped) });
    }
    let text = serde_json::to_vec_pretty(&document).unwrap_or_default();
    replace(path, &text).map_err(|source| KeyFileError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    fs::File::open(directory)?.sync_all()
}
