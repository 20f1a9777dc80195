//! Node selector and node affinity (core/v1 NodeSelectorTerm).

use coracle_client::pod::Pod;
use k8s_openapi::api::core::v1::{Node, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm};

use super::Reason;

/// Refuses a node that the pod's `nodeSelector` or required node affinity does not mean.
pub fn filter(pod: &Pod, node: &Node) -> Option<Reason> {
    let spec = pod.spec.as_ref()?;
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key));
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let required = affinity(pod).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let meant = required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, node)));
    (!(selected && meant)).then(|| "node(s) didn't match Pod's node affinity/selector".into())
}

/// Sum of the weights of the preferred terms that mean the node.
pub fn preference(pod: &Pod, node: &Node) -> i64 {
    let preferred = affinity(pod).and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    preferred.into_iter().flatten().filter(|p| matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
}

fn affinity(pod: &Pod) -> Option<&NodeAffinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// A term without any requirement means no node.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_deref()).flatten();
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| holds(r, label(&r.key)))
        && fields.iter().all(|r| holds(r, field(&r.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |v: &str| values.iter().any(|w| w == v);
    let compare = |good: fn(i64, i64) -> bool| {
        let (have, want) = (value.and_then(|v| v.parse().ok()), values.first().and_then(|v| v.parse().ok()));
        have.zip(want).is_some_and(|(have, want)| good(have, want))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => value.is_none_or(|v| !among(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|have, want| have > want),
        "Lt" => compare(|have, want| have < want),
        _ => false,
    }
}
