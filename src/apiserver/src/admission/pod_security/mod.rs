//! PodSecurity: pods keep to the level of the Pod Security Standards that their namespace's labels ask for (KEP-2579).

mod baseline;
mod policy;
mod restricted;
mod settings;
#[cfg(test)]
mod tests;
mod visit;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use coracle_api::status::{Cause, Status};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::objects::Objects;
use policy::{Level, Policy, Standard};
pub use settings::{Defaults, Exemptions, Settings};
use visit::Pod;

/// Pods of a namespace that are looked at when its level rises; upstream's bound.
const MAX_PODS_CHECKED: usize = 3000;
/// Subresources of a pod that leave alone what it may do.
const HARMLESS: [&str; 8] = ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];

/// The plugin.
#[derive(Debug)]
pub struct PodSecurity {
    /// Where namespaces and their pods are looked up.
    pub objects: Arc<dyn Objects>,
    /// What the operator says.
    pub settings: Settings,
}

/// Something that a level does not allow: in short, and who does it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    reason: &'static str,
    detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// What of a pod does not keep to a level.
fn violations(standard: Standard, pod: &Pod<'_>) -> Vec<Violation> {
    let at_least = |minor: u32| standard.version.at_least(minor);
    match standard.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::check(pod, &at_least, false),
        Level::Restricted => {
            let mut found = baseline::check(pod, &at_least, true);
            found.extend(restricted::check(pod, &at_least));
            found
        }
    }
}

fn sentence(violations: &[Violation]) -> String {
    let parts: Vec<String> =
        violations.iter().map(|v| if v.detail.is_empty() { v.reason.to_owned() } else { format!("{} ({})", v.reason, v.detail) }).collect();
    parts.join(", ")
}

fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|v| v.reason).collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let (Operation::Create | Operation::Update, Some(object)) = (write.operation, object) else { return Ok(()) };
        let (group, resource) = (write.info.group.as_str(), write.info.resource.as_str());
        match (group, resource) {
            ("", "namespaces") if write.info.subresource.is_empty() => self.namespace(write, object),
            ("", "pods") if !HARMLESS.contains(&write.info.subresource.as_str()) => self.pod(write, object),
            _ if write.info.subresource.is_empty() => {
                if let Some(template) = template(group, resource, object) {
                    self.workload(write, template);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The pod template of a kind that has one.
fn template<'a>(group: &str, resource: &str, object: &'a Value) -> Option<&'a Value> {
    let pointer = match (group, resource) {
        ("", "podtemplates") => "/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        ("", "replicationcontrollers") | ("batch", "jobs") => "/spec/template",
        ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets") => "/spec/template",
        _ => return None,
    };
    object.pointer(pointer).filter(|template| template["spec"].is_object())
}

impl PodSecurity {
    fn policy_of(&self, namespace: &str) -> Option<Policy> {
        let namespace = self.objects.get("", "namespaces", "", namespace)?;
        Some(Policy::read(&namespace["metadata"]["labels"], self.settings.defaults).0)
    }

    /// Whether the operator lets this pass, whatever it is; that stands in the audit log.
    fn is_exempt(&self, write: &Attributes<'_>, pod: &Value) -> bool {
        let class = pod["spec"]["runtimeClassName"].as_str();
        let reason = self.settings.exemptions.reason(&write.info.namespace, &write.user.name, class);
        if let Some(reason) = reason {
            write.audit.add("pod-security.kubernetes.io/exempt", reason);
        }
        reason.is_some()
    }

    fn pod(&self, write: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        // A namespace that is gone is NamespaceLifecycle's concern.
        let Some(policy) = self.policy_of(&write.info.namespace).filter(|policy| !policy.is_open()) else { return Ok(()) };
        if write.old.is_some_and(|old| write.operation == Operation::Update && !is_significant(pod, old)) || self.is_exempt(write, pod) {
            return Ok(());
        }
        let pod = Pod::of(pod);
        if write.audit.wanted() {
            write.audit.add("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
        }
        let found = violations(policy.enforce, &pod);
        if !found.is_empty() {
            return Err(refuse(write, &format!("violates PodSecurity \"{}\": {}", policy.enforce, sentence(&found))));
        }
        warn(write, &policy, &pod);
        Ok(())
    }

    /// What makes pods is let pass, as its pods are judged one by one, but its author is told.
    fn workload(&self, write: &Attributes<'_>, template: &Value) {
        if let Some(policy) = self.policy_of(&write.info.namespace)
            && !policy.is_open()
            && !self.is_exempt(write, template)
        {
            warn(write, &policy, &Pod::of(template));
        }
    }

    fn namespace(&self, write: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
        let (policy, errors) = Policy::read(&namespace["metadata"]["labels"], self.settings.defaults);
        let old = write.old.filter(|_| write.operation == Operation::Update);
        let before = old.map(|old| Policy::read(&old["metadata"]["labels"], self.settings.defaults));
        // What was wrong before may stay.
        if !errors.is_empty() && before.as_ref().is_none_or(|(_, old)| *old != errors) {
            let cause = |(field, value, why): policy::LabelError| Cause {
                reason: "FieldValueInvalid",
                field,
                message: format!("Invalid value: {value:?}: {why}"),
            };
            return Err(Status::invalid("", "Namespace", &write.info.name, errors.into_iter().map(cause).collect()));
        }
        if self.settings.exemptions.namespaces.contains(&write.info.name) {
            return Ok(());
        }
        if let Some((before, _)) = before
            && policy.enforce.tightens(before.enforce)
        {
            let name = &write.info.name;
            write.warnings.extend(existing(name, policy.enforce, &self.objects.list("", "pods", name)));
        }
        Ok(())
    }
}

fn warn(write: &Attributes<'_>, policy: &Policy, pod: &Pod<'_>) {
    let found = violations(policy.warn, pod);
    if !found.is_empty() {
        write.warnings.add(format!("would violate PodSecurity \"{}\": {}", policy.warn, sentence(&found)));
    }
    let found = violations(policy.audit, pod);
    if !found.is_empty() {
        let told = format!("would violate PodSecurity \"{}\": {}", policy.audit, sentence(&found));
        write.audit.add("pod-security.kubernetes.io/audit-violations", told);
    }
}

/// Pods that are there already and would not be let in any more.
fn existing(namespace: &str, standard: Standard, pods: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    if pods.len() > MAX_PODS_CHECKED {
        let all = pods.len();
        out.push(format!("new PodSecurity enforce level only checked against the first {MAX_PODS_CHECKED} of {all} existing pods"));
    }
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS_CHECKED) {
        let found = violations(standard, &Pod::of(pod));
        if !found.is_empty() {
            by_reason.entry(reasons(&found)).or_default().push(pod["metadata"]["name"].as_str().unwrap_or_default());
        }
    }
    if !by_reason.is_empty() {
        out.push(format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""));
    }
    for (reason, names) in by_reason {
        let first = names.iter().min().copied().unwrap_or_default();
        let others = match names.len() - 1 {
            0 => String::new(),
            1 => " (and 1 other pod)".to_owned(),
            more => format!(" (and {more} other pods)"),
        };
        out.push(format!("{first}{others}: {reason}"));
    }
    out
}

/// Whether an update of a pod can change what it may do: its containers, or their images.
fn is_significant(new: &Value, old: &Value) -> bool {
    ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| {
        let of = |pod: &Value| -> Vec<(Value, Value)> {
            let containers = pod["spec"][*list].as_array().into_iter().flatten();
            containers.map(|c| (c["image"].clone(), c["securityContext"].clone())).collect()
        };
        of(new) != of(old)
    })
}
