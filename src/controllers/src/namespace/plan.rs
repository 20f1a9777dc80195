//! The end of a namespace: everything in it is deleted, pods first, what remains is told, and with the last object the namespace goes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{api::PropagationPolicy, core::ApiResource};
use serde_json::json;

use crate::{
    execute::kind_name,
    inventory::{Kind, graph::Node},
    plan::{Delete, Doomed, How, Patch, Plan, Target, document},
    waiting::Waiting,
};

/// The finalizer that is ours to take off.
const OURS: &str = "kubernetes";

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The namespace; it has a deletionTimestamp.
    pub namespace: &'a Namespace,
    /// What is in it, as the inventory knows.
    pub content: &'a [Arc<Node>],
    /// All kinds that live in namespaces.
    pub kinds: &'a [Kind],
    /// Kinds of which the API has something there that the inventory does not know yet.
    pub hidden: &'a [Kind],
    /// What was refused last time.
    pub failures: &'a [String],
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// Whether the namespace says so itself.
pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating")
}

/// The next step towards the namespace's end.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let namespace = seen.namespace;
    let finalizers: Vec<String> = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
    if !is_terminating(namespace) {
        let body = json!({"status": {"phase": "Terminating"}});
        return Plan { status: Some(status(namespace, body)), ..Plan::default() };
    }
    if !finalizers.iter().any(|f| f == OURS) {
        return Plan::default();
    }
    let mut plan = Plan::default();
    let left = remaining(seen);
    for kind in doomed(seen) {
        plan.deletes.extend(deletions(seen, kind));
    }
    let before = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let after = conditions(seen, &before, &left);
    if after != before {
        plan.status = Some(status(namespace, json!({"status": {"conditions": document(&after)}})));
    }
    let count: usize = left.values().sum();
    if count > 0 {
        plan.waiting.push(Waiting::ContentGone { left: count, kinds: left.into_keys().collect() });
        return plan;
    }
    if !seen.hidden.is_empty() {
        // What only the API knows of is being swept: another look, as nothing might wake us.
        plan.look_again(Some(seen.now));
    } else {
        let rest: Vec<&String> = finalizers.iter().filter(|f| *f != OURS).collect();
        let mut document = document(namespace);
        document["apiVersion"] = json!("v1");
        document["kind"] = json!("Namespace");
        document["spec"]["finalizers"] = json!(rest);
        let target = Target::of(namespace);
        plan.patches.push(Patch { target, subresource: Some("finalize"), how: How::Replace, body: document, announce: None });
        plan.status = None;
    }
    plan
}

fn status(namespace: &Namespace, body: serde_json::Value) -> Patch {
    Patch { subresource: Some("status"), ..Patch::merge(Target::of(namespace), body) }
}

/// Whether this is the kind that goes before all others (KEP-5080): what a pod works with, its policies above all, stays as long as it runs.
pub fn goes_first(kind: &ApiResource) -> bool {
    kind.group.is_empty() && kind.kind == "Pod"
}

/// Kinds of which something is there that is not being deleted yet, and whose turn it is.
fn doomed<'a>(seen: &Observed<'a>) -> impl Iterator<Item = &'a Kind> {
    let (content, hidden) = (seen.content, seen.hidden);
    let first = content.iter().any(|n| goes_first(&n.kind)) || hidden.iter().any(|kind| goes_first(&kind.resource));
    seen.kinds
        .iter()
        .filter(move |kind| !first || goes_first(&kind.resource))
        .filter(move |kind| hidden.contains(kind) || content.iter().any(|n| !n.deleting && kind_name(&n.kind) == kind_name(&kind.resource)))
}

fn deletions(seen: &Observed<'_>, kind: &Kind) -> Vec<Delete> {
    let background = Some(PropagationPolicy::Background);
    if kind.sweepable {
        let namespace = seen.namespace.metadata.name.clone().unwrap_or_default();
        let doomed = Doomed::All { kind: kind.resource.clone(), namespace };
        return vec![Delete { doomed, propagation: background, grace_seconds: None, announce: None }];
    }
    let mine = seen.content.iter().filter(|n| !n.deleting && kind_name(&n.kind) == kind_name(&kind.resource));
    mine.map(|n| Delete { propagation: background.clone(), ..Delete::one(n.target()) }).collect()
}

/// What is there, by `plural.group`.
fn remaining(seen: &Observed<'_>) -> BTreeMap<String, usize> {
    let mut left = BTreeMap::new();
    for node in seen.content {
        *left.entry(resource_name(&node.kind.plural, &node.kind.group)).or_default() += 1;
    }
    left
}

fn resource_name(plural: &str, group: &str) -> String {
    if group.is_empty() { format!("{plural}.") } else { format!("{plural}.{group}") }
}

