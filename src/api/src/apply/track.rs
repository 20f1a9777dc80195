//! Creates, updates and patches: the manager owns what it changed.

use serde_json::Value;

use super::{
    Act, Versions,
    managers::{Entry, Id, Managers},
    update::{Changes, Step, in_line, managed},
};
use crate::schema::Schema;

/// The managers after a write that made `new` of `old`, both canonical in the version of the write and without `managedFields`. For a new object
/// `old` is one that says nothing. An object that nobody manages stays so.
pub fn track(schema: &Schema, old: &Value, new: &Value, mut managers: Managers, act: &Act<'_>, versions: &dyn Versions) -> Managers {
    if managers.is_empty() && old["metadata"]["uid"].is_string() {
        return managers;
    }
    in_line(&mut managers, versions);
    claim(Step { schema, old, new }, &mut managers, act, versions);
    managers.cap();
    managers
}

/// Gives the acting manager what the step changed.
pub(super) fn claim(step: Step<'_>, managers: &mut Managers, act: &Act<'_>, versions: &dyn Versions) {
    let mut changes = Changes::new(step, act, versions);
    changes.take(managers, None);
    let own = managed(&changes.own().changed);
    if own.is_empty() {
        return;
    }
    let id = Id::new(act, false);
    let own = match managers.get(&id) {
        Some(entry) => own.union(entry.fields()),
        None => own,
    };
    managers.put(Entry::new(id, act.api_version, Some(act.now.to_owned()), own));
}
