//! ResourceQuota: what an object takes, which quotas it falls under, and whether it still fits. Admission and the controller count by it alike.

mod admit;
mod claims;
mod limited;
mod pods;
mod scope;
#[cfg(test)]
mod tests;

pub use admit::{Ask, Charge, Limits, Refusal, total};
pub use limited::{Limited, Uncovered};
pub use pods::forgiven_at;
pub use scope::Scope;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::{amounts::Map, quantity::Quantity};

/// Kinds that quotas count under a name of their own, besides `count/...`.
const ALIASES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Kinds that are asked but never stored, and the Events of the core group.
const UNCOUNTED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// How the objects of a resource are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    count: String,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Pods,
    Services,
    VolumeClaims,
    DeviceClaims,
    /// One by one; some have an older name, too.
    Each(Option<&'static str>),
}

/// What an object takes, and what scopes are decided by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measure {
    /// By resource name.
    pub usage: Map,
    traits: Traits,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Traits {
    #[default]
    None,
    Pod {
        terminating: bool,
        best_effort: bool,
        priority_class: String,
        /// Some affinity reaches into other namespaces.
        across: bool,
    },
    VolumeClaim {
        attributes_classes: Vec<String>,
    },
}

impl Kind {
    /// The rule of a resource. `None`: no quota counts it.
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        if UNCOUNTED.contains(&(group, resource)) {
            return None;
        }
        let rule = match (group, resource) {
            ("", "pods") => Rule::Pods,
            ("", "services") => Rule::Services,
            ("", "persistentvolumeclaims") => Rule::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Rule::DeviceClaims,
            ("", name) => Rule::Each(ALIASES.into_iter().find(|alias| *alias == name)),
            _ => Rule::Each(None),
        };
        let count = if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") };
        Some(Self { count, rule })
    }

    /// Whether objects of this kind can only be counted with their content in hand.
    pub fn is_measured(&self) -> bool {
        !matches!(self.rule, Rule::Each(_))
    }

    /// Whether a name in a quota is about objects of this kind.
    pub fn governs(&self, name: &str) -> bool {
        name == self.count
            || match self.rule {
                Rule::Pods => pods::governs(name),
                Rule::Services => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
                Rule::VolumeClaims => claims::governs(name),
                Rule::DeviceClaims => claims::governs_devices(name),
                Rule::Each(alias) => alias == Some(name),
            }
    }

    /// What an object takes at a time: a pod that should have gone long ago takes nothing.
    pub fn measure(&self, object: &Value, now: Timestamp) -> Measure {
        let mut measure = match self.rule {
            Rule::Pods => pods::measure(object, now),
            Rule::Services => Measure { usage: service(object), traits: Traits::None },
            Rule::VolumeClaims => claims::measure(object),
            Rule::DeviceClaims => Measure { usage: claims::devices(object), traits: Traits::None },
            Rule::Each(alias) => Measure { usage: alias.into_iter().map(|name| (name.to_owned(), one())).collect(), traits: Traits::None },
        };
        measure.usage.insert(self.count.clone(), one());
        measure
    }

    /// Whether a change of an object can change what it takes, or which quotas it falls under.
    pub fn weighs(&self, subresource: &str, old: Option<&Value>, new: &Value) -> bool {
        match (self.rule, old, subresource) {
            (_, None, "") | (Rule::Services | Rule::VolumeClaims, Some(_), "") | (Rule::Pods, Some(_), "resize") => true,
            (Rule::Pods, Some(old), "") => pods::has_deadline(old) != pods::has_deadline(new),
            (Rule::VolumeClaims, Some(old), "status") => claims::differ(old, new),
            _ => false,
        }
    }

    /// What a quota on these names demands that the object does not say.
    pub fn lacks(&self, object: &Value, names: &[&str]) -> Option<String> {
        match self.rule {
            Rule::Pods => pods::lacks(object, names),
            _ => None,
        }
    }
}

fn one() -> Quantity {
    Quantity::from_units(1)
}

/// Node ports are counted by what is asked for: at this time none may be given yet.
fn service(service: &Value) -> Map {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let explicit = || ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|n| n != 0)).count();
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (explicit(), 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let number = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX));
    Map::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), number(node_ports)),
        ("services.loadbalancers".to_owned(), number(balancers)),
    ])
}

/// `a,b` of names, for messages.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.join(",")
}

/// The texts of an array.
fn texts(list: &Value) -> impl Iterator<Item = Cow<'_, str>> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(Cow::Borrowed)
}