fn conditions(seen: &Observed<'_>, before: &[NamespaceCondition], left: &BTreeMap<String, usize>) -> Vec<NamespaceCondition> {
    let content: Vec<String> = left.iter().map(|(kind, count)| format!("{kind} has {count} resource instances")).collect();
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in seen.content.iter().filter(|n| n.deleting).flat_map(|n| n.finalizers.iter()) {
        *holders.entry(finalizer).or_default() += 1;
    }
    let holders: Vec<String> = holders.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let failing = !seen.failures.is_empty();
    let rows = [
        ("NamespaceDeletionDiscoveryFailure", None, ("ResourcesDiscovered", "All resources successfully discovered".to_owned())),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned()),
        ),
        (
            "NamespaceDeletionContentFailure",
            failing.then(|| {
                (
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {} remaining: {}", seen.failures.len(), seen.failures.join(", ")),
                )
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned()),
        ),
        (
            "NamespaceContentRemaining",
            (!content.is_empty()).then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", content.join(", ")))),
            ("ContentRemoved", "All content successfully removed".to_owned()),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!holders.is_empty()).then(|| {
                ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {}", holders.join(", ")))
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
        ),
    ];
    let mut after = before.to_vec();
    for (type_, problem, fine) in rows {
        let state = if problem.is_some() { "True" } else { "False" };
        let (reason, message) = problem.unwrap_or(fine);
        let old = after.iter().position(|c| c.type_ == type_).map(|i| after.remove(i));
        let since = old.filter(|c| c.status == state).and_then(|c| c.last_transition_time);
        after.push(NamespaceCondition {
            type_: type_.into(),
            status: state.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(seen.now))),
        });
    }
    after
}

#[cfg(test)]
mod tests {
    use coracle_client::Key;

    use super::*;

    fn kind(name: &str) -> Kind {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: name.into(),
            plural: format!("{}s", name.to_lowercase()),
        };
        Kind { resource, namespaced: true, watched: true, sweepable: name != "Service" }
    }

    fn check(phase: &str, finalizers: &[&str], content: &[(&str, bool, &str)], hidden: bool, expected: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "d", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": finalizers}, "status": {"phase": phase}}))
        .unwrap();
        let content: Vec<_> = content
            .iter()
            .enumerate()
            .map(|(i, (name, deleting, finalizer))| {
                Arc::new(Node {
                    kind: Arc::new(kind(name).resource),
                    key: Key::new("d", i.to_string()),
                    uid: i.to_string().into(),
                    revision: 1,
                    owners: Box::default(),
                    finalizers: finalizer.split_whitespace().map(str::to_owned).collect(),
                    deleting: *deleting,
                })
            })
            .collect();
        let (kinds, now) = ([kind("Pod"), kind("Service")], Timestamp::UNIX_EPOCH);
        let hidden = if hidden { vec![kind("Pod")] } else { vec![] };
        let plan = plan(&Observed { namespace: &namespace, content: &content, kinds: &kinds, hidden: &hidden, failures: &[], now });
        let mut words: Vec<String> = plan.deletes.iter().map(ToString::to_string).collect();
        words.extend(plan.patches.iter().map(|p| format!("{} {}", p.subresource.unwrap(), p.body["spec"]["finalizers"])));
        if let Some(status) = &plan.status {
            let conditions = status.body["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let bad: Vec<_> = conditions.iter().filter(|c| c["status"] == "True").map(|c| c["message"].as_str().unwrap()).collect();
            words.push(format!("status {}{}", status.body["status"]["phase"].as_str().unwrap_or_default(), bad.join("; ")));
        }
        assert_eq!(words.join(" | "), expected);
    }

    #[test]
    fn a_namespace_ends_with_its_last_object() {
        check("Active", &["kubernetes"], &[("Pod", false, "")], false, "status Terminating");
        check(
            "Terminating",
            &["kubernetes"],
            &[("Pod", false, ""), ("Pod", true, "x/y"), ("Service", false, ""), ("Service", true, "")],
            false,
            "delete every Pod in d | status Some resources are remaining: pods. has 2 resource instances, \
             services. has 2 resource instances; Some content in the namespace has finalizers remaining: x/y in 1 resource instances",
        );
        check(
            "Terminating",
            &["kubernetes"],
            &[("Pod", true, "x/y"), ("Service", false, "")],
            false,
            "status Some resources are remaining: pods. has 1 resource instances, services. has 1 resource instances; \
             Some content in the namespace has finalizers remaining: x/y in 1 resource instances",
        );
        let services = "status Some resources are remaining: services. has 1 resource instances";
        check("Terminating", &["kubernetes"], &[("Service", false, "")], true, &format!("delete every Pod in d | {services}"));
        check("Terminating", &["kubernetes"], &[("Service", false, "")], false, &format!("delete Service d/0 | {services}"));
        check("Terminating", &["kubernetes"], &[], true, "delete every Pod in d | status ");
        check("Terminating", &["kubernetes", "mine"], &[], false, r#"finalize ["mine"]"#);
        check("Terminating", &["mine"], &[], false, "");
    }
}
