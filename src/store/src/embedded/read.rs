//! Reading: one key, and consistent pages of the keyspace, now or at a recent revision.

use std::{collections::BTreeMap, io, iter::Peekable, ops::Bound, sync::Arc};

use super::{
    index::Located,
    segment::{Segment, Slot},
    shared::{Shared, slot_in},
};
use crate::{Entry, Page, Range, ReadError};

/// The key now. Blocks on the disk.
pub fn get(shared: &Shared, key: &Arc<str>) -> Result<Option<Entry>, ReadError> {
    let gate = shared.index();
    let recent = shared.state().overlay.get(key).cloned();
    let slot = match recent {
        Some(state) => state,
        None => {
            gate.get(key).and_then(|located| located.map(|at| shared.state().slot(at)).transpose()).map_err(|error| lost(shared, error))?
        }
    };
    drop(gate);
    slot.map(|slot| slot.load(key)).transpose().map_err(ReadError::Io)
}

/// A page. The index is held still while the keys are collected; the values are read after. Blocks on the disk.
pub fn range(shared: &Shared, range: &Range) -> Result<Page, ReadError> {
    let gate = shared.index();
    let (changes, segments, revision) = changes(shared, range)?;
    let indexed = gate.range(&range.prefix, range.after.as_deref()).map_err(|error| lost(shared, error))?;
    let limit = if range.limit == 0 { usize::MAX } else { range.limit };
    let (slots, remaining) = take(Merged { indexed: indexed.peekable(), changes: changes.into_iter().peekable() }, &segments, limit)
        .map_err(|error| lost(shared, error))?;
    drop(gate);
    let entries = slots.iter().map(|(key, slot)| slot.load(key)).collect::<io::Result<_>>().map_err(ReadError::Io)?;
    Ok(Page { entries, revision, remaining })
}

/// The index does not answer: it is replaced, and who asks again will be told.
fn lost(shared: &Shared, error: io::Error) -> ReadError {
    shared.fail_index(&error);
    ReadError::Io(error)
}

type Changes = BTreeMap<Arc<str>, Option<Slot>>;
type Segments = BTreeMap<u32, Arc<Segment>>;
type Slots = Vec<(Arc<str>, Slot)>;

/// What the index does not know about the range at its revision, the segments, and that revision.
fn changes(shared: &Shared, range: &Range) -> Result<(Changes, Segments, u64), ReadError> {
    let state = shared.state();
    let (oldest, current) = (state.history.oldest(), state.history.newest());
    let revision = range.at.unwrap_or(current);
    if revision > current {
        return Err(ReadError::Future { wanted: revision, current });
    }
    if revision < oldest {
        return Err(ReadError::Compacted { wanted: revision, oldest });
    }
    let after = |key: &str| range.after.as_deref().is_none_or(|after| key > after);
    let from = (Bound::Included(range.prefix.as_str()), Bound::Unbounded);
    let recent = state.overlay.range::<str, _>(from).take_while(|(key, _)| key.starts_with(&range.prefix));
    let mut changes: Changes = recent.map(|(key, slot)| (key.clone(), slot.clone())).collect();
    changes.append(&mut state.history.undo(revision, &range.prefix));
    changes.retain(|key, _| after(key));
    Ok((changes, state.segments.clone(), revision))
}

/// The index's entries and the changes that hide them, in key order.
struct Merged<I: Iterator, C: Iterator> {
    indexed: Peekable<I>,
    changes: Peekable<C>,
}

/// A key and where it stands.
enum Found {
    Indexed(Located),
    Changed(Option<Slot>),
}

impl<I, C> Iterator for Merged<I, C>
where
    I: Iterator<Item = io::Result<(Arc<str>, Located)>>,
    C: Iterator<Item = (Arc<str>, Option<Slot>)>,
{
    type Item = io::Result<(Arc<str>, Found)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((changed, _)) = self.changes.peek() {
            let first = match self.indexed.peek() {
                Some(Ok((indexed, _))) => changed.cmp(indexed),
                Some(Err(_)) => std::cmp::Ordering::Greater,
                None => std::cmp::Ordering::Less,
            };
            if first.is_eq() {
                self.indexed.next();
            }
            if first.is_le() {
                return self.changes.next().map(|(key, slot)| Ok((key, Found::Changed(slot))));
            }
        }
        let found = self.indexed.next()?;
        Some(found.map(|(key, located)| (key, Found::Indexed(located))))
    }
}

/// The first `limit` keys that exist, and how many more there are.
fn take(merged: impl Iterator<Item = io::Result<(Arc<str>, Found)>>, segments: &Segments, limit: usize) -> io::Result<(Slots, u64)> {
    let (mut slots, mut remaining) = (Vec::new(), 0);
    for found in merged {
        let (key, found) = found?;
        if matches!(found, Found::Changed(None)) {
            continue;
        }
        if slots.len() == limit {
            remaining += 1;
            continue;
        }
        match found {
            Found::Changed(Some(slot)) => slots.push((key, slot)),
            Found::Indexed(located) => slots.push((key, slot_in(segments, located)?)),
            Found::Changed(None) => {}
        }
    }
    Ok((slots, remaining))
}
