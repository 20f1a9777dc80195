//! Where a pod may run: affinity, tolerations, spread, gates.

use std::collections::HashSet;

use super::super::field::Field;
use super::super::rules::{label_selector, node_selector, node_selector_term, qualified_name};
use crate::names;

pub(super) fn affinity(affinity: &Field<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = affinity.at("nodeAffinity");
    if node.at(REQUIRED).exists() {
        node_selector(&node.at(REQUIRED));
    }
    node.at(PREFERRED).each(|_, term| {
        weight(&term);
        node_selector_term(&term.at("preference"));
    });
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        pods.at(REQUIRED).each(|_, term| pod_term(&term));
        pods.at(PREFERRED).each(|_, term| {
            weight(&term);
            pod_term(&term.at("podAffinityTerm"));
        });
    }
}

fn weight(term: &Field<'_>) {
    if !(1..=100).contains(&term.at("weight").number()) {
        term.at("weight").invalid("must be in the range 1-100");
    }
}

fn pod_term(term: &Field<'_>) {
    label_selector(&term.at("labelSelector"));
    label_selector(&term.at("namespaceSelector"));
    for namespace in term.at("namespaces").list() {
        let called = term.called("namespace");
        called.holding(namespace).valid_by(names::dns_label);
    }
    let key = term.at("topologyKey");
    if key.is_empty() {
        key.required("can not be empty");
    }
    key.all_invalid(qualified_name(key.text()));
}

pub(in super::super) fn tolerations(tolerations: &Field<'_>) {
    tolerations.each(|_, toleration| {
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|name| toleration.value()[name].as_str().unwrap_or_default());
        if !key.is_empty() {
            toleration.at("key").all_invalid(qualified_name(key));
        } else if operator != "Exists" {
            toleration.at("operator").invalid("operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        if toleration.at("tolerationSeconds").exists() && effect != "NoExecute" {
            toleration.at("effect").invalid("effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "" | "Equal" => {
                if let Err(message) = names::label_value(value) {
                    toleration.at("operator").invalid(&message);
                }
            }
            "Exists" if !value.is_empty() => toleration.at("operator").invalid("value must be empty when `operator` is 'Exists'"),
            "Exists" => {}
            _ => toleration.at("operator").not_supported(&["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            toleration.at("effect").one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    });
}

pub(super) fn spread(constraints: &Field<'_>) {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    constraints.each(|_, constraint| {
        let (key, when) = (constraint.at("topologyKey"), constraint.at("whenUnsatisfiable"));
        constraint.at("maxSkew").positive();
        if key.is_empty() {
            key.required("can not be empty");
        }
        when.one_of(&["DoNotSchedule", "ScheduleAnyway"]);
        let pair = (key.text().to_owned(), when.text().to_owned());
        if seen.contains(&pair) {
            constraint.duplicate();
        }
        seen.insert(pair);
        let domains = constraint.at("minDomains");
        if domains.exists() {
            domains.positive();
            if when.text() != "DoNotSchedule" {
                domains.invalid("can only use minDomains if whenUnsatisfiable=DoNotSchedule");
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.at(name).optional_one_of(&["Honor", "Ignore"]);
        }
        let (selector, keys) = (constraint.at("labelSelector"), constraint.at("matchLabelKeys"));
        if !keys.is_empty() && !selector.exists() {
            keys.forbidden("must not be specified when labelSelector is not set");
        }
        keys.each(|_, key| key.all_invalid(qualified_name(key.text())));
        label_selector(&selector);
    });
}

pub(super) fn gates(gates: &Field<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    gates.each(|_, gate| {
        let name = gate.at("name").text();
        gate.holding(gate.at("name").value()).all_invalid(qualified_name(name));
        if seen.contains(name) {
            gate.duplicate();
        }
        seen.insert(name.to_owned());
    });
}
