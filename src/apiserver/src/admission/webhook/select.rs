//! Whether a webhook is asked about a write, and in which version.

use std::sync::{Arc, OnceLock};

use coracle_api::{catalogue, status::Status};
use serde_json::Value;

use super::{
    Attributes, Operation,
    configuration::Hook,
    failed,
    review::{Kind, Resource},
    rules::{Rule, Subject},
};
use crate::{
    admission::expressions::{Asker, Input, conditions::Match, request},
    authorization::Authorizers,
    metrics::admission::Named,
    objects::Objects,
};

/// The write as it is looked at by all webhooks: what they share is found once.
pub(super) struct Sight<'w> {
    pub write: &'w Attributes<'w>,
    /// Of the write; a namespace is in itself.
    pub namespace: &'w str,
    objects: &'w dyn Objects,
    authorizers: &'w Authorizers,
    held: OnceLock<Option<Value>>,
}

/// One webhook that is to be asked, and how it wants to see the object.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    pub resource: Arc<catalogue::Resource>,
}

impl<'w> Sight<'w> {
    pub fn new(write: &'w Attributes<'w>, objects: &'w dyn Objects, authorizers: &'w Authorizers) -> Self {
        let info = write.info;
        let own = info.namespace.is_empty() && write.is("", "namespaces");
        Self { write, namespace: if own { &info.name } else { &info.namespace }, objects, authorizers, held: OnceLock::new() }
    }

    /// How the webhook is asked; `None` when it is not.
    pub fn select(&self, hook: &Hook, object: Option<&Value>) -> Result<Option<Invocation>, Status> {
        let in_namespace = self.namespace_matches(hook, object);
        if matches!(in_namespace, Ok(false)) || matches!(self.labels_match(hook, object), Ok(false)) {
            return Ok(None);
        }
        let Some(invocation) = self.by_rules(hook) else { return Ok(None) };
        in_namespace?;
        self.labels_match(hook, object)?;
        Ok(Some(invocation))
    }

    /// Whether the webhook's conditions hold; the objects are in the version of the invocation.
    pub fn holds(
        &self,
        hook: &Hook,
        named: Named<'_>,
        invocation: &Invocation,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<bool, Status> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let write = self.write;
        let request = request::of(write, &invocation.resource);
        let authorizer = &Asker { authorizers: self.authorizers, user: write.user, info: write.info };
        let input = Input { object, old, request: &request, namespace: None, params: None, authorizer };
        match hook.conditions.judge(&input, &[], write.metrics, named) {
            Match::Holds => Ok(true),
            Match::Excluded(_) => Ok(false),
            Match::Failed(_) if hook.optional => Ok(false),
            Match::Failed(why) => Err(Status::forbidden(&write.info.group, &write.info.resource, &write.info.name, &why)),
        }
    }

    fn namespace_matches(&self, hook: &Hook, object: Option<&Value>) -> Result<bool, Status> {
        let write = self.write;
        // The selector exempts nothing of the cluster but namespaces.
        if self.namespace.is_empty() && write.info.resource != "namespaces" {
            return Ok(true);
        }
        let selector = hook.namespaces.as_ref().map_err(|why| failed(why))?;
        if selector.is_everything() {
            return Ok(true);
        }
        // A namespace that is written is what it will be.
        let own = write.info.resource == "namespaces"
            && write.info.subresource.is_empty()
            && matches!(write.operation, Operation::Create | Operation::Update);
        let labels = match object.filter(|_| own) {
            Some(object) => Some(&object["metadata"]["labels"]),
            None => {
                self.held.get_or_init(|| self.objects.get("", "namespaces", "", self.namespace)).as_ref().map(|n| &n["metadata"]["labels"])
            }
        };
        labels.map(|labels| selector.matches_value(labels)).ok_or_else(|| Status::not_found("", "namespaces", self.namespace))
    }

    fn labels_match(&self, hook: &Hook, object: Option<&Value>) -> Result<bool, Status> {
        let selector = hook.labels.as_ref().map_err(|why| failed(why))?;
        let matches = |object: Option<&Value>| object.is_some_and(|object| selector.matches_value(&object["metadata"]["labels"]));
        Ok(selector.is_everything() || matches(object) || matches(self.write.old))
    }

    fn by_rules(&self, hook: &Hook) -> Option<Invocation> {
        let write = self.write;
        let covers = |rule: &Rule, resource: &catalogue::Resource| {
            rule.covers(Subject {
                operation: request::word(write.operation),
                group: &resource.group,
                version: &resource.version,
                resource: &resource.plural,
                subresource: &write.info.subresource,
                namespace: self.namespace,
            })
        };
        if hook.rules.iter().any(|rule| covers(rule, write.resource)) {
            return Some(Invocation { resource: Arc::clone(write.resource) });
        }
        if hook.exact {
            return None;
        }
        // The same objects under other names; earlier rules count first.
        let catalogue = write.kinds.catalogue();
        let same = |other: &&Arc<catalogue::Resource>| other.storage == write.resource.storage && !Arc::ptr_eq(other, write.resource);
        let others: Vec<_> = catalogue.resources().iter().filter(same).collect();
        let found = hook.rules.iter().find_map(|rule| others.iter().find(|other| covers(rule, other)));
        found.map(|resource| Invocation { resource: Arc::clone(resource) })
    }
}

/// The kind of a resource, or of its subresource.
pub(super) fn kind(resource: &catalogue::Resource, subresource: &str) -> Kind {
    match resource.subresource(subresource) {
        Some(part) => Kind { group: part.group.clone(), version: part.version.clone(), kind: part.kind.clone() },
        None => Kind { group: resource.group.clone(), version: resource.version.clone(), kind: resource.kind.clone() },
    }
}

/// The name of a resource.
pub(super) fn resource(resource: &catalogue::Resource) -> Resource {
    Resource { group: resource.group.clone(), version: resource.version.clone(), resource: resource.plural.clone() }
}

/// Whether the write's object is one of the resource itself, which has versions, and no Scale, Binding or Eviction.
pub(super) fn is_whole(resource: &catalogue::Resource, subresource: &str) -> bool {
    resource.subresource(subresource).is_none_or(|part| part.kind == resource.kind)
}
