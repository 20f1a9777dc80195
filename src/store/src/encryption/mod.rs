//! Encryption at rest: a store around a store. Values under some prefixes lie sealed in the one within; everybody else sees them as they were put.
//!
//! A value that cannot be opened is handed out sealed, and the log says why: the reader knows it by [`sealed_under`] and goes on with the others.

mod envelope;
mod key_file;
mod rotate;
#[cfg(test)]
mod tests;
mod wrap;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};

use self::envelope::Key;
pub use self::{
    envelope::{NoRandomness, key_id as sealed_under},
    key_file::KeyFileError,
    rotate::{Census, RotateError},
    wrap::{InFile, KeyWrapper, WrapError},
};
use crate::{Announced, Change, Durability, Entry, Event, Expect, Page, Range, ReadError, Store, WriteError};

/// Why a store is not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No key could be made.
    #[error("no key can be made")]
    Random(#[from] NoRandomness),
    /// The new key was not kept.
    #[error("a new key cannot be kept")]
    Keep(#[source] KeyFileError),
    /// Whether there are sealed values cannot be seen.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
}

/// What passed since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Values sealed.
    pub sealed: u64,
    /// Values opened.
    pub opened: u64,
    /// Values that did not open.
    pub failed: u64,
}

/// The keys as they are now.
#[derive(Debug)]
struct Keys {
    /// Seals; `None`: [`Keys::problem`] says why none does.
    writing: Option<Arc<Key>>,
    /// Open; those of the file and those that were in it since the store was opened: history may need them.
    known: Vec<Arc<Key>>,
    /// Ids of those in the file, the one that writes first.
    in_file: Vec<String>,
    problem: Option<String>,
}

/// A store whose values under some prefixes are encrypted; clones share it.
#[derive(Clone)]
pub struct Encrypted {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    wrapper: Arc<dyn KeyWrapper>,
    prefixes: Vec<String>,
    keys: RwLock<Arc<Keys>>,
    /// Held for reading while a value is put, for writing while the key that writes is another one: after that no value under an older key
    /// is on its way.
    puts: tokio::sync::RwLock<()>,
    rotation: tokio::sync::Mutex<()>,
    sealed: AtomicU64,
    opened: AtomicU64,
    failed: AtomicU64,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").field("inner", &self.inner).field("key_file", &self.shared.path).finish_non_exhaustive()
    }
}

impl Encrypted {
    /// Around `inner`, with the keys of the file at `path`, which is made when there is none and nothing is sealed yet.
    ///
    /// Keys that cannot be had are told in the log and refuse to seal and open; what is not under `prefixes` is served all the same.
    pub async fn open(inner: Arc<dyn Store>, path: &Path, wrapper: Arc<dyn KeyWrapper>, prefixes: &[&str]) -> Result<Self, OpenError> {
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let keys = match key_file::read(path, &*wrapper).await {
            Ok(Some(keys)) => Keys::of(&keys),
            Ok(None) => match first_sealed(&*inner, &prefixes).await? {
                None => {
                    let keys = [Arc::new(Key::random()?)];
                    key_file::write(path, &*wrapper, &keys).await.map_err(OpenError::Keep)?;
                    Keys::of(&keys)
                }
                Some(id) => Keys::locked(&KeyFileError::Missing { path: path.to_owned(), id }),
            },
            Err(error) => Keys::locked(&error),
        };
        if let Some(problem) = &keys.problem {
            tracing::error!("encrypted objects cannot be read or written: {problem}");
        }
        let shared = Shared {
            path: path.to_owned(),
            wrapper,
            prefixes,
            keys: RwLock::new(Arc::new(keys)),
            puts: tokio::sync::RwLock::default(),
            rotation: tokio::sync::Mutex::default(),
            sealed: AtomicU64::default(),
            opened: AtomicU64::default(),
            failed: AtomicU64::default(),
        };
        Ok(Self { inner, shared: Arc::new(shared) })
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { sealed: of(&self.shared.sealed), opened: of(&self.shared.opened), failed: of(&self.shared.failed) }
    }
}

