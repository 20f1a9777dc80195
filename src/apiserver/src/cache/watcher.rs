//! A reader of one kind's changes. It holds a revision and no queue: the collection's history is the queue of all readers, and one that falls
//! behind it is told so.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Shared,
    collection::{Change, Collection, Expired},
};

/// Changes handed out at a time: a watcher that wakes after a burst does not hold the lock for long.
const BATCH_CHANGES: usize = 256;

/// A position in the changes of a kind.
#[derive(Debug)]
pub struct Watcher {
    collection: Arc<Collection>,
    shared: Arc<Shared>,
    position: u64,
}

impl Watcher {
    pub(super) fn new(collection: Arc<Collection>, shared: Arc<Shared>, after: u64) -> Self {
        collection.watchers.fetch_add(1, Ordering::Relaxed);
        Self { collection, shared, position: after }
    }

    /// Every change up to this revision has been handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The kind that is watched.
    pub fn collection(&self) -> &Collection {
        &self.collection
    }

    /// The next changes, at least one; waits for them. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Expired> {
        let collection = Arc::clone(&self.collection);
        loop {
            let changed = collection.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so a change in between wakes.
            changed.as_mut().enable();
            if collection.tells(self.position) {
                let changes = self.ready()?;
                if !changes.is_empty() {
                    return Ok(changes);
                }
            }
            changed.await;
        }
    }

    /// The changes that are there already, perhaps none.
    pub fn ready(&mut self) -> Result<Vec<Arc<Change>>, Expired> {
        let applied = self.shared.applied();
        let changes = self.collection.changes(self.position, BATCH_CHANGES)?;
        match changes.last() {
            Some(last) => self.position = last.revision,
            None => self.position = self.position.max(applied),
        }
        Ok(changes)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.collection.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}
