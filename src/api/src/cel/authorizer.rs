//! The authorizer library: an expression asks what a user may do.

use std::fmt;
use std::rc::Rc;

use super::{
    EvalError, Value,
    eval::failed,
    types::{AUTHORIZER, RESOURCE_CHECK},
};
use crate::names;

/// What an expression asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of a service account, if it is not about the user of the request.
    pub account: Option<(String, String)>,
    /// `get`, `create`, ...
    pub verb: String,
    /// Of a question that is not about a resource.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Empty for none.
    pub subresource: String,
    /// Empty for cluster scope and all namespaces.
    pub namespace: String,
    /// Empty for any.
    pub name: String,
    /// Of a collection.
    pub field_selector: String,
    /// Of a collection.
    pub label_selector: String,
}

/// What the authorizer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Yes.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong, if something did.
    pub error: String,
}

/// Who answers.
pub trait Authorize: fmt::Debug {
    /// The answer.
    fn decide(&self, question: &Question) -> Decision;
    /// The resource of the request at hand.
    fn request_resource(&self) -> Question;
}

/// How far a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    User,
    Path,
    Group,
    Resource,
}

/// A question on its way.
#[derive(Clone, Debug)]
pub struct Check<'v> {
    authorizer: &'v dyn Authorize,
    stage: Stage,
    question: Question,
}

impl<'v> Value<'v> {
    /// The variable `authorizer`.
    pub fn authorizer(authorizer: &'v dyn Authorize) -> Self {
        Self::Check(Rc::new(Check { authorizer, stage: Stage::User, question: Question::default() }))
    }
}

impl<'v> Check<'v> {
    /// Name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::User => AUTHORIZER,
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => RESOURCE_CHECK,
        }
    }

    /// `authorizer.requestResource`
    pub(super) fn field(&self, name: &str) -> Option<Value<'v>> {
        (self.stage == Stage::User && name == "requestResource").then(|| {
            let question = Question { account: self.question.account.clone(), ..self.authorizer.request_resource() };
            Value::Check(Rc::new(Check { authorizer: self.authorizer, stage: Stage::Resource, question }))
        })
    }

    /// A step of a question; `None` when this one has no such step.
    fn step(&self, name: &str, args: &[&str]) -> Option<Result<Value<'v>, EvalError>> {
        let mut next = self.clone();
        let own = |text: &&str| (*text).to_owned();
        match (self.stage, name, args) {
            (Stage::User, "path", [path]) if path.trim().is_empty() => return Some(failed("path must not be empty")),
            (Stage::User, "path", [path]) => (next.stage, next.question.path) = (Stage::Path, Some(own(path))),
            (Stage::User, "group", [group]) => (next.stage, next.question.group) = (Stage::Group, own(group)),
            (Stage::User, "serviceAccount", [namespace, account]) => {
                if names::dns_subdomain(account).is_err() {
                    return Some(failed("Invalid service account name"));
                }
                if names::dns_label(namespace).is_err() {
                    return Some(failed("Invalid service account namespace"));
                }
                next.question.account = Some((own(namespace), own(account)));
            }
            (Stage::Group, "resource", [resource]) if resource.trim().is_empty() => return Some(failed("resource must not be empty")),
            (Stage::Group, "resource", [resource]) => (next.stage, next.question.resource) = (Stage::Resource, own(resource)),
            (Stage::Resource, "subresource", [text]) => next.question.subresource = own(text),
            (Stage::Resource, "namespace", [text]) => next.question.namespace = own(text),
            (Stage::Resource, "name", [text]) => next.question.name = own(text),
            (Stage::Resource, "fieldSelector", [text]) => next.question.field_selector = own(text),
            (Stage::Resource, "labelSelector", [text]) => next.question.label_selector = own(text),
            (Stage::Resource | Stage::Path, "check", [verb]) => {
                next.question.verb = own(verb);
                return Some(Ok(Value::Decision(Rc::new(self.authorizer.decide(&next.question)))));
            }
            _ => return None,
        }
        Some(Ok(Value::Check(Rc::new(next))))
    }
}

/// Calls one of the library; `None` when none has this name for these.
pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Result<Value<'v>, EvalError>> {
    match args {
        [Value::Check(check), rest @ ..] => {
            let texts: Option<Vec<&str>> = rest.iter().map(Value::as_text).collect();
            check.step(name, &texts?)
        }
        [Value::Decision(decision)] => Some(Ok(match name {
            "allowed" => Value::Bool(decision.allowed),
            "reason" => Value::text(&decision.reason),
            "errored" => Value::Bool(!decision.error.is_empty()),
            "error" => Value::text(&decision.error),
            _ => return None,
        })),
        _ => None,
    }
}
