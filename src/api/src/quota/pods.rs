//! What a pod takes of a quota: itself, and what its containers ask for as long as it can run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Measure, Traits, one};
use crate::{
    amounts::{Amounts, Map, of_running_pod, read},
    quantity::Quantity,
};

/// Names that are always about pods.
const NAMES: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Names that every container has to say something about, once they are in a quota. A habit from before QoS classes; others are counted only.
const DEMANDED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
/// Devices that are asked for as if they were extended resources.
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub fn governs(name: &str) -> bool {
    let asked = name.strip_prefix(REQUESTS);
    NAMES.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || asked.is_some_and(|asked| asked.starts_with(HUGE_PAGES) || asked.starts_with(DEVICE_CLASS) || !is_native(asked))
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    name.starts_with(DEVICE_CLASS) || (!is_native(name) && !name.starts_with(REQUESTS))
}

pub fn measure(pod: &Value, now: Timestamp) -> Measure {
    let spec = &pod["spec"];
    let traits = Traits::Pod {
        terminating: has_deadline(pod),
        best_effort: is_best_effort(pod),
        priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
        across: reaches_across(&spec["affinity"]),
    };
    let usage = if is_over(pod, now) { Map::new() } else { usage(&of_running_pod(pod)) };
    Measure { usage, traits }
}

/// When a pod that is being deleted ceases to count, though it is still there: its node may be lost.
pub fn forgiven_at(pod: &Value) -> Option<Timestamp> {
    let deleted: Timestamp = pod["metadata"]["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn is_over(pod: &Value, now: Timestamp) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) || forgiven_at(pod).is_some_and(|at| now > at)
}

/// The names under which requests and limits are counted.
fn usage(amounts: &Amounts) -> Map {
    let mut usage = Map::from([("pods".to_owned(), one())]);
    for (name, amount) in &amounts.requests {
        let both = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE_PAGES);
        if both {
            usage.insert(name.clone(), *amount);
        }
        if both || is_extended(name) {
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = amounts.limits.get(name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

/// Whether the pod ends by itself: scope Terminating.
pub fn has_deadline(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

fn is_best_effort(pod: &Value) -> bool {
    if let Some(class) = pod["status"]["qosClass"].as_str().filter(|class| !class.is_empty()) {
        return class == "BestEffort";
    }
    let spec = &pod["spec"];
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|field| {
            ["cpu", "memory"].iter().any(|name| {
                resources[*field][*name].as_str().and_then(|text| text.parse::<Quantity>().ok()).is_some_and(|amount| amount.signum() > 0)
            })
        })
    };
    !asks(&spec["resources"]) && !containers(spec).any(|container| asks(&container["resources"]))
}

fn reaches_across(affinity: &Value) -> bool {
    let reaches =
        |term: &Value| term["namespaces"].as_array().is_some_and(|list| !list.is_empty()) || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let list = |name: &str| affinity[*side][name].as_array().map(Vec::as_slice).unwrap_or_default();
        list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(reaches)
            || list("preferredDuringSchedulingIgnoredDuringExecution").iter().any(|term| reaches(&term["podAffinityTerm"]))
    })
}

pub fn lacks(pod: &Value, names: &[&str]) -> Option<String> {
    let demanded: BTreeSet<&str> = names.iter().copied().filter(|name| DEMANDED.contains(name)).collect();
    let own = &pod["spec"]["resources"];
    let says = |field: &str| own[field].as_object().is_some_and(|map| map.keys().any(|name| is_pod_level(name)));
    if demanded.is_empty() || says("requests") || says("limits") {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers(&pod["spec"]) {
        let resources = &container["resources"];
        let said = usage(&Amounts { requests: read(&resources["requests"]), limits: read(&resources["limits"]) });
        for name in demanded.iter().filter(|name| !said.contains_key(**name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let parts: Vec<String> = missing.into_iter().map(|(name, who)| format!("{name} for: {}", super::joined(who))).collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

/// What can be said of a pod as a whole.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}
