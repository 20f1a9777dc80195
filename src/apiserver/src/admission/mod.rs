//! Admission: plugins that may change or refuse a write after authorization and before the store.

mod asked;
mod certificate_requester;
mod certificate_signers;
mod certificate_subject;
pub mod configuration;
mod create_on_update;
mod default_class;
mod default_toleration_seconds;
pub mod event_rate_limit;
pub mod expressions;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
pub mod pod_security;
mod policies;
mod priority;
pub mod resource_quota;
mod role_escalation;
mod rounds;
mod runtime_class;
mod service_account;
mod taint_new_nodes;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{
    catalogue::{Catalogue, Resource},
    status::Status,
};
use serde_json::Value;

use crate::{
    audit::Annotations,
    authorization::Authorizers,
    metrics::admission::Admission,
    objects::Objects,
    request::{RequestInfo, User},
    warnings::Warnings,
};

pub use asked::Asked;
pub use rounds::Rounds;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// POST, or an upsert's first write.
    Create,
    /// PUT and PATCH.
    Update,
    /// DELETE.
    Delete,
    /// exec, attach, port-forward, proxy.
    Connect,
}

/// A write as plugins see it.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// What it does.
    pub operation: Operation,
    /// Who asks.
    pub user: &'a User,
    /// Group, version, resource, subresource, namespace, name (generated names are filled in).
    pub info: &'a RequestInfo,
    /// Kind of the object in the body.
    pub kind: &'a str,
    /// The object as stored, for updates and deletes.
    pub old: Option<&'a Value>,
    /// Nothing will be persisted.
    pub dry_run: bool,
    /// For what a plugin lets pass, but not in silence.
    pub warnings: &'a Warnings,
    /// For what a plugin has to say in the request's audit event.
    pub audit: &'a Annotations,
    /// In the version of the path. Objects come to plugins in the version that is stored.
    pub resource: &'a Arc<Resource>,
    /// Its parameters.
    pub asked: Asked<'a>,
    /// For who shows the object to others in other versions.
    pub kinds: &'a dyn Kinds,
    /// For who changes the object and wants to see what others make of it.
    pub rounds: &'a Rounds,
    /// For who has names of its own to count by.
    pub metrics: &'a Admission,
}

/// What is served, and how objects of one version become objects of another.
#[async_trait]
pub trait Kinds: Send + Sync + std::fmt::Debug {
    /// As it is now.
    fn catalogue(&self) -> Arc<Catalogue>;
    /// An object of `to`'s kind, whatever its version, as one of `to`. A webhook may have to be asked.
    async fn convert(&self, to: &Arc<Resource>, object: Value) -> Result<Value, Status>;
}

/// When a plugin has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// In `mutate`.
    Mutate,
    /// In `consent`.
    Consent,
    /// In `validate`.
    Validate,
    /// In `reserve`.
    Reserve,
}

/// One plugin. `mutate` runs for all plugins in order, perhaps twice (see [`Rounds`]), then `validate` for all.
#[async_trait]
pub trait Plugin: Send + Sync + std::fmt::Debug {
    /// Upstream's name: `NamespaceLifecycle`.
    fn name(&self) -> &'static str;
    /// Which of the following it has; the others are never called.
    fn says(&self) -> &'static [Say];
    /// May change the object (absent for deletes) or refuse it.
    async fn mutate(&self, _write: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// May refuse a write that brings no object, in the place of `mutate`.
    async fn consent(&self, _write: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
    /// May refuse.
    async fn validate(&self, _write: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
    /// Takes what a write needs, once nobody refuses it any more; or refuses it, as there is not enough.
    async fn reserve(&self, _write: &Attributes<'_>, _object: &Value) -> Result<Option<Box<dyn Reserved>>, Status> {
        Ok(None)
    }
}

/// What a plugin took for a write: dropped, it is given back.
pub trait Reserved: Send + std::fmt::Debug {
    /// The write stands, and can be seen.
    fn keep(self: Box<Self>);
}

/// The plugins of a server, in upstream's order.
pub fn plugins(objects: &Arc<dyn Objects>, authorizers: &Arc<Authorizers>, told: &configuration::Configuration) -> Vec<Arc<dyn Plugin>> {
    let objects = || Arc::clone(objects);
    let mut plugins: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(create_on_update::CreateOnUpdate { authorizers: Arc::clone(authorizers) }),
        Arc::new(namespace_lifecycle::NamespaceLifecycle { objects: objects() }),
        Arc::new(limit_ranger::LimitRanger { objects: objects() }),
        Arc::new(service_account::ServiceAccount { objects: objects() }),
        Arc::new(node_restriction::NodeRestriction { objects: objects() }),
        Arc::new(taint_new_nodes::TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity { objects: objects(), settings: told.pod_security.clone() }),
        Arc::new(priority::Priority { objects: objects() }),
        Arc::new(default_toleration_seconds::DefaultTolerationSeconds),
    ];
    if !told.events.is_empty() {
        plugins.push(Arc::new(event_rate_limit::EventRateLimit::new(&told.events)));
    }
    let rest: [Arc<dyn Plugin>; 12] = [
        Arc::new(default_class::DefaultStorageClass { objects: objects() }),
        Arc::new(runtime_class::RuntimeClass { objects: objects() }),
        Arc::new(certificate_requester::CertificateRequester),
        Arc::new(certificate_signers::CertificateApproval { authorizers: Arc::clone(authorizers) }),
        Arc::new(certificate_signers::CertificateSigning { authorizers: Arc::clone(authorizers) }),
        Arc::new(certificate_subject::CertificateSubjectRestriction),
        Arc::new(default_class::DefaultIngressClass { objects: objects() }),
        Arc::new(role_escalation::RoleEscalation { authorizers: Arc::clone(authorizers) }),
        Arc::new(policies::mutating::MutatingAdmissionPolicy::new(objects(), Arc::clone(authorizers))),
        Arc::new(webhook::MutatingAdmissionWebhook::new(objects(), Arc::clone(authorizers))),
        Arc::new(policies::validating::ValidatingAdmissionPolicy::new(objects(), Arc::clone(authorizers))),
        Arc::new(webhook::ValidatingAdmissionWebhook::new(objects(), Arc::clone(authorizers))),
    ];
    plugins.extend(rest);
    plugins
}

impl Attributes<'_> {
    /// Whether the write is about this resource.
    fn is(&self, group: &str, resource: &str) -> bool {
        self.info.group == group && self.info.resource == resource
    }
}

/// A plugin's no.
fn refuse(write: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(&write.info.group, &write.info.resource, &write.info.name, why)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    /// All plugins of a folder as they are written: what each says it has, and what it has.
    fn read(folder: &Path, found: &mut Vec<(String, BTreeSet<String>, BTreeSet<String>)>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                read(&entry, found);
                continue;
            }
            let text = fs::read_to_string(&entry).expect("a text");
            for part in text.split("\nimpl Plugin for ").skip(1) {
                let part = part.split("\n}\n").next().expect("a part");
                let said = part.split("Say::").skip(1).map(|rest| rest.split([',', ']', ' ']).next().expect("a word").to_lowercase());
                let has = part.split("\n    async fn ").skip(1).map(|rest| rest.split('(').next().expect("a name").to_owned());
                found.push((part.split(' ').next().expect("a name").to_owned(), said.collect(), has.collect()));
            }
        }
    }

    #[test]
    fn every_plugin_says_what_it_has() {
        let mut found = Vec::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admission"), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for (plugin, said, has) in found {
            assert_eq!(said, has, "{plugin}: what is not said is never asked");
            assert!(!has.is_empty(), "{plugin}");
        }
    }
}
