//! The Node authorizer: a node reads what its own pods reference and writes what is its own, nothing else.
//!
//! What a pod references is read off once per revision of the pod and kept while the pod is on the node.

mod references;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{Decision, Question, rbac::Rule};
use crate::objects::Objects;
pub use references::References;

/// Group of all nodes.
pub const NODES_GROUP: &str = "system:nodes";
/// What a node's user name starts with.
pub const NODE_PREFIX: &str = "system:node:";
/// Where nodes keep their heartbeats.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The name of the node that a user is, if it is one; the group without a name is `Some("")`.
pub fn node_name(user: &crate::request::User) -> Option<&str> {
    if !user.groups.iter().any(|group| group == NODES_GROUP) {
        return None;
    }
    user.name.strip_prefix(NODE_PREFIX)
}

/// The references of the pods of one namespace on one node, by pod; each with the revision it was read at.
type Known = HashMap<String, (u64, Arc<References>)>;

/// Allows nodes what their pods need.
#[derive(Debug)]
pub struct NodeAuthorizer {
    objects: Arc<dyn Objects>,
    /// By node and namespace.
    known: Mutex<HashMap<(String, String), Known>>,
}

impl NodeAuthorizer {
    /// Over these objects.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, known: Mutex::default() }
    }

    /// Allows a node what its pods need; has no opinion on anybody else.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let Some(node) = node_name(question.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", question.user.name));
        }
        if question.is_resource {
            let verdict = match (question.group, question.resource) {
                ("", "secrets" | "configmaps") => self.read_namespaced(question, node),
                ("", "persistentvolumeclaims") if question.subresource == "status" => self.update_status(question, node),
                ("", "persistentvolumeclaims" | "persistentvolumes") => self.get(question, node),
                ("resource.k8s.io", "resourceclaims") | ("storage.k8s.io", "volumeattachments") => self.get(question, node),
                ("", "serviceaccounts") => self.service_account(question, node),
                ("coordination.k8s.io", "leases") => lease(question, node),
                ("storage.k8s.io", "csinodes") => own_object(question, node, "CSINode"),
                ("", "nodes") => own_node(question, node),
                ("", "pods") => self.pod(question, node),
                _ => Verdict::Rules,
            };
            match verdict {
                Verdict::Allow => return Decision::Allow(String::new()),
                Verdict::No(why) => return no(why),
                Verdict::Rules => {}
            }
        }
        if node_rules().iter().any(|rule| rule.allows(question)) { Decision::Allow(String::new()) } else { no(String::new()) }
    }

    fn read_namespaced(&self, question: &Question<'_>, node: &str) -> Verdict {
        if !matches!(question.verb, "get" | "list" | "watch") {
            return Verdict::No("can only read resources of this type".into());
        }
        if !question.subresource.is_empty() {
            return Verdict::No("cannot read subresource".into());
        }
        if question.namespace.is_empty() {
            return Verdict::No("can only read namespaced object of this type".into());
        }
        self.referenced(question, node)
    }

    fn get(&self, question: &Question<'_>, node: &str) -> Verdict {
        if question.verb != "get" {
            return Verdict::No("can only get individual resources of this type".into());
        }
        if !question.subresource.is_empty() {
            return Verdict::No("cannot get subresource".into());
        }
        self.referenced(question, node)
    }

    fn update_status(&self, question: &Question<'_>, node: &str) -> Verdict {
        match question.verb {
            "update" | "patch" | "get" => self.referenced(question, node),
            _ => Verdict::No("can only get/update/patch this type".into()),
        }
    }

    fn service_account(&self, question: &Question<'_>, node: &str) -> Verdict {
        match (question.verb, question.subresource) {
            ("create", "token") | ("get", "") => self.referenced(question, node),
            (_, "token") => Verdict::No("can only create tokens for individual service accounts".into()),
            _ => Verdict::No("can only get individual service accounts".into()),
        }
    }

    fn pod(&self, question: &Question<'_>, node: &str) -> Verdict {
        match (question.subresource, question.verb) {
            // Admission (NodeRestriction) confines these to the node's own pods.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Verdict::Allow,
            ("", "get") => {
                let on_node = || self.objects.pods_on(node, question.namespace).iter().any(|pod| pod.name == question.name);
                Verdict::when(!question.name.is_empty() && on_node(), || unrelated(node))
            }
            ("", "list" | "watch") => {
                let own = format!("spec.nodeName={node}");
                let selected = question.field_selector.split(',').any(|term| term.replacen("==", "=", 1) == own);
                Verdict::when(selected, || format!("can only list/watch pods with spec.nodeName field selector of node {node:?}"))
            }
            _ => Verdict::Rules,
        }
    }

    /// Whether a pod on the node references the object.
    fn referenced(&self, question: &Question<'_>, node: &str) -> Verdict {
        if question.name.is_empty() {
            return Verdict::No("No Object name found".into());
        }
        let found = match question.resource {
            "persistentvolumes" => self.objects.get("", "persistentvolumes", "", question.name).is_some_and(|volume| {
                let claim = |field: &str| {
                    volume.pointer(&format!("/spec/claimRef/{field}")).and_then(serde_json::Value::as_str).unwrap_or_default()
                };
                self.any(node, claim("namespace"), |pod| pod.claims.contains(claim("name")))
            }),
            "volumeattachments" => self
                .objects
                .get("storage.k8s.io", "volumeattachments", "", question.name)
                .is_some_and(|attachment| attachment.pointer("/spec/nodeName").is_some_and(|name| name == node)),
            _ => self.any(node, question.namespace, |pod| pod.holds(question.resource, question.name)),
        };
        Verdict::when(found, || unrelated(node))
    }

    fn any(&self, node: &str, namespace: &str, test: impl Fn(&References) -> bool) -> bool {
        let records = self.objects.pods_on(node, namespace);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (node.to_owned(), namespace.to_owned());
        let mut before = known.remove(&place).unwrap_or_default();
        let mut now = Known::with_capacity(records.len());
        for record in records {
            let references = match before.remove(&record.name) {
                Some((revision, references)) if revision == record.revision => references,
                _ => Arc::new(References::of(&(record.decode)())),
            };
            now.insert(record.name, (record.revision, references));
        }
        let found = now.values().any(|(_, references)| test(references));
        if !now.is_empty() {
            known.insert(place, now);
        }
        found
    }
}

