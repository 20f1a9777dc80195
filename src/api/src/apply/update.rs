//! What a change of an object does to its managers' fields.

use serde_json::Value;

use super::{
    Act, Versions,
    compare::{Comparison, compare},
    fields::{FieldSet, Node},
    managers::{Id, Managers},
    remove,
};
use crate::schema::Schema;

/// Fields that belong to the server and that nobody manages.
const UNMANAGED: [&str; 9] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields", "resourceVersion"];

/// The two states of an object in the version of the write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub schema: &'a Schema,
    pub old: &'a Value,
    pub new: &'a Value,
}

/// A manager's fields that a change would take from it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taken {
    pub id: Id,
    pub fields: FieldSet,
}

/// Brings what all managers own in line with the schema of today.
pub(super) fn in_line(managers: &mut Managers, versions: &dyn Versions) {
    managers.retain(|entry| {
        if let Some(schema) = versions.schema(&entry.version)
            && let Some(fields) = remove::in_line(&schema, entry.fields())
        {
            entry.set_fields(fields);
        }
        true
    });
}

/// What a step changes, in one version.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Fields with a value that they did not have before.
    pub changed: FieldSet,
    /// Fields that are no more.
    pub removed: FieldSet,
}

impl Change {
    fn of(comparison: Comparison) -> Self {
        Self { changed: comparison.changed(), removed: comparison.removed }
    }
}

/// What a step changes, in all versions that managers wrote in.
pub(super) struct Changes<'a> {
    step: Step<'a>,
    act: &'a Act<'a>,
    versions: &'a dyn Versions,
    own: Change,
    others: Vec<(String, Option<Change>)>,
}

impl<'a> Changes<'a> {
    pub fn new(step: Step<'a>, act: &'a Act<'a>, versions: &'a dyn Versions) -> Self {
        let own = Change::of(compare(step.schema, step.old, step.new).within(act.reach));
        Self { step, act, versions, own, others: Vec::new() }
    }

    /// In the version of the write.
    pub fn own(&self) -> &Change {
        &self.own
    }

    /// In any version; `None` when it is no longer served.
    fn of(&mut self, version: &str) -> Option<&Change> {
        if version == self.act.api_version {
            return Some(&self.own);
        }
        let at = match self.others.iter().position(|(known, _)| known == version) {
            Some(at) => at,
            None => {
                let found = self.versions.schema(version).and_then(|schema| {
                    let convert = |object| self.versions.convert(object, self.act.api_version, version);
                    let (old, new) = (convert(self.step.old)?, convert(self.step.new)?);
                    Some(Change::of(compare(&schema, &old, &new).within(self.act.reach)))
                });
                self.others.push((version.to_owned(), found));
                self.others.len() - 1
            }
        };
        self.others[at].1.as_ref()
    }

    /// Takes from all managers but `by` what the change removed, and what it changed. Managers of versions that are no longer served go, and
    /// those that own nothing any more. Says what was changed of whose.
    pub fn take(&mut self, managers: &mut Managers, by: Option<&Id>) -> Vec<Taken> {
        let mut taken = Vec::new();
        managers.retain(|entry| {
            if by == Some(&entry.id) {
                return !entry.fields().is_empty();
            }
            let Some(Change { changed, removed }) = self.of(&entry.version) else { return false };
            if entry.fields().meets(changed) {
                taken.push(Taken { id: entry.id.clone(), fields: entry.fields().intersection(changed) });
                entry.set_fields(entry.fields().difference(changed));
            }
            if entry.fields().meets(removed) {
                entry.set_fields(entry.fields().difference(removed));
            }
            !entry.fields().is_empty()
        });
        taken
    }
}

/// The set without what belongs to the server.
pub(super) fn managed(fields: &FieldSet) -> FieldSet {
    let nodes = fields.nodes().iter().filter_map(|node| match node.element.name() {
        Some("apiVersion" | "kind") => None,
        Some("metadata") => {
            let own = node.below.nodes().iter().filter_map(|inner| {
                let ours = inner.element.name().is_some_and(|name| UNMANAGED.contains(&name));
                // Only the field itself: what somebody puts below it is theirs to explain.
                let inner = Node { member: inner.member && !ours, ..inner.clone() };
                (inner.member || !inner.below.is_empty()).then_some(inner)
            });
            Some(Node { member: false, below: FieldSet::of(own.collect()), ..node.clone() })
        }
        _ => Some(node.clone()),
    });
    FieldSet::of(nodes.collect())
}
