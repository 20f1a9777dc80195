//! A PUT or an apply that creates needs the right to create as well.
//!
//! Upstream wraps this around its storage; here it is a plugin like any other check of a write.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::authorization::{Authorizers, Question};

/// The plugin.
#[derive(Debug)]
pub struct CreateOnUpdate {
    /// Who may do what.
    pub authorizers: Arc<Authorizers>,
}

#[async_trait]
impl Plugin for CreateOnUpdate {
    fn name(&self) -> &'static str {
        "CreateOnUpdate"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let info = write.info;
        if write.operation != Operation::Create || info.verb == "create" {
            return Ok(());
        }
        let (group, version, resource, namespace) = (&info.group, &info.version, &info.resource, &info.namespace);
        let blank = Question::blank(write.user);
        let question = Question { verb: "create", is_resource: true, group, version, resource, namespace, name: &info.name, ..blank };
        if self.authorizers.allows(&question) {
            return Ok(());
        }
        let place = if namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {namespace:?}") };
        let why = format!("User {:?} cannot create resource {resource:?} in API group {group:?} {place}", write.user.name);
        Err(refuse(write, &why))
    }
}
