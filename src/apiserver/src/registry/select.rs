//! Which objects of a collection a list or a watch means.

use std::{borrow::Cow, sync::Arc};

use coracle_api::{
    selector::{FieldSelector, LabelSelector},
    status::Status,
};
use serde_json::Value;

use super::{options::ListOptions, target::Target};
use crate::cache::{collection::Change, fields, object::Action, object::Object, scope};

/// Where a selected field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Name,
    Namespace,
    Record(usize),
}

/// A namespace and selectors.
#[derive(Clone, Debug)]
pub struct Selection {
    prefix: String,
    labels: LabelSelector,
    fields: Vec<(Place, String, bool)>,
    /// What only the version of the path says, where a webhook converts to it: `(field, value, negated)`.
    shown: Vec<(String, String, bool)>,
}

impl Selection {
    /// Of a request; a name in the path of a watch counts as a field.
    pub fn of(target: &Target, options: &ListOptions) -> Result<Self, Status> {
        let labels = LabelSelector::parse(&options.labels).map_err(|error| Status::bad_request(error.to_string()))?;
        let parsed = FieldSelector::parse(&options.fields).map_err(|error| Status::bad_request(error.to_string()))?;
        let (mut fields, mut shown) = (Vec::new(), Vec::new());
        let definition = target.resource.definition.as_ref();
        for requirement in parsed.requirements {
            let place = match requirement.field.as_str() {
                "metadata.name" => Place::Name,
                "metadata.namespace" => Place::Namespace,
                other => {
                    let unknown = || Status::bad_request(format!("field label not supported: {other}"));
                    // What one version lets select is nothing that the others do.
                    if let Some(definition) = definition {
                        definition.selectable.iter().find(|path| *path == other).ok_or_else(unknown)?;
                    }
                    if target.asks() {
                        shown.push((requirement.field, requirement.value, requirement.negated));
                        continue;
                    }
                    let name = fields::stored_name(&target.resource.group, &target.resource.plural, other);
                    let position = target.collection.view().fields.position(name);
                    position.map(Place::Record).ok_or_else(unknown)?
                }
            };
            fields.push((place, requirement.value, requirement.negated));
        }
        if !target.name.is_empty() {
            fields.push((Place::Name, target.name.clone(), false));
        }
        Ok(Self { prefix: scope(&target.namespace), labels, fields, shown })
    }

    /// What the keys start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether everything under the prefix is meant.
    pub fn is_everything(&self) -> bool {
        self.fields.is_empty() && self.shown.is_empty() && self.labels.is_everything()
    }

    /// The one key that can match, if the selection names an object.
    pub fn only_key(&self) -> Option<String> {
        let exact = |place: Place| self.fields.iter().find(|(p, _, negated)| *p == place && !negated).map(|(_, value, _)| value.as_str());
        let name = exact(Place::Name)?;
        (!self.prefix.is_empty()).then(|| format!("{}{name}", self.prefix))
    }

    /// Whether only the form that an object has in the version of the path tells if it is meant.
    pub fn needs_form(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Whether an object that [`Self::matches`] is meant in the form that it has in the version of the path.
    pub fn matches_form(&self, object: &Value) -> bool {
        self.shown.iter().all(|(field, want, negated)| {
            let value = field.split('.').fold(object, |value, part| &value[part]);
            let text = match value {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                Value::Null => Cow::Borrowed(""),
                other => Cow::Owned(other.to_string()),
            };
            (*text == **want) != *negated
        })
    }

    /// Whether an object is meant, as far as what is stored tells.
    pub fn matches(&self, object: &Object) -> bool {
        object.key().starts_with(&self.prefix)
            && self.fields.iter().all(|(place, want, negated)| {
                let value = match place {
                    Place::Name => object.name(),
                    Place::Namespace => object.namespace(),
                    Place::Record(at) => object.fields().get(*at).map_or("", |value| value),
                };
                (value == want) != *negated
            })
            && (self.labels.is_everything() || self.labels.matches(|key| object.label(key)))
    }

    /// What a change means to a watcher: an object that enters or leaves the selection is added or deleted.
    pub fn action(&self, change: &Change) -> Option<Action> {
        Self::told(change, |object| self.matches(object))
    }

    /// The same, by what is meant.
    pub fn told(change: &Change, is_meant: impl Fn(&Arc<Object>) -> bool) -> Option<Action> {
        let before = change.previous.as_ref().is_some_and(&is_meant);
        let after = change.action != Action::Deleted && is_meant(&change.object);
        match (before, after) {
            (false, true) => Some(Action::Added),
            (true, true) => Some(Action::Modified),
            (true, false) => Some(Action::Deleted),
            (false, false) => None,
        }
    }
}
