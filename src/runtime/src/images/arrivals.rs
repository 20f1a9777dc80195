//! Images that come by themselves: archives that are put into a directory, and changes of the store by other processes. Told by the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use serde::{Deserialize, Serialize};
use tokio::{io::unix::AsyncFd, task::JoinHandle};

use super::{ImageStore, StoreError, failed, write_atomically};
use crate::causes::causes;

/// Bytes of events that are read at once: some hundred.
const EVENT_BYTES: usize = 16 * 1024;
/// Archives that are remembered; the rest are looked into again at the next start.
const REMEMBERED: usize = 4096;
/// What was taken in, beside the index.
const TAKEN: &str = "archives.json";
/// How the names of archives end. Compression is told by their first bytes.
const ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];

/// An archive as it was when its images were taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    bytes: u64,
    inode: u64,
    /// Seconds and nanoseconds of its last change.
    changed: (i64, i64),
    images: Vec<String>,
}

/// Follows both directories until it is dropped.
#[derive(Debug)]
pub(crate) struct Arrivals(JoinHandle<()>);

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Imports what is in `archives` and what comes there, and tells of every change of the store's index.
pub(crate) fn follow(
    store: Arc<ImageStore>,
    archives: PathBuf,
    changed: impl Fn() + Send + Sync + 'static,
) -> Result<Arrivals, StoreError> {
    fs::create_dir_all(&archives).map_err(failed("make", &archives))?;
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| failed("follow", &archives)(e.into()))?;
    let watch = |path: &Path, flags| inotify::add_watch(&fd, path, flags).map_err(|e| failed("follow", path)(e.into()));
    let index = watch(&store.root, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
    // A file that is still being written is not closed, and one that is renamed is whole.
    watch(&archives, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
    // SAFETY: the descriptor is owned, open, and closed only when the `AsyncFd` that owns it goes.
    let fd = unsafe { AsyncFd::register(fd) }.map_err(|e| failed("follow", &archives)(e.into()))?;
    Ok(Arrivals(tokio::spawn(run(store, archives, fd, index, changed))))
}

async fn run(store: Arc<ImageStore>, archives: PathBuf, mut fd: AsyncFd<OwnedFd>, index: i32, changed: impl Fn()) {
    let mut waiting = present(&archives);
    let mut importing: Option<JoinHandle<()>> = None;
    loop {
        if importing.is_none()
            && let Some(name) = waiting.pop_first()
        {
            let (store, path) = (Arc::clone(&store), archives.join(&name));
            importing = Some(tokio::task::spawn_blocking(move || take(&store, &name, &path)));
        }
        let done = async {
            match &mut importing {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = done => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the import of an archive broke off");
                }
                importing = None;
            }
            ready = fd.readable_mut() => {
                let Ok(mut ready) = ready else { return tracing::error!("archives of images are not followed any more") };
                match read(ready.get_inner(), index) {
                    Ok(News { index, names, lost }) => {
                        if index || lost {
                            changed();
                        }
                        waiting.extend(names.into_iter().filter(|name| is_archive(name)));
                        if lost {
                            waiting.extend(present(&archives));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    Err(error) => return tracing::error!(%error, "archives of images are not followed any more"),
                }
            }
        }
    }
}

#[derive(Default)]
struct News {
    index: bool,
    names: BTreeSet<String>,
    lost: bool,
}

/// All events that are there now.
fn read(fd: &OwnedFd, index: i32) -> io::Result<News> {
    let mut buffer = [const { MaybeUninit::uninit() }; EVENT_BYTES];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut news = News::default();
    loop {
        let event = reader.next()?;
        news.lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
        if event.wd() == index {
            news.index |= name == "index.json";
        } else if !name.is_empty() {
            news.names.insert(name.to_owned());
        }
        if reader.is_buffer_empty() {
            return Ok(news);
        }
    }
}

fn is_archive(name: &str) -> bool {
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn present(archives: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(archives).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_archive(name)).collect()
}

/// Takes one archive in, unless it is as it was the last time and its images are still here.
fn take(store: &ImageStore, name: &str, path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    if !meta.is_file() {
        return;
    }
    let mut known = taken(store);
    let now = |images| Taken { bytes: meta.len(), inode: meta.ino(), changed: (meta.mtime(), meta.mtime_nsec()), images };
    if let Some(before) = known.get(name)
        && *before == now(before.images.clone())
        && before.images.iter().all(|id| store.get(id).is_ok_and(|image| image.is_some()))
    {
        return;
    }
    match store.import(path, None) {
        Ok(images) => {
            let names: Vec<_> = images.iter().flat_map(|image| &image.tags).map(String::as_str).collect();
            tracing::info!(archive = %path.display(), images = names.join(", "), "images are taken from an archive");
            known.retain(|name, _| path.with_file_name(name).exists());
            if known.len() < REMEMBERED {
                known.insert(name.to_owned(), now(images.into_iter().map(|image| image.id).collect()));
            }
            let written =
                serde_json::to_vec(&known).map_err(io::Error::other).and_then(|bytes| write_atomically(&store.root.join(TAKEN), &bytes));
            if let Err(error) = written {
                tracing::warn!(%error, "which archives were taken in is not remembered");
            }
        }
        Err(error) => {
            tracing::error!(archive = %path.display(), error = causes(&error), "an archive of images is not taken in");
        }
    }
}

/// What is remembered; when it is not to be read, nothing: an archive too many is looked into then.
fn taken(store: &ImageStore) -> BTreeMap<String, Taken> {
    fs::read(store.root.join(TAKEN)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
