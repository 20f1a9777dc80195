//! What expressions of policies and webhooks can see of one write: its values, the request, who asks and what that user may do.

pub mod conditions;
pub mod matching;
pub mod request;

use coracle_api::cel::{
    Value as Cel,
    authorizer::{Authorize, Decision, Question},
    scope::{Scope, Variable},
};
use serde_json::Value;

use crate::{
    authorization::{self, Authorizers},
    request::{RequestInfo, User},
};

/// One write, for expressions. What is absent is `null` to them.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The object in the version that was matched; absent for deletes.
    pub object: Option<&'a Value>,
    /// What was there before, in the same version.
    pub old: Option<&'a Value>,
    /// [`request::of`] it.
    pub request: &'a Value,
    /// The namespace of the object.
    pub namespace: Option<&'a Value>,
    /// The parameters of the policy's binding.
    pub params: Option<&'a Value>,
    /// Who is asked what users may do.
    pub authorizer: &'a Asker<'a>,
}

impl<'a> Input<'a> {
    /// The values that expressions are asked of, with this much to spend.
    pub fn scope(&self, variables: &'a [Variable], budget: u64) -> Scope<'a> {
        let value = |json: Option<&'a Value>| json.map_or(Cel::Null, |json| Cel::of(json, None));
        let names = vec![
            ("object", value(self.object)),
            ("oldObject", value(self.old)),
            ("request", value(Some(self.request))),
            ("namespaceObject", value(self.namespace)),
            ("params", value(self.params)),
            ("authorizer", Cel::authorizer(self.authorizer)),
        ];
        Scope::new(names, variables, budget)
    }
}

/// Asks the server's authorizers on behalf of expressions.
#[derive(Debug)]
pub struct Asker<'a> {
    /// All of them.
    pub authorizers: &'a Authorizers,
    /// Who asks.
    pub user: &'a User,
    /// What is written.
    pub info: &'a RequestInfo,
}

impl Authorize for Asker<'_> {
    fn decide(&self, question: &Question) -> Decision {
        let account = question.account.as_ref().map(|(namespace, name)| service_account(namespace, name));
        let user = account.as_ref().unwrap_or(self.user);
        let blank = authorization::Question::blank(user);
        let asked = match &question.path {
            Some(path) => authorization::Question { verb: &question.verb, path, ..blank },
            None => authorization::Question {
                verb: &question.verb,
                is_resource: true,
                group: &question.group,
                version: "*",
                resource: &question.resource,
                subresource: &question.subresource,
                namespace: &question.namespace,
                name: &question.name,
                field_selector: &question.field_selector,
                ..blank
            },
        };
        match self.authorizers.decide(&asked) {
            authorization::Decision::Allow(reason) => Decision { allowed: true, reason, error: String::new() },
            authorization::Decision::Deny(reason) | authorization::Decision::NoOpinion(reason) => {
                Decision { allowed: false, reason, error: String::new() }
            }
        }
    }

    fn request_resource(&self) -> Question {
        Question {
            group: self.info.group.clone(),
            resource: self.info.resource.clone(),
            subresource: self.info.subresource.clone(),
            namespace: self.info.namespace.clone(),
            name: self.info.name.clone(),
            ..Question::default()
        }
    }
}

/// The user that a service account is.
fn service_account(namespace: &str, name: &str) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}"), "system:authenticated".to_owned()],
        ..User::default()
    }
}
