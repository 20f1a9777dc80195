//! Validation: what must hold of an object, with field and reason for each thing that does not.

mod access;
mod certificates;
mod core_kinds;
mod custom;
mod definition;
mod devices;
mod events;
mod extensions;
mod field;
mod general;
mod metadata;
mod networking;
mod pod;
mod policies;
mod rules;
mod service;
mod storage;
pub mod warnings;
mod workloads;

use std::cell::RefCell;

use serde_json::Value;

use crate::catalogue::Resource;
use crate::status::Cause;
use field::Field;

/// What is wrong with a new object (after defaulting); empty when it may be created.
pub fn create(resource: &Resource, object: &Value) -> Vec<Cause> {
    let causes = RefCell::default();
    let field = Field::root(object, &causes);
    if !is_a_review(resource) {
        metadata::create(resource, &field);
    }
    content(resource, &field, None, "");
    causes.into_inner()
}

/// What is wrong with an object that takes the place of `old`; `subresource` is empty for the main resource.
pub fn update(resource: &Resource, new: &Value, old: &Value, subresource: &str) -> Vec<Cause> {
    let causes = RefCell::default();
    let field = Field::root(new, &causes);
    metadata::update(resource, &field, old);
    if subresource.is_empty() {
        unchanging(resource, &field, old);
    }
    content(resource, &field, Some(old), subresource);
    if subresource.is_empty() && looked_at_twice(resource) {
        content(resource, &field, None, subresource);
    }
    causes.into_inner()
}

/// What else is wrong with an object that is stored in one version and written by a client of another, `asked`; `object` is as it is stored.
pub fn asked(asked: &Resource, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
    if asked.plural == "events" && !asked.custom && subresource.is_empty() { events::check(asked, object, old) } else { Vec::new() }
}

/// Kinds that upstream looks at as at new objects and as at changed ones: what is wrong is told twice.
fn looked_at_twice(resource: &Resource) -> bool {
    !resource.custom && matches!((resource.group.as_str(), resource.plural.as_str()), ("", "persistentvolumes") | ("batch", "jobs"))
}

/// Fields that may never change once the object exists, of kinds that have no other rule about change.
const UNCHANGING: [(&str, &[&str]); 8] = [
    ("controllerrevisions", &["data"]),
    ("resourceclaims", &["spec"]),
    ("resourceclaimtemplates", &["spec"]),
    ("ipaddresses", &["spec.parentRef"]),
    ("csidrivers", &["spec.attachRequired", "spec.volumeLifecycleModes"]),
    ("csistoragecapacities", &["nodeTopology", "storageClassName"]),
    ("resourcequotas", &["spec.scopes"]),
    ("runtimeclasses", &["handler"]),
];

fn unchanging(resource: &Resource, object: &Field<'_>, old: &Value) {
    let Some((_, paths)) = UNCHANGING.iter().find(|(plural, _)| !resource.custom && resource.plural == *plural) else { return };
    for path in *paths {
        let names: Vec<&str> = path.split('.').collect();
        compare(object, old, &names);
    }
}

fn compare(field: &Field<'_>, old: &Value, names: &[&str]) {
    match names {
        [] => rules::immutable(field, old),
        [name, rest @ ..] => compare(&field.at(name), &old[*name], rest),
    }
}

/// Questions to the server are not stored and have no names.
fn is_a_review(resource: &Resource) -> bool {
    !resource.custom && (!resource.serves("get") || resource.plural == "bindings")
}

fn content(resource: &Resource, object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    if resource.custom {
        return custom::check(resource, object, old);
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => match old {
            Some(old) => pod::update(object, old, subresource),
            None => pod::create(object),
        },
        ("", "podtemplates") => pod::template(&object.at("template")),
        ("", "services") => service::check(object, old, subresource),
        ("", "endpoints") => service::endpoints(object),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object, old),
        ("", "persistentvolumes" | "persistentvolumeclaims") | ("storage.k8s.io", _) => storage::check(resource, object, old, subresource),
        ("", _) | ("events.k8s.io" | "coordination.k8s.io" | "scheduling.k8s.io" | "node.k8s.io", _) => {
            core_kinds::check(resource, object, old, subresource);
        }
        ("apps" | "batch" | "autoscaling" | "policy", _) => workloads::check(resource, object, old, subresource),
        ("networking.k8s.io", _) => networking::check(resource, object, old),
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::check(object, old, subresource),
        ("rbac.authorization.k8s.io" | "certificates.k8s.io" | "authentication.k8s.io" | "authorization.k8s.io", _) => {
            access::check(resource, object, old);
        }
        ("apiextensions.k8s.io", _) => definition::check(object, old, subresource),
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io" | "flowcontrol.apiserver.k8s.io", _) => {
            extensions::check(resource, object);
        }
        ("resource.k8s.io", _) => devices::check(resource, object, old, subresource),
        _ => general::check(&resource.schema, object),
    }
}

#[cfg(test)]
mod tests;
