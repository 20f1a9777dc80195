//! Reading a pod's spec: its containers in one list, their kinds and restart rules.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Lifecycle, Pod, PodSpec};

/// What part a container plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with restartPolicy Always: runs beside the others.
    Sidecar,
    /// `spec.containers`.
    Main,
    /// Added to a running pod for a look inside.
    Ephemeral,
}

/// A container of the spec.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its part.
    pub kind: Kind,
    /// As in the spec; an ephemeral one in the same shape.
    pub spec: Container,
    /// `targetContainerName` of an ephemeral one.
    pub target: Option<String>,
}

/// All containers in the order of their start.
pub fn parts(pod: &Pod) -> Vec<Part> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|c| Part { kind: init_kind(c), spec: c.clone(), target: None });
    let main = spec.containers.iter().map(|c| Part { kind: Kind::Main, spec: c.clone(), target: None });
    init.chain(main).chain(ephemeral(spec)).collect()
}

fn ephemeral(spec: &PodSpec) -> impl Iterator<Item = Part> + '_ {
    spec.ephemeral_containers.iter().flatten().filter_map(|c| {
        let value = serde_json::to_value(c).ok()?;
        let target = c.target_container_name.clone().filter(|t| !t.is_empty());
        Some(Part { kind: Kind::Ephemeral, spec: serde_json::from_value(value).ok()?, target })
    })
}

/// Sidecar or not.
pub fn init_kind(container: &Container) -> Kind {
    if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// Whether a container that ended with this code runs again.
pub fn restarts(pod: &Pod, part: &Part, exit_code: i32) -> bool {
    let policy = match part.kind {
        Kind::Ephemeral => return false,
        Kind::Sidecar => return true,
        Kind::Init | Kind::Main => part.spec.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod)),
    };
    if matches!(matching_rule(part, exit_code), Some("Restart" | "RestartAllContainers")) {
        return true;
    }
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        // An init container that did its work is done, whatever the policy.
        _ => part.kind != Kind::Init || exit_code != 0,
    }
}

/// The action of the first of a container's restart rules that is for this exit code.
pub fn matching_rule(part: &Part, exit_code: i32) -> Option<&str> {
    let fits = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    };
    part.spec.restart_policy_rules.iter().flatten().find(fits).map(|rule| rule.action.as_str())
}

/// `spec.restartPolicy`.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Grace of a container that is stopped while the pod goes on, and of a pod that ends by itself.
pub fn grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

/// The part of this name.
pub fn part<'a>(parts: &'a [Part], name: &str) -> Option<&'a Part> {
    parts.iter().find(|p| p.spec.name == name)
}

/// The images that a container needs, each with its pull policy: its own, and those whose files it mounts.
pub fn images<'a>(pod: &'a Pod, container: &'a Container) -> Vec<(&'a str, &'a str)> {
    let policy = |policy: &'a Option<String>| policy.as_deref().unwrap_or("IfNotPresent");
    let mut out = vec![(container.image.as_deref().unwrap_or_default(), policy(&container.image_pull_policy))];
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    for mount in container.volume_mounts.iter().flatten() {
        let source = volumes.iter().find(|v| v.name == mount.name).and_then(|v| v.image.as_ref());
        out.extend(source.map(|image| (image.reference.as_deref().unwrap_or_default(), policy(&image.pull_policy))));
    }
    out
}

/// Whether it has a postStart hook.
pub fn has_post_start(part: &Part) -> bool {
    lifecycle(part).is_some_and(|l| l.post_start.is_some())
}

/// Whether it has a preStop hook.
pub fn has_pre_stop(part: &Part) -> bool {
    lifecycle(part).is_some_and(|l| l.pre_stop.is_some())
}

fn lifecycle(part: &Part) -> Option<&Lifecycle> {
    part.spec.lifecycle.as_ref()
}

/// Whether the pod lives in the node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

/// namespace/name, for logs and messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

/// `metadata.namespace`.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `metadata.name`.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.uid`.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
