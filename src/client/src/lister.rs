//! What an informer knows, readable by every role: objects by key, namespace, owner and by indexes of the kind's users.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, RwLock},
};

use kube::Resource;

use crate::Key;

/// Gives the values under which an object is found in an index.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

/// A view of one kind. Cheap to clone; never waits for the network. Objects are shared, without `managedFields`.
pub struct Lister<K> {
    pub(crate) cache: Arc<RwLock<Cache<K>>>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone() }
    }
}

impl<K> fmt::Debug for Lister<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lister").finish_non_exhaustive()
    }
}

impl<K: Resource> Lister<K> {
    /// The object, if it exists as far as the informer has seen.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read(|cache| cache.objects.get(key).cloned())
    }

    /// Everything, in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(|cache| cache.objects.values().cloned().collect())
    }

    /// Everything in a namespace, in name order.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|cache| {
            let first = Key::new(namespace, "");
            cache.objects.range(first..).take_while(|(k, _)| &*k.namespace == namespace).map(|(_, o)| o.clone()).collect()
        })
    }

    /// Everything that names `uid` in its `ownerReferences`, controller or not.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.read(|cache| cache.pick(cache.owners.get(uid)))
    }

    /// Everything that the index `name` holds under `value`; nothing when [`crate::Informer::index`] was never told of it.
    pub fn indexed(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.read(|cache| cache.pick(cache.indexes.iter().find(|i| i.name == name).and_then(|i| i.entries.get(value))))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(|cache| cache.objects.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read<T>(&self, look: impl FnOnce(&Cache<K>) -> T) -> T {
        look(&self.cache.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

struct Index<K> {
    name: &'static str,
    values: IndexFn<K>,
    entries: HashMap<String, BTreeSet<Key>>,
}

/// The objects of one kind with their indexes. Written by the informer's task alone.
pub(crate) struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    owners: HashMap<String, BTreeSet<Key>>,
    indexes: Vec<Index<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), owners: HashMap::new(), indexes: Vec::new() }
    }
}

impl<K: Resource> Cache<K> {
    /// Puts the object and returns the one it replaces.
    pub(crate) fn put(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = Key::of(&*object);
        let old = self.take(&key);
        for uid in owner_uids(&*object) {
            self.owners.entry(uid).or_default().insert(key.clone());
        }
        for index in &mut self.indexes {
            index.insert(&key, &object);
        }
        self.objects.insert(key, object);
        old
    }

    /// Takes the object out.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for uid in owner_uids(&*old) {
            forget(&mut self.owners, &uid, key);
        }
        for index in &mut self.indexes {
            for value in (index.values)(&old) {
                forget(&mut index.entries, &value, key);
            }
        }
        Some(old)
    }

    /// Adds an index, filled from what is here. A name is taken once; the first function stays.
    pub(crate) fn index(&mut self, name: &'static str, values: IndexFn<K>) {
        if self.indexes.iter().any(|i| i.name == name) {
            return;
        }
        let mut index = Index { name, values, entries: HashMap::new() };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.push(index);
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    /// All objects.
    pub(crate) fn objects(&self) -> Vec<Arc<K>> {
        self.objects.values().cloned().collect()
    }

    fn pick(&self, keys: Option<&BTreeSet<Key>>) -> Vec<Arc<K>> {
        keys.into_iter().flatten().filter_map(|k| self.objects.get(k).cloned()).collect()
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.values)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }
}

fn owner_uids<K: Resource>(object: &K) -> Vec<String> {
    object.meta().owner_references.iter().flatten().map(|o| o.uid.clone()).collect()
}

fn forget(entries: &mut HashMap<String, BTreeSet<Key>>, value: &str, key: &Key) {
    if let Some(keys) = entries.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            entries.remove(value);
        }
    }
}

#[cfg(test)]
mod tests;
