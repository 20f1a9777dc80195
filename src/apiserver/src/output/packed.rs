//! Lists that were compressed: sent again as long as none of their objects changed, whatever became of the rest of the cluster.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::gzip::Piece;
use crate::cache::object::Object;

/// Lists that are remembered: a few kinds are listed again and again, by pollers and by everybody's informers after a restart.
const MAX_LISTS: usize = 4;
/// Compressed bytes of one that is remembered.
const MAX_BYTES: usize = 1 << 20;
/// Objects of one that is remembered.
const MAX_OBJECTS: usize = 20_000;

/// Items of lists as they were compressed, the newest last.
#[derive(Debug, Default)]
pub struct Packed(Mutex<VecDeque<List>>);

#[derive(Debug)]
struct List {
    /// What is in it. An object never changes: another one takes its place. These keep nothing alive, and no address is given out twice.
    objects: Box<[Weak<Object>]>,
    pieces: Box<[Piece]>,
}

impl List {
    fn is_of(&self, objects: &[Arc<Object>]) -> bool {
        self.objects.len() == objects.len() && self.objects.iter().zip(objects).all(|(one, other)| one.as_ptr() == Arc::as_ptr(other))
    }

    fn is_stale(&self) -> bool {
        self.objects.iter().any(|object| object.strong_count() == 0)
    }
}

impl Packed {
    /// The pieces of just these objects.
    pub fn find(&self, objects: &[Arc<Object>]) -> Option<Vec<Piece>> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.iter().find(|list| list.is_of(objects)).map(|list| list.pieces.to_vec())
    }

    /// What remembers these objects, if it is told all pieces.
    pub fn record(self: &Arc<Self>, objects: &[Arc<Object>]) -> Record {
        if objects.len() > MAX_OBJECTS {
            return Record::default();
        }
        Record { packed: Some(Arc::clone(self)), objects: objects.iter().map(Arc::downgrade).collect(), pieces: Vec::new(), bytes: 0 }
    }

    fn keep(&self, list: List) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.retain(|known| !known.is_stale());
        if lists.len() == MAX_LISTS {
            lists.pop_front();
        }
        lists.push_back(list);
    }
}

/// A list that is being compressed.
#[derive(Debug, Default)]
pub struct Record {
    packed: Option<Arc<Packed>>,
    objects: Box<[Weak<Object>]>,
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Record {
    /// Takes the next piece; the end makes it known.
    pub fn add(&mut self, piece: &Piece) {
        let Some(packed) = &self.packed else { return };
        self.pieces.push(piece.clone());
        match piece {
            Piece::Deflated(bytes) => self.bytes += bytes.len(),
            Piece::End(_) => {
                let objects = std::mem::take(&mut self.objects);
                packed.keep(List { objects, pieces: std::mem::take(&mut self.pieces).into() });
                self.packed = None;
            }
        }
        if self.bytes > MAX_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_store::Entry;
    use flate2::Crc;
    use serde_json::json;

    use super::*;
    use crate::cache::{
        object::{self, Action},
        view::View,
    };

    fn objects(count: u64) -> Vec<Arc<Object>> {
        let made = |i: u64| {
            let (key, name) = (format!("d/{i}"), i.to_string());
            let value = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "d", "name": name, "uid": name}});
            let value = object::encode(&value, None).unwrap();
            let entry = Entry { key: key.as_str().into(), value, created: i + 1, modified: i + 1 };
            Arc::new(Object::take_in(&entry, &key, i + 1, Action::Added, &View::of("pods")).unwrap())
        };
        (0..count).map(made).collect()
    }

    fn remember(packed: &Arc<Packed>, objects: &[Arc<Object>], bytes: usize) {
        let mut record = packed.record(objects);
        record.add(&Piece::Deflated(vec![0; bytes].into()));
        record.add(&Piece::End(Arc::new(Crc::new())));
    }

    #[test]
    fn a_list_is_known_until_one_of_its_objects_changes() {
        let packed = Arc::new(Packed::default());
        let mut all = objects(3);
        remember(&packed, &all, 10);
        assert!(matches!(&packed.find(&all).unwrap()[..], [Piece::Deflated(bytes), Piece::End(_)] if bytes[..] == [0; 10]));
        assert!(packed.find(&all[..2]).is_none(), "a part of it");
        all[1] = Arc::clone(&objects(3)[1]);
        assert!(packed.find(&all).is_none(), "an object of the same name");
    }

    #[test]
    fn few_are_kept_and_none_that_is_large_or_gone() {
        let packed = Arc::new(Packed::default());
        let lists: Vec<_> = (1..=MAX_LISTS as u64 + 1).map(objects).collect();
        lists.iter().for_each(|list| remember(&packed, list, 10));
        assert!(packed.find(&lists[0]).is_none() && lists[1..].iter().all(|list| packed.find(list).is_some()));
        let large = objects(9);
        remember(&packed, &large, MAX_BYTES + 1);
        assert!(packed.find(&large).is_none());
        drop(lists);
        remember(&packed, &large, 10);
        assert_eq!(packed.0.lock().unwrap().len(), 1);
    }
}
