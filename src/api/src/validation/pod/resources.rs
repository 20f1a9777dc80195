//! What containers, or a pod as a whole, ask for of the node.

use std::collections::HashSet;

use super::super::field::Field;
use super::super::rules::{is_extended, qualified_name, quantity, resource_value};
use super::containers::Surroundings;
use crate::{amounts, names};

/// Limits and requests of a container, or of a whole pod.
pub(super) fn resources(resources: &Field<'_>, claims: &[&str]) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    limits.each_key(|name, value| {
        resource_name(name, &value);
        resource_value(name, &value);
    });
    requests.each_key(|name, value| {
        resource_name(name, &value);
        resource_value(name, &value);
        let limit = limits.key(name);
        let (asked, most) = (quantity(&value), quantity(&limit));
        if limit.exists() {
            if !overcommits(name) && asked != most {
                requests.holding(value.value()).invalid("must be equal to the limit");
            } else if overcommits(name) && asked > most {
                requests.holding(value.value()).invalid("must be less than or equal to the limit");
            }
        } else if !overcommits(name) {
            limits.required("Limit must be set for non overcommit resources");
        }
    });
    let names: Vec<&str> =
        [limits, requests].iter().filter_map(|r| r.value().as_object()).flatten().map(|(name, _)| name.as_str()).collect();
    if names.iter().any(|n| n.starts_with("hugepages-")) && !names.iter().any(|n| matches!(*n, "cpu" | "memory")) {
        resources.forbidden("HugePages require cpu or memory");
    }
    let mut seen: HashSet<(String, String)> = HashSet::new();
    resources.at("claims").each(|_, claim| {
        let (name, request) = (claim.at("name"), claim.at("request"));
        request.may_be_valid(names::dns_label);
        if name.is_empty() {
            claim.required("");
            return;
        }
        let key = (name.text().to_owned(), request.text().to_owned());
        if seen.contains(&key) {
            claim.duplicate();
        }
        seen.insert(key);
        if !claims.contains(&name.text()) {
            claim.not_found();
        }
    });
}

/// What a pod asks for as a whole is not below what its containers ask for together, and no container may take more than its pod.
pub(super) fn pod_resources(spec: &Field<'_>) {
    let whole = spec.at("resources");
    if !whole.exists() {
        return;
    }
    resources(&whole, &[]);
    let requests = whole.at("requests");
    let asked = amounts::of_containers(spec.value()).requests;
    requests.each_key(|name, value| {
        if asked.get(name).is_some_and(|asked| *asked > quantity(&value)) {
            value.invalid("must be greater than or equal to aggregate container requests");
        }
    });
    let limits = whole.at("limits");
    for list in ["containers", "initContainers"] {
        spec.at(list).each(|_, container| {
            container.at("resources").at("limits").each_key(|name, value| {
                let most = limits.key(name);
                if most.exists() && quantity(&value) > quantity(&most) {
                    value.invalid(&format!("must be less than or equal to pod limits of {}", most.text()));
                }
            });
        });
    }
}

pub(super) fn resize(container: &Field<'_>, around: &Surroundings<'_>) {
    let list = container.at("resizePolicy");
    let mut seen: HashSet<String> = HashSet::new();
    for policy in list.list() {
        let policy = list.holding(policy);
        let (resource, restart) = (policy.at("resourceName"), policy.at("restartPolicy"));
        match resource.text() {
            "cpu" | "memory" => {}
            "" => list.required(""),
            _ => list.holding(resource.value()).not_supported(&["cpu", "memory"]),
        }
        match restart.text() {
            "NotRequired" => {}
            "RestartContainer" if around.spec.at("restartPolicy").text() == "Never" => {
                list.holding(restart.value()).invalid("must be 'NotRequired' when `restartPolicy` is 'Never'");
            }
            "RestartContainer" => {}
            "" => list.required(""),
            _ => list.holding(restart.value()).not_supported(&["NotRequired", "RestartContainer"]),
        }
        if seen.contains(resource.text()) {
            list.holding(resource.value()).duplicate();
        }
        seen.insert(resource.text().to_owned());
    }
}

/// Whether more may be limited than is requested.
fn overcommits(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

fn resource_name(name: &str, value: &Field<'_>) {
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let wrong = qualified_name(name);
    if !wrong.is_empty() {
        value.all_invalid(wrong);
    } else if !name.contains('/') && !standard {
        value.invalid("must be a standard resource for containers");
    }
}
