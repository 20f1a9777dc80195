//! The sockets at which the node listens: at a place that all nodes of a machine share, so that one that is in use is left alone.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _},
        net::UnixStream,
    },
    path::Path,
};

use tokio::net::UnixListener;

/// Their name, whoever listens for what.
pub const NAME: &str = "kubelet.sock";

/// Listens in `dir`, which is made. A socket that nobody listens at any more is replaced.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    let path = dir.join(NAME);
    if UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another node of this machine listens there"));
    }
    // Plugins connect when they see it, which is before it listens if it is made in its place.
    let fresh = dir.join(format!(".{NAME}"));
    remove(&fresh)?;
    let listener = UnixListener::bind(&fresh)?;
    fs::rename(fresh, path)?;
    Ok(listener)
}

/// Removes the sockets of plugins that registered with the agent before: seeing them go, they come again.
pub fn remove_others(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() && entry.file_name() != NAME {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file that may be gone already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("device-plugins");
        let first = listen(&dir).expect("listens");
        let other = UnixListener::bind(dir.join("plugin.sock")).expect("listens");
        fs::write(dir.join("file"), "").expect("written");
        assert_eq!(listen(&dir).map(drop).map_err(|e| e.kind()), Err(io::ErrorKind::AddrInUse));
        drop(first);
        let _second = listen(&dir).expect("listens");
        remove_others(&dir).expect("removed");
        drop(other);
        let mut left: Vec<_> = fs::read_dir(&dir).expect("listed").map(|e| e.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", NAME]);
    }
}
