//! Watching: a watcher is a place in the history and nothing else, so it costs no queue and a slow one holds nothing up.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::{
    history::{History, Past},
    shared::Shared,
};
use crate::{Change, Entry, Event, ReadError};

/// Events that a watcher takes out of the history at once; the bound of what it holds.
const EVENTS_AT_ONCE: usize = 256;
/// Bytes of values that it takes at once: a watcher holds at most this and one value.
const BYTES_AT_ONCE: usize = 4 << 20;

struct Watcher {
    shared: Arc<Shared>,
    prefix: Arc<str>,
    /// All changes up to this revision were seen.
    seen: u64,
    ready: VecDeque<Event>,
    news: watch::Receiver<u64>,
    ended: bool,
}

/// The changes under `prefix` after revision `after`.
pub fn watch(shared: Arc<Shared>, prefix: &str, after: u64) -> Result<BoxStream<'static, Result<Event, ReadError>>, ReadError> {
    let news = shared.revision.subscribe();
    check(&shared.state().history, after)?;
    let watcher = Watcher { shared, prefix: Arc::from(prefix), seen: after, ready: VecDeque::new(), news, ended: false };
    Ok(stream::unfold(watcher, next).boxed())
}

fn check(history: &History, after: u64) -> Result<(), ReadError> {
    let (oldest, current) = (history.oldest(), history.newest());
    if after > current {
        return Err(ReadError::Future { wanted: after, current });
    }
    if after < oldest {
        return Err(ReadError::Compacted { wanted: after, oldest });
    }
    Ok(())
}

async fn next(mut watcher: Watcher) -> Option<(Result<Event, ReadError>, Watcher)> {
    loop {
        if watcher.ended {
            return None;
        }
        if let Some(event) = watcher.ready.pop_front() {
            return Some((Ok(event), watcher));
        }
        watcher.news.mark_unchanged();
        match watcher.collect().await {
            Ok(true) => {}
            Ok(false) if watcher.shared.closed.load(Ordering::Acquire) => return None,
            Ok(false) => watcher.news.changed().await.ok()?,
            Err(error) => {
                watcher.ended = true;
                return Some((Err(error), watcher));
            }
        }
    }
}

impl Watcher {
    /// Takes the next changes; whether there were any.
    async fn collect(&mut self) -> Result<bool, ReadError> {
        let (pasts, seen) = {
            let state = self.shared.state();
            check(&state.history, self.seen)?;
            slice(&state.history, self.seen, &self.prefix)
        };
        let moved = seen != self.seen;
        let in_memory = pasts.iter().all(|(_, past)| past.value.is_some());
        let events = if in_memory {
            pasts.into_iter().map(event).collect()
        } else {
            let load = move || pasts.into_iter().map(event).collect();
            tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        (self.ready, self.seen) = (events.map_err(ReadError::Io)?, seen);
        Ok(moved)
    }
}

/// A bounded slice of the changes after `seen`, and up to which revision it goes.
fn slice(history: &History, mut seen: u64, prefix: &str) -> (Vec<(u64, Past)>, u64) {
    let (mut pasts, mut bytes) = (Vec::new(), 0);
    for (revision, past) in history.after(seen) {
        if past.key.starts_with(prefix) {
            let slot = past.after.as_ref().or(past.before.as_ref());
            bytes += slot.map_or(0, |slot| slot.place.len as usize);
            if !pasts.is_empty() && (bytes > BYTES_AT_ONCE || pasts.len() == EVENTS_AT_ONCE) {
                break;
            }
            pasts.push((revision, past.clone()));
        }
        seen = revision;
    }
    (pasts, seen)
}

fn event((revision, past): (u64, Past)) -> io::Result<Event> {
    let change = match (past.after, past.before, past.value) {
        (Some(slot), _, Some(value)) => Change::Put(Entry { key: past.key, value, created: slot.created, modified: slot.modified }),
        (Some(slot), _, None) => Change::Put(slot.load(&past.key)?),
        (None, Some(before), _) => Change::Delete(before.load(&past.key)?),
        (None, None, _) => return Err(io::Error::other("a change from nothing to nothing")),
    };
    Ok(Event { revision, change })
}
