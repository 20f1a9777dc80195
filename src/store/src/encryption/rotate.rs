//! A new key: it writes from now on, then every value under an older one, or none, is written again, then the older keys leave the file.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Encrypted, Keys, NoRandomness,
    envelope::Key,
    key_file::{self, KeyFileError},
    sealed_under,
};
use crate::{Durability, Entry, Expect, Range, ReadError, Store as _, WriteError};

/// Entries read at a time.
const PAGE_ENTRIES: usize = 500;
/// Entries written at a time: they share the store's syncs.
const AT_ONCE: usize = 64;
/// Names of unreadable entries that are told; the log has them all.
const TOLD: usize = 16;

/// How the values lie in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// Why no key can be had, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Keys of the file, the one that writes first.
    pub keys: Vec<String>,
    /// Values under each key.
    pub sealed: BTreeMap<String, usize>,
    /// Values of older data that are not sealed.
    pub plain: usize,
    /// Values that cannot be opened.
    pub unreadable: usize,
    /// The entries of some of these.
    pub unreadable_names: Vec<String>,
}

/// Why keys were not rotated. Every value can be read as before.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The keys there are cannot be had.
    #[error("{0}")]
    Locked(String),
    /// No new one.
    #[error("no key can be made")]
    Random(#[from] NoRandomness),
    /// It was not kept.
    #[error("the new key cannot be kept")]
    Keep(#[from] KeyFileError),
    /// The values cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A value was not written again.
    #[error("{name} was not written under the new key")]
    Write {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: WriteError,
    },
}

impl Encrypted {
    /// Counts the values by their keys.
    pub async fn census(&self) -> Result<Census, ReadError> {
        let keys = self.shared.keys();
        let mut census = Census { problem: keys.problem.clone(), keys: keys.in_file.clone(), ..Census::default() };
        let mut at = Some(Place::default());
        while let Some(entries) = self.page(&mut at).await? {
            for entry in entries {
                match (sealed_under(&entry.value), keys.open(&entry.key, &entry.value)) {
                    (None, _) => census.plain += 1,
                    (Some(id), Ok(_)) => *census.sealed.entry(id.to_owned()).or_default() += 1,
                    (Some(_), Err(_)) => {
                        census.unreadable += 1;
                        if census.unreadable_names.len() < TOLD {
                            census.unreadable_names.push(entry.key.to_string());
                        }
                    }
                }
            }
        }
        Ok(census)
    }

    /// Rotates; how the values lie after it. While one cannot be opened the older keys stay in the file.
    pub async fn rotate(&self) -> Result<Census, RotateError> {
        let _alone = self.shared.rotation.lock().await;
        let old = self.shared.keys();
        if let Some(problem) = &old.problem {
            return Err(RotateError::Locked(problem.clone()));
        }
        let new = Arc::new(Key::random()?);
        let mut in_file: Vec<Arc<Key>> = vec![Arc::clone(&new)];
        in_file.extend(old.known.iter().filter(|key| old.in_file.contains(&key.id)).cloned());
        key_file::write(&self.shared.path, &*self.shared.wrapper, &in_file).await?;
        self.swap(&in_file, &old).await;
        let mut at = Some(Place::default());
        while let Some(entries) = self.page(&mut at).await? {
            let again: Vec<_> = entries.into_iter().map(|entry| self.write_again(entry, &new.id)).collect();
            stream::iter(again).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        }
        let census = self.census().await?;
        if census.unreadable == 0 {
            let only = [new];
            key_file::write(&self.shared.path, &*self.shared.wrapper, &only).await?;
            self.swap(&only, &self.shared.keys()).await;
        }
        Ok(Census { keys: self.shared.keys().in_file.clone(), ..census })
    }

    /// From now on these are the keys of the file; what was known before stays known.
    async fn swap(&self, in_file: &[Arc<Key>], before: &Keys) {
        let mut keys = Keys::of(in_file);
        let older = before.known.iter().filter(|key| in_file.iter().all(|other| other.id != key.id));
        keys.known.extend(older.cloned());
        let _nothing_on_its_way = self.shared.puts.write().await;
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Writes an entry as it is under the key that writes now, unless it is so already or cannot be opened.
    async fn write_again(&self, mut entry: Entry, id: &str) -> Result<(), RotateError> {
        loop {
            let Ok(plain) = self.shared.keys().open(&entry.key, &entry.value) else { return Ok(()) };
            if sealed_under(&entry.value) == Some(id) {
                return Ok(());
            }
            match self.put(&entry.key, plain, Expect::Revision(entry.modified), Durability::Sync).await {
                Ok(_) => return Ok(()),
                // Its owner was first: that write is under the new key, or it is gone.
                Err(WriteError::Conflict { .. }) => match self.inner.get(&entry.key).await? {
                    Some(now) => entry = now,
                    None => return Ok(()),
                },
                Err(source) => return Err(RotateError::Write { name: entry.key.to_string(), source }),
            }
        }
    }

    /// The next entries under the prefixes as they lie in the store; `None` after the last.
    async fn page(&self, at: &mut Option<Place>) -> Result<Option<Vec<Entry>>, ReadError> {
        let Some(Place { prefix, after }) = at.take() else { return Ok(None) };
        let Some(name) = self.shared.prefixes.get(prefix) else { return Ok(None) };
        let range = Range { prefix: name.clone(), after, limit: PAGE_ENTRIES, at: None };
        let page = self.inner.range(range).await?;
        let next = page.entries.last().filter(|_| page.remaining > 0).map(|entry| entry.key.to_string());
        *at = Some(if next.is_some() { Place { prefix, after: next } } else { Place { prefix: prefix + 1, after: None } });
        Ok(Some(page.entries))
    }
}

/// How far a walk over all entries is.
#[derive(Debug, Default)]
struct Place {
    /// Number of the prefix.
    prefix: usize,
    /// The last key that was seen under it.
    after: Option<String>,
}
