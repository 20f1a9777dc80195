//! Roles and bindings at one moment, ready to be asked.

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use super::{GROUP, Rule};
use crate::{
    authorization::{Decision, Question},
    request::User,
};

/// Roles and bindings at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
    cluster_bindings: Vec<Binding>,
    bindings: HashMap<String, Vec<Binding>>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    namespace: String,
    role_kind: String,
    role_name: String,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// A rule that applies to a user, and by which binding.
struct Applying<'a> {
    rule: &'a Rule,
    binding: &'a Binding,
    subject: &'a Subject,
}

impl Snapshot {
    /// From the objects of the four kinds.
    pub fn new(cluster_roles: &[Value], cluster_bindings: &[Value], roles: &[Value], bindings: &[Value]) -> Self {
        let own: Vec<(&Value, Vec<Rule>)> = cluster_roles.iter().map(|role| (role, rules_of(role))).collect();
        let mut out = Self::default();
        for (role, rules) in &own {
            let rules = aggregated(role, &own).unwrap_or_else(|| rules.clone());
            out.cluster_roles.insert(text(role, "/metadata/name"), rules.into());
        }
        for role in roles {
            out.roles.insert((text(role, "/metadata/namespace"), text(role, "/metadata/name")), rules_of(role).into());
        }
        out.cluster_bindings = cluster_bindings.iter().map(binding).collect();
        for value in bindings {
            let binding = binding(value);
            out.bindings.entry(binding.namespace.clone()).or_default().push(binding);
        }
        out
    }

    /// Allows what a rule of a role that is bound to the user allows.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let mut missing = Vec::new();
        for applying in self.applying(question.user, question.namespace, &mut missing) {
            if applying.rule.allows(question) {
                return Decision::Allow(applying.reason());
            }
        }
        match &missing[..] {
            [] => Decision::NoOpinion(String::new()),
            [one] => Decision::NoOpinion(format!("RBAC: {one}")),
            many => Decision::NoOpinion(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    /// All rules that apply to a user in a namespace (cluster-wide ones for an empty one), and the roles that were bound but do not exist.
    pub fn rules(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut missing = Vec::new();
        let rules = self.applying(user, namespace, &mut missing).into_iter().map(|applying| applying.rule.clone()).collect();
        (rules, missing)
    }

    /// The rules of a role, as `roleRef` names it from a namespace.
    pub fn role(&self, kind: &str, name: &str, namespace: &str) -> Option<Arc<[Rule]>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())),
        }
        .cloned()
    }

    fn applying<'a>(&'a self, user: &User, namespace: &str, missing: &mut Vec<String>) -> Vec<Applying<'a>> {
        let local = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        let mut out = Vec::new();
        for binding in self.cluster_bindings.iter().chain(local.into_iter().flatten()) {
            let Some(subject) = binding.subjects.iter().find(|subject| subject.is(user, &binding.namespace)) else { continue };
            let rules = match binding.role_kind.as_str() {
                "ClusterRole" => self.cluster_roles.get(&binding.role_name),
                _ => self.roles.get(&(binding.namespace.clone(), binding.role_name.clone())),
            };
            match rules {
                Some(rules) => out.extend(rules.iter().map(|rule| Applying { rule, binding, subject })),
                None => missing.push(format!("{}.{GROUP} {:?} not found", binding.role_kind.to_lowercase(), binding.role_name)),
            }
        }
        out
    }
}

impl Applying<'_> {
    /// In upstream's words, which `kubectl auth can-i` shows.
    fn reason(&self) -> String {
        let Binding { name, namespace, role_kind, role_name, .. } = self.binding;
        let (kind, place) =
            if namespace.is_empty() { ("ClusterRoleBinding", name.clone()) } else { ("RoleBinding", format!("{name}/{namespace}")) };
        let subject = match self.subject.kind.as_str() {
            "ServiceAccount" => format!("{}/{}", self.subject.name, self.subject.namespace),
            _ => self.subject.name.clone(),
        };
        format!("RBAC: allowed by {kind} {place:?} of {role_kind} {role_name:?} to {} {subject:?}", self.subject.kind)
    }
}

impl Subject {
    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                !namespace.is_empty() && rest == Some((namespace, self.name.as_str()))
            }
            _ => false,
        }
    }
}

/// The union of the roles that an aggregated one selects; `None` for a role of its own rules.
fn aggregated(role: &Value, all: &[(&Value, Vec<Rule>)]) -> Option<Vec<Rule>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let name = role.pointer("/metadata/name");
    let mut out: Vec<Rule> = Vec::new();
    for (other, rules) in all {
        let labels = other.pointer("/metadata/labels");
        if other.pointer("/metadata/name") != name && selectors.iter().any(|selector| selects(selector, labels)) {
            for rule in rules {
                if !out.contains(rule) {
                    out.push(rule.clone());
                }
            }
        }
    }
    Some(out)
}

/// A LabelSelector over labels as JSON.
fn selects(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let exact = selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| label(key) == value.as_str());
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten().all(|term| {
        let value = label(term["key"].as_str().unwrap_or_default());
        let among = || term["values"].as_array().is_some_and(|values| value.is_some_and(|value| values.iter().any(|v| v == value)));
        match term["operator"].as_str() {
            Some("In") => among(),
            Some("NotIn") => !among(),
            Some("Exists") => value.is_some(),
            Some("DoesNotExist") => value.is_none(),
            _ => false,
        }
    });
    exact && expressions
}

/// The rules of a Role or ClusterRole.
pub(crate) fn rules_of(role: &Value) -> Vec<Rule> {
    role["rules"].as_array().into_iter().flatten().filter_map(|rule| serde::Deserialize::deserialize(rule).ok()).collect()
}

fn binding(value: &Value) -> Binding {
    let subject =
        |subject: &Value| Subject { kind: text(subject, "/kind"), name: text(subject, "/name"), namespace: text(subject, "/namespace") };
    Binding {
        name: text(value, "/metadata/name"),
        namespace: text(value, "/metadata/namespace"),
        role_kind: text(value, "/roleRef/kind"),
        role_name: text(value, "/roleRef/name"),
        subjects: value["subjects"].as_array().into_iter().flatten().map(subject).collect(),
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
