//! Labels of nodes that have other names by now, wherever they are selected by.

use super::super::field::Field;
use crate::names;

/// Old labels and what to use in their place.
const REPLACED: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    ("failure-domain.beta.kubernetes.io/region", r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use taints and tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

fn replacement(label: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(old, _)| *old == label).map(|(_, instead)| *instead)
}

/// A field that holds the key of a label.
pub(super) fn key(key: &Field<'_>) {
    if let Some(instead) = replacement(key.text()) {
        key.warn(format!("{} is {instead}", key.text()));
    }
}

/// Labels that nodes must have.
pub(super) fn labels(labels: &Field<'_>) {
    labels.each_key(|label, field| {
        if let Some(instead) = replacement(label) {
            field.warn(instead);
        }
    });
}

/// Expressions over the labels of nodes.
pub(super) fn expressions(term: &Field<'_>) {
    term.at("matchExpressions").each(|_, expression| key(&expression.at("key")));
}

/// The same where a pod asks: its values are not validated, and may be such as no label has.
pub(super) fn node_term(term: &Field<'_>) {
    expressions(term);
    term.at("matchExpressions").each(|_, expression| {
        expression.at("values").each(|_, value| {
            if let Err(why) = names::label_value(value.text()) {
                value.warn(format!("{:?} is no value of a label: {why}", value.text()));
            }
        });
    });
}

/// A label selector over nodes.
pub(super) fn label_selector(selector: &Field<'_>) {
    expressions(selector);
    labels(&selector.at("matchLabels"));
}
