//! What is known of all definitions, and the catalogue that follows from it.

use std::{collections::BTreeMap, sync::Arc};

use coracle_api::{
    catalogue::Resource,
    custom::{self, CLEANUP, GROUP, PLURAL, names::Taken},
};
use serde_json::Value;

use super::clean::Ending;
use crate::{
    cache::{
        Cache,
        collection::Expired,
        object::{Action, Object},
        stored,
        view::View,
        watcher::Watcher,
    },
    catalogue::Live,
    strategy::meta,
};

/// All definitions as they were last seen.
pub(crate) struct Book {
    cache: Cache,
    live: Live,
    changes: Watcher,
    known: BTreeMap<String, Known>,
}

/// What is kept of one definition.
struct Known {
    group: String,
    plural: String,
    uid: String,
    accepted: Value,
    /// It did not get all the names that it wants.
    waits_for_names: bool,
    /// It is being deleted, and what it defines must go first.
    ends: bool,
    served: Vec<Arc<Resource>>,
    hidden: Vec<Arc<Resource>>,
}

impl Known {
    fn read(definition: &Value) -> Self {
        let (served, hidden) = custom::resources(definition);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            group: text(&definition["spec"]["group"]),
            plural: text(&definition["spec"]["names"]["plural"]),
            uid: meta::text(definition, "uid").to_owned(),
            accepted: definition["status"]["acceptedNames"].clone(),
            waits_for_names: !custom::is_true(definition, "NamesAccepted"),
            ends: meta::is_deleting(definition) && meta::finalizers(definition).iter().any(|f| f == CLEANUP),
            served,
            hidden,
        }
    }

    /// All versions.
    fn versions(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.served.iter().chain(&self.hidden)
    }

    /// Of any version.
    fn resource(&self) -> Option<&Arc<Resource>> {
        self.versions().next()
    }
}

impl Book {
    /// Reads all definitions of the cache, and serves them.
    pub fn open(cache: &Cache, live: &Live) -> Self {
        let changes = cache.subscribe(GROUP, PLURAL);
        let mut book = Self { cache: cache.clone(), live: live.clone(), changes, known: BTreeMap::new() };
        for object in &cache.list(GROUP, PLURAL, "").objects {
            book.take(object, Action::Added);
        }
        if !book.known.is_empty() {
            book.publish();
        }
        book
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }

    /// Waits for changes and serves them; the definitions whose status may be another one now.
    pub async fn next(&mut self) -> Result<Vec<String>, Expired> {
        let changes = self.changes.next().await?;
        let mut affected: Vec<String> = Vec::new();
        for change in changes {
            self.take(&change.object, change.action);
            affected.push(change.object.name().to_owned());
        }
        self.publish();
        // A name may be free again.
        affected.extend(self.known.iter().filter(|(_, known)| known.waits_for_names).map(|(name, _)| name.clone()));
        affected.sort_unstable();
        affected.dedup();
        Ok(affected)
    }

    fn take(&mut self, object: &Object, action: Action) {
        if action == Action::Deleted {
            if let Some(gone) = self.known.remove(object.name()) {
                self.cache.forget(&stored(&gone.group, &gone.plural));
            }
        } else {
            self.known.insert(object.name().to_owned(), Known::read(&object.value()));
        }
    }

    /// Shows the objects by today's schemas, then puts the new catalogue in its place.
    fn publish(&self) {
        let all = |part: fn(&Known) -> &[Arc<Resource>]| self.known.values().flat_map(part).cloned().collect::<Vec<_>>();
        let catalogue = custom::catalogue(&all(|k| &k.served), &all(|k| &k.hidden), self.live.now().revision() + 1);
        for (known, resource) in self.known.values().filter_map(|known| Some((known, known.resource()?))) {
            let now = catalogue.stored(resource);
            let collection = self.cache.collection(&stored(&now.group, &now.plural));
            let view = View::custom(now, known.versions());
            if now.custom && collection.view().tag() != view.tag() {
                collection.show(view);
            }
        }
        self.live.put(catalogue);
    }

    /// The names that all others of its group were given.
    pub fn taken_by_others(&self, name: &str) -> Taken {
        let Some(group) = self.known.get(name).map(|known| &known.group) else { return Taken::default() };
        let mut taken = Taken::by_builtin(group);
        let others = self.known.iter().filter(|(other, known)| *other != name && known.group == *group);
        others.for_each(|(_, known)| taken.add(&known.accepted));
        taken
    }

    /// Definitions that wait for their objects to go.
    pub fn ending(&self) -> impl Iterator<Item = Ending> {
        let ends = self.known.iter().filter(|(_, known)| known.ends);
        ends.map(|(name, known)| Ending { name: name.clone(), uid: known.uid.clone(), resource: known.resource().cloned() })
    }
}
