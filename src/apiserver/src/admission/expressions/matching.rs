//! Which writes a policy, a binding or a webhook is about: rules, selectors, and the same objects under other versions.

use std::sync::Arc;

use coracle_api::{catalogue::Resource, selector::LabelSelector};
use serde_json::Value;

use super::request::word;
use crate::admission::{Attributes, Operation};
use crate::objects::Objects;

/// One rule: operations on resources.
#[derive(Debug)]
pub struct Rule {
    operations: Vec<Box<str>>,
    groups: Vec<Box<str>>,
    versions: Vec<Box<str>>,
    /// Plural and subresource.
    resources: Vec<(Box<str>, Box<str>)>,
    scope: Scope,
    /// Empty: all.
    names: Vec<Box<str>>,
}

/// Where objects of a rule live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

/// What a policy, a binding or a webhook is about.
#[derive(Debug)]
pub struct Matching {
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Other versions of the same objects count.
    equivalent: bool,
}

fn list(value: &Value) -> Vec<Box<str>> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

fn has(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|entry| matches!(&**entry, "*") || **entry == *wanted)
}

impl Rule {
    /// Reads a rule of a webhook, or a named one of a policy.
    pub fn read(rule: &Value) -> Self {
        let part = |entry: Box<str>| match entry.split_once('/') {
            Some((plural, sub)) => (plural.into(), sub.into()),
            None => (entry, "".into()),
        };
        Self {
            operations: list(&rule["operations"]),
            groups: list(&rule["apiGroups"]),
            versions: list(&rule["apiVersions"]),
            resources: list(&rule["resources"]).into_iter().map(part).collect(),
            scope: match rule["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::Any,
            },
            names: list(&rule["resourceNames"]),
        }
    }

    /// Whether a write would be meant if it were of this resource.
    fn means(&self, write: &Attributes<'_>, resource: &Resource) -> bool {
        let info = write.info;
        let of_cluster = info.namespace.is_empty() || (resource.group.is_empty() && resource.plural == "namespaces");
        let here = match self.scope {
            Scope::Any => true,
            Scope::Cluster => of_cluster,
            Scope::Namespaced => !of_cluster,
        };
        here && has(&self.operations, word(write.operation))
            && has(&self.groups, &resource.group)
            && has(&self.versions, &resource.version)
            && self
                .resources
                .iter()
                .any(|(plural, sub)| (**plural == *"*" || **plural == *resource.plural) && (**sub == *"*" || **sub == *info.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| **name == *info.name))
    }
}

impl Matching {
    /// Reads `matchConstraints` or `matchResources`.
    pub fn read(constraints: &Value) -> Self {
        let rules = |name: &str| constraints[name].as_array().into_iter().flatten().map(Rule::read).collect();
        Self { rules: rules("resourceRules"), excluded: rules("excludeResourceRules"), ..Self::of_selectors(constraints) }
    }

    /// Reads what a webhook is about.
    pub fn of_webhook(webhook: &Value) -> Self {
        let rules: Vec<Rule> = webhook["rules"].as_array().into_iter().flatten().map(Rule::read).collect();
        Self { rules, ..Self::of_selectors(webhook) }
    }

    fn of_selectors(source: &Value) -> Self {
        let selector = |name: &str| LabelSelector::from_value(&source[name]).map_err(|error| error.to_string());
        Self {
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            rules: Vec::new(),
            excluded: Vec::new(),
            equivalent: source["matchPolicy"] != "Exact",
        }
    }

    /// As which resource a write is meant; `None` when it is not. Without rules, `any` says whether that means all resources (bindings) or none.
    pub fn of(
        &self,
        write: &Attributes<'_>,
        object: Option<&Value>,
        objects: &dyn Objects,
        any: bool,
    ) -> Result<Option<Arc<Resource>>, String> {
        let found = match any && self.rules.is_empty() {
            true => Some(Arc::clone(write.resource)),
            false => self.resource(&self.rules, write),
        };
        let Some(found) = found else { return Ok(None) };
        let selected = self.selects_object(write, object)? && self.selects_namespace(write, object, objects)?;
        let excluded = !self.excluded.is_empty() && self.resource(&self.excluded, write).is_some();
        Ok((selected && !excluded).then_some(found))
    }

    fn resource(&self, rules: &[Rule], write: &Attributes<'_>) -> Option<Arc<Resource>> {
        let asked = write.resource;
        if rules.iter().any(|rule| rule.means(write, asked)) {
            return Some(Arc::clone(asked));
        }
        if !self.equivalent {
            return None;
        }
        let catalogue = write.kinds.catalogue();
        let same = |other: &&Arc<Resource>| other.storage == asked.storage && !Arc::ptr_eq(other, asked);
        let others: Vec<&Arc<Resource>> = catalogue.resources().iter().filter(same).collect();
        rules.iter().find_map(|rule| others.iter().find(|other| rule.means(write, other)).map(|other| Arc::clone(other)))
    }

    fn selects_object(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<bool, String> {
        let selector = self.objects.as_ref().map_err(Clone::clone)?;
        let selects = |object: &Value| object.is_object() && selector.matches_value(&object["metadata"]["labels"]);
        Ok(selector.is_everything() || object.into_iter().chain(write.old).any(selects))
    }

    fn selects_namespace(&self, write: &Attributes<'_>, object: Option<&Value>, objects: &dyn Objects) -> Result<bool, String> {
        let selector = self.namespaces.as_ref().map_err(Clone::clone)?;
        let info = write.info;
        let is_namespace = info.group.is_empty() && info.resource == "namespaces";
        if selector.is_everything() || (info.namespace.is_empty() && !is_namespace) {
            return Ok(true);
        }
        let written = is_namespace && info.subresource.is_empty() && matches!(write.operation, Operation::Create | Operation::Update);
        if let Some(object) = object.filter(|_| written) {
            return Ok(selector.matches_value(&object["metadata"]["labels"]));
        }
        let name = if is_namespace { &info.name } else { &info.namespace };
        let namespace = objects.get("", "namespaces", "", name).ok_or_else(|| format!("namespaces {name:?} not found"))?;
        Ok(selector.matches_value(&namespace["metadata"]["labels"]))
    }
}
