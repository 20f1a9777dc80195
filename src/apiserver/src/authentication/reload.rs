//! Follows the authentication configuration: a change of the file counts at once, a mistake in it changes nothing.

use std::{io, path::Path, sync::Arc};

use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::configuration;
use crate::server::Shared;

/// Bytes of one read of events; each has some 20 and a name.
const EVENT_BYTES: usize = 4096;

/// Follows the file until `stop`.
pub(crate) async fn follow(shared: Arc<Shared>, file: std::path::PathBuf, stop: CancellationToken) {
    let mut seen = std::fs::read(&file).unwrap_or_default();
    let mut changes = match watch(&file) {
        Ok(changes) => changes,
        Err(error) => return tracing::error!(file = %file.display(), %error, "changes of the authentication configuration are not seen"),
    };
    // What changed before somebody looked.
    take(&shared, &file, &mut seen);
    while let Some(event) = stop.run_until_cancelled(changed(&mut changes)).await {
        match event {
            Ok(()) => take(&shared, &file, &mut seen),
            Err(error) => {
                return tracing::error!(file = %file.display(), %error, "changes of the authentication configuration are not seen");
            }
        }
    }
}

fn take(shared: &Shared, file: &Path, seen: &mut Vec<u8>) {
    // In the middle of a replacement it may be gone: its return is an event of its own.
    let Ok(now) = std::fs::read(file) else { return };
    if now == *seen {
        return;
    }
    let authenticator = &shared.authenticator;
    match configuration::read(file, authenticator.own_audience()) {
        Ok(checked) => {
            let issuers = checked.document.jwt.len();
            match authenticator.configure(checked) {
                Ok(()) => tracing::info!(file = %file.display(), issuers, "the authentication configuration is taken"),
                Err(error) => {
                    tracing::error!(file = %file.display(), error = &error as &dyn std::error::Error, "the authentication configuration stays as it was")
                }
            }
        }
        Err(error) => {
            tracing::error!(file = %file.display(), error = &error as &dyn std::error::Error, "the authentication configuration stays as it was")
        }
    }
    *seen = now;
}

/// Looks at the directory of the file: editors and mounted ConfigMaps put a new one in the place of the old.
fn watch(file: &Path) -> io::Result<AsyncFd<Inotify>> {
    let inotify = Inotify::init()?;
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    inotify.watches().add(directory, WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    // SAFETY: an `Inotify` has one descriptor, which it owns until it is dropped, after the `AsyncFd` around it.
    unsafe { AsyncFd::register(inotify) }.map_err(Into::into)
}

async fn changed(changes: &mut AsyncFd<Inotify>) -> io::Result<()> {
    let mut buffer = [0; EVENT_BYTES];
    loop {
        let mut ready = changes.readable_mut().await?;
        match ready.try_io(|inotify| inotify.get_mut().read_events(&mut buffer).map(drop)) {
            Ok(read) => return read,
            Err(_would_block) => {}
        }
    }
}