/// One resource's word.
enum Verdict {
    Allow,
    No(String),
    /// What all nodes may do decides.
    Rules,
}

impl Verdict {
    fn when(yes: bool, why: impl FnOnce() -> String) -> Self {
        if yes { Self::Allow } else { Self::No(why()) }
    }
}

fn no(why: String) -> Decision {
    Decision::NoOpinion(why)
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn lease(question: &Question<'_>, node: &str) -> Verdict {
    if !matches!(question.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::No("can only get, create, update, patch, or delete a node lease".into());
    }
    if question.namespace != LEASE_NAMESPACE {
        return Verdict::No(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    Verdict::when(question.verb == "create" || question.name == node, || {
        "can only access node lease with the same name as the requesting node".into()
    })
}

fn own_object(question: &Question<'_>, node: &str, kind: &str) -> Verdict {
    if !matches!(question.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Verdict::No(format!("can only get, create, update, patch, or delete a {kind}"));
    }
    if !question.subresource.is_empty() {
        return Verdict::No(format!("cannot authorize {kind} subresources"));
    }
    Verdict::when(question.verb == "create" || question.name == node, || {
        format!("can only access {kind} with the same name as the requesting node")
    })
}

fn own_node(question: &Question<'_>, node: &str) -> Verdict {
    match (question.subresource, question.verb) {
        // Admission (NodeRestriction) confines these to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Verdict::Allow,
        ("", "get" | "list" | "watch") => {
            let what = question.name;
            Verdict::when(what == node, || format!("node '{node}' cannot read '{what}', only its own Node object"))
        }
        _ => Verdict::Rules,
    }
}

/// What all nodes may do: the rules of the ClusterRole `system:node` as it is shipped, whatever became of the one in the cluster.
fn node_rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let roles = coracle_api::catalogue::bootstrap::cluster_roles();
        let role = roles.iter().find(|role| role.pointer("/metadata/name").is_some_and(|name| name == "system:node"));
        role.map(super::rbac::rules_of).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests;