/// The key of some sealed value, if there is one.
async fn first_sealed(store: &dyn Store, prefixes: &[String]) -> Result<Option<String>, ReadError> {
    for prefix in prefixes {
        let all = Range { prefix: prefix.clone(), after: None, limit: 0, at: None };
        let entries = store.range(all).await?.entries;
        if let Some(id) = entries.iter().find_map(|entry| sealed_under(&entry.value)) {
            return Ok(Some(id.to_owned()));
        }
    }
    Ok(None)
}

impl Keys {
    fn of(keys: &[Arc<Key>]) -> Self {
        let in_file = keys.iter().map(|key| key.id.clone()).collect();
        Self { writing: keys.first().cloned(), known: keys.to_vec(), in_file, problem: None }
    }

    fn locked(error: &KeyFileError) -> Self {
        let mut problem = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            problem = format!("{problem}: {error}");
            cause = error.source();
        }
        Self { writing: None, known: Vec::new(), in_file: Vec::new(), problem: Some(problem) }
    }

    /// The value as it was put; why not, in words.
    fn open(&self, name: &str, value: &Bytes) -> Result<Bytes, String> {
        let Some(id) = sealed_under(value) else { return Ok(value.clone()) };
        match self.known.iter().find(|key| key.id == id) {
            Some(key) => key.open(name, value).ok_or_else(|| format!("it is damaged (key {id})")),
            None => Err(self.problem.clone().unwrap_or_else(|| format!("it is sealed under key {id}, which the key file does not have"))),
        }
    }
}

impl Shared {
    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    fn open_entry(&self, entry: &mut Entry) {
        if !self.covers(&entry.key) || sealed_under(&entry.value).is_none() {
            return;
        }
        match self.keys().open(&entry.key, &entry.value) {
            Ok(value) => {
                self.opened.fetch_add(1, Ordering::Relaxed);
                entry.value = value;
            }
            Err(why) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(key = &*entry.key, "a value cannot be decrypted: {why}");
            }
        }
    }

    fn open_conflict(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::Conflict { current: Some(mut entry) } => {
                self.open_entry(&mut entry);
                WriteError::Conflict { current: Some(entry) }
            }
            other => other,
        }
    }
}

#[async_trait]
impl Store for Encrypted {
    fn revision(&self) -> u64 {
        self.inner.revision()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, ReadError> {
        let mut found = self.inner.get(key).await?;
        if let Some(entry) = &mut found {
            self.shared.open_entry(entry);
        }
        Ok(found)
    }

    async fn range(&self, range: Range) -> Result<Page, ReadError> {
        let mut page = self.inner.range(range).await?;
        page.entries.iter_mut().for_each(|entry| self.shared.open_entry(entry));
        Ok(page)
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, durability: Durability) -> Result<u64, WriteError> {
        if !self.shared.covers(key) {
            return self.inner.put(key, value, expect, durability).await;
        }
        let _on_its_way = self.shared.puts.read().await;
        let keys = self.shared.keys();
        let no_key = || keys.problem.clone().unwrap_or_else(|| "there is no key".to_owned());
        let writing = keys.writing.as_ref().ok_or_else(|| WriteError::Encryption { reason: no_key() })?;
        let sealed = writing.seal(key, &value).map_err(|error| WriteError::Encryption { reason: error.to_string() })?;
        self.shared.sealed.fetch_add(1, Ordering::Relaxed);
        self.inner.put(key, sealed, expect, durability).await.map_err(|error| self.shared.open_conflict(error))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<u64, WriteError> {
        self.inner.delete(key, expect).await.map_err(|error| self.shared.open_conflict(error))
    }

    fn announce(&self) -> Announced {
        self.inner.announce()
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<BoxStream<'static, Result<Event, ReadError>>, ReadError> {
        let shared = Arc::clone(&self.shared);
        let events = self.inner.watch(prefix, after).await?;
        Ok(events
            .map(move |event| {
                let mut event = event?;
                let (Change::Put(entry) | Change::Delete(entry)) = &mut event.change;
                shared.open_entry(entry);
                Ok(event)
            })
            .boxed())
    }

    async fn compact(&self, revision: u64) -> Result<(), WriteError> {
        self.inner.compact(revision).await
    }

    async fn close(&self) -> Result<(), WriteError> {
        self.inner.close().await
    }

    fn encryption(&self) -> Option<&Encrypted> {
        Some(self)
    }
}
