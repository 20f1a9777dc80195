//! The manifests of a directory (or one file), read again when something there changes.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_api::decode::MAX_BODY_BYTES;
use inotify::{EventMask, Inotify, WatchMask};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::unix::AsyncFd;

use super::manifest;
use crate::{context::chain, pod::spec};

/// Files that are read: far more than a node has static pods.
const FILES: usize = 1000;
/// Bytes of events that are read at once; more come with the next read.
const EVENT_BYTES: usize = 4096;

/// Manifests on the disk, and the pods that they made.
pub struct Directory {
    path: PathBuf,
    node: String,
    held: BTreeMap<PathBuf, Arc<Pod>>,
    inotify: AsyncFd<Inotify>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Directory {
    /// Watches `path`: a file, or a directory, which is made when it is not there.
    pub fn open(path: PathBuf, node: String) -> io::Result<Self> {
        let inotify = watch(&path)?;
        Ok(Self { path, node, held: BTreeMap::new(), inotify })
    }

    /// The pods of all manifests by namespace and name. What cannot be read is told and left out; a file that was good and is not now (it may
    /// be half written) stays what it was.
    pub fn read(&mut self, now: Timestamp) -> BTreeMap<String, Arc<Pod>> {
        let mut before = std::mem::take(&mut self.held);
        for file in self.files() {
            let old = before.remove(&file);
            match self.file(&file, now) {
                Ok(None) => {}
                Ok(Some(pod)) => {
                    // The same content was seen at the same time.
                    let same = old.filter(|old| spec::uid(old) == spec::uid(&pod));
                    self.held.insert(file, same.unwrap_or_else(|| Arc::new(pod)));
                }
                Err(why) => {
                    tracing::error!(file = %file.display(), why, "the manifest makes no static pod");
                    self.held.extend(old.map(|old| (file, old)));
                }
            }
        }
        // Of two manifests for one name the last file counts.
        self.held.values().map(|pod| (spec::full_name(pod), pod.clone())).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        if self.path.is_file() {
            return vec![self.path.clone()];
        }
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, directory = %self.path.display(), "no manifests are read");
                return Vec::new();
            }
        };
        let shown = |name: &OsStr| !name.as_encoded_bytes().starts_with(b".");
        let mut files: Vec<PathBuf> = entries.flatten().filter(|e| shown(&e.file_name())).map(|e| e.path()).take(FILES).collect();
        files.sort();
        files
    }

    /// `None`: there is nothing (yet).
    fn file(&self, path: &Path, now: Timestamp) -> Result<Option<Pod>, String> {
        let kind = match fs::metadata(path) {
            Ok(meta) => meta.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if !kind.is_file() {
            return Err("it is not a file".to_owned());
        }
        let mut content = Vec::new();
        let limit = MAX_BODY_BYTES as u64 + 1;
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut content)).map_err(|error| error.to_string())?;
        if content.is_empty() {
            return Ok(None);
        }
        manifest::pod(&content, path, &self.node, now).map(Some).map_err(|error| chain(&error))
    }

    /// Waits until something has changed.
    pub async fn changed(&mut self) {
        let mut buffer = [0; EVENT_BYTES];
        loop {
            let Ok(mut ready) = self.inotify.readable_mut().await else { return std::future::pending().await };
            let read = ready.try_io(|fd| {
                let events = fd.get_mut().read_events(&mut buffer)?;
                Ok(events.fold((false, false), |(changed, lost), event| {
                    // A file that is made is looked at when it is written; a link is whole at once.
                    let made = event.mask.contains(EventMask::CREATE);
                    let link = || event.name.is_some_and(|name| self.path.join(name).is_symlink());
                    (changed || !made || link(), lost || event.mask.contains(EventMask::IGNORED))
                }))
            });
            match read {
                Ok(Ok((_, true))) => return self.begin_anew(),
                Ok(Ok((true, false))) => return,
                Ok(Ok((false, false))) | Err(_) => {}
                Ok(Err(error)) => tracing::error!(%error, "a change of the manifests is not seen"),
            }
        }
    }

    /// The directory itself went.
    fn begin_anew(&mut self) {
        match watch(&self.path) {
            Ok(inotify) => self.inotify = inotify,
            Err(error) => tracing::error!(%error, directory = %self.path.display(), "the manifests are no longer watched"),
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<Inotify>> {
    let place = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    if !place.exists() {
        fs::create_dir_all(place)?;
    }
    let inotify = Inotify::init()?;
    let changes = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO;
    inotify.watches().add(place, changes)?;
    // SAFETY: an `Inotify` has one descriptor, which it owns until it is dropped, after the `AsyncFd` around it.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn manifest(image: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n")
    }

    fn names(pods: &BTreeMap<String, Arc<Pod>>) -> Vec<&str> {
        pods.keys().map(String::as_str).collect()
    }

    async fn next(directory: &mut Directory) -> BTreeMap<String, Arc<Pod>> {
        tokio::time::timeout(Duration::from_secs(10), directory.changed()).await.expect("a change is seen");
        directory.read(Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("manifests");
        let mut directory = Directory::open(path.clone(), "n".to_owned()).expect("it is made and watched");
        assert!(directory.read(Timestamp::UNIX_EPOCH).is_empty());

        fs::write(path.join("web.yaml"), manifest("a")).expect("written");
        let pods = next(&mut directory).await;
        assert_eq!(names(&pods), ["default/web-n"]);
        let first = pods["default/web-n"].clone();

        // Half a file is no reason to end a pod.
        fs::write(path.join("web.yaml"), "apiVersion: v1\nkind: P").expect("written");
        assert!(Arc::ptr_eq(&next(&mut directory).await["default/web-n"], &first));
        fs::write(path.join("web.yaml"), manifest("b")).expect("written");
        assert_ne!(spec::uid(&next(&mut directory).await["default/web-n"]), spec::uid(&first));

        // Hidden files are not read, links are; the last of two for one name counts.
        fs::write(path.join(".hidden"), manifest("c").replace("web", "hidden")).expect("written");
        assert_eq!(names(&next(&mut directory).await), ["default/web-n"]);
        fs::write(place.path().join("target"), manifest("d")).expect("written");
        std::os::unix::fs::symlink(place.path().join("target"), path.join("z-link")).expect("linked");
        let image = |pods: &BTreeMap<String, Arc<Pod>>| pods["default/web-n"].spec.as_ref().and_then(|s| s.containers[0].image.clone());
        assert_eq!(image(&next(&mut directory).await).as_deref(), Some("d"));

        fs::remove_file(path.join("z-link")).expect("removed");
        assert_eq!(image(&next(&mut directory).await).as_deref(), Some("b"));
        fs::remove_dir_all(&path).expect("removed");
        let mut pods = next(&mut directory).await;
        while !pods.is_empty() {
            pods = next(&mut directory).await;
        }
    }
}
