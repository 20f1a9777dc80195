//! Secret files: written whole or not at all, readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Only the owner may read and write a secret.
const SECRET_MODE: u32 = 0o600;
/// Only the owner may look into the directory of secrets.
const DIRECTORY_MODE: u32 = 0o700;

/// Makes the directory and its parents.
pub(crate) fn make_directory(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir)
}

/// Writes `path` so that after a power loss it has all of `content` or is as it was. The caller syncs the directory, once for many files.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    // A draft that a crash left behind may be of another mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET_MODE).open(&draft)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The content, or `None` for a file that does not exist.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
