//! The one field that `scale` shares with its object: who owns the replicas here owns them there.

use super::{
    element::Path,
    fields::FieldSet,
    managers::{Entry, Id, Managers},
};

/// Where a Scale has the replicas.
pub const REPLICAS_IN_SCALE: [&str; 2] = ["spec", "replicas"];
/// Version of a Scale.
const SCALE_VERSION: &str = "autoscaling/v1";

/// The managers of the object's replicas as managers of its Scale. `replicas_at` tells where a version has the replicas; `None` for one that is no
/// longer served.
pub fn to_scale(parent: &Managers, replicas_at: &dyn Fn(&str) -> Option<Path>) -> Managers {
    let mut out = Managers::default();
    for entry in parent.entries() {
        if replicas_at(&entry.version).is_some_and(|path| entry.fields().contains(&path.0)) {
            let fields = FieldSet::of_paths([&Path::of_names(&REPLICAS_IN_SCALE)]);
            out.put(Entry::new(entry.id.clone(), SCALE_VERSION, entry.time.clone(), fields));
        }
    }
    out
}

/// The object's managers after those of its Scale have become `scale`; new ones write in `api_version`.
pub fn from_scale(parent: &Managers, mut scale: Managers, api_version: &str, replicas_at: &dyn Fn(&str) -> Option<Path>) -> Managers {
    let mut out = Managers::default();
    for entry in parent.entries() {
        let Some(path) = replicas_at(&entry.version) else { continue };
        let mut entry = entry.clone();
        if entry.fields().contains(&path.0) && scale.take(&entry.id).is_none() {
            entry.set_fields(entry.fields().difference(&FieldSet::of_paths([&path])));
        }
        if !entry.fields().is_empty() {
            out.put(entry);
        }
    }
    let Some(path) = replicas_at(api_version) else { return out };
    for entry in scale.entries() {
        if entry.fields().contains(&Path::of_names(&REPLICAS_IN_SCALE).0) {
            let update_version = if entry.id.applies { String::new() } else { api_version.to_owned() };
            let id = Id { update_version, ..entry.id.clone() };
            // Time is that of the object's own entry, so a manager that is new to it has none.
            let time = parent.get(&id).and_then(|own| own.time.clone());
            out.put(Entry::new(id, api_version, time, FieldSet::of_paths([&path])));
        }
    }
    out
}
