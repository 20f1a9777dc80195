//! Authorization: may this user do this? Asked in order: the administrators' group, the Node authorizer, RBAC.

pub mod masters;
pub mod node;
pub mod rbac;

use crate::{
    request::{RequestInfo, User},
    request_info,
};

/// A question to the authorizers.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, ...
    pub verb: &'a str,
    /// Whether the rest but `path` counts.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Empty for none.
    pub subresource: &'a str,
    /// Empty for cluster scope and all namespaces.
    pub namespace: &'a str,
    /// Empty for any.
    pub name: &'a str,
    /// Of a request that is not about a resource.
    pub path: &'a str,
    /// Of a collection, as it came.
    pub field_selector: &'a str,
}

impl<'a> Question<'a> {
    /// A question of a user about nothing yet.
    pub fn blank(user: &'a User) -> Self {
        Self {
            user,
            verb: "",
            is_resource: false,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            field_selector: "",
        }
    }

    /// What the request at hand asks.
    pub fn of(user: &'a User, info: &'a RequestInfo, query: &'a [(String, String)]) -> Self {
        let selected = || request_info::selected_name(query).unwrap_or_default();
        Self {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: if info.name.is_empty() { selected() } else { &info.name },
            path: &info.path,
            field_selector: query.iter().find(|(key, _)| key == "fieldSelector").map(|(_, value)| value.as_str()).unwrap_or_default(),
        }
    }

    /// `pods/log`.
    pub fn combined_resource(&self) -> String {
        if self.subresource.is_empty() { self.resource.to_owned() } else { format!("{}/{}", self.resource, self.subresource) }
    }

    /// The sentence of a refusal, as upstream words it.
    pub fn refusal(&self, reason: &str) -> String {
        let user = &self.user.name;
        let mut text = if self.is_resource {
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!("User {user:?} cannot {} resource {:?} in API group {:?} {place}", self.verb, self.combined_resource(), self.group)
        } else {
            format!("User {user:?} cannot {} path {:?}", self.verb, self.path)
        };
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }
}

/// What one authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, because.
    Allow(String),
    /// No, and nobody else is asked.
    Deny(String),
    /// Others may know; why this one does not, if that helps.
    NoOpinion(String),
}

/// The authorizers of a server.
#[derive(Debug)]
pub struct Authorizers {
    /// What a node's pods reference.
    pub node: node::NodeAuthorizer,
    /// Roles and bindings.
    pub rbac: rbac::RbacAuthorizer,
}

impl Authorizers {
    /// Asks all in order; `NoOpinion` means no and carries every reason.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        if let allowed @ Decision::Allow(_) = masters::decide(question) {
            return allowed;
        }
        let mut reasons = Vec::new();
        for decide in [|all: &Self, q: &Question<'_>| all.node.decide(q), |all: &Self, q: &Question<'_>| all.rbac.decide(q)] {
            match decide(self, question) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Whether the answer is yes.
    pub fn allows(&self, question: &Question<'_>) -> bool {
        matches!(self.decide(question), Decision::Allow(_))
    }
}
