//! What the runtime tells, in our own words. Pure; time is an argument.

use jiff::Timestamp;

use super::{
    api::{
        container::{ContainerState as CriState, ContainerStatus as CriStatus, Resources as CriResources},
        image::Image as CriImage,
        node::{RuntimeCondition, RuntimeHandler, RuntimeStatus},
        stats::{ContainerStats as CriStats, FilesystemUsage},
    },
    ask,
};
use crate::{ContainerSpec, ContainerState, ContainerStats, ContainerStatus, Handler, Image, ImageFilesystem, Resources, SandboxSpec};

/// A moment in nanoseconds since 1970; `None` is never.
pub(super) fn moment(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 { None } else { Timestamp::from_nanosecond(nanoseconds.into()).ok() }
}

/// Why a runtime of these conditions can run no pods, in upstream's words. One that does not speak of the network leaves it to others.
pub(super) fn trouble(status: &RuntimeStatus) -> Option<String> {
    let find = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind);
    let said = |what: &str, condition: &RuntimeCondition| {
        let RuntimeCondition { kind, status, reason, message } = condition;
        format!("{what} not ready: {kind}={status} reason:{reason} message:{message}")
    };
    let runtime = match find("RuntimeReady") {
        Some(condition) if condition.status => None,
        Some(condition) => Some(said("container runtime", condition)),
        None => Some("container runtime not ready: it does not say RuntimeReady".to_owned()),
    };
    let network = find("NetworkReady").filter(|condition| !condition.status).map(|condition| said("container runtime network", condition));
    let all: Vec<String> = runtime.into_iter().chain(network).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// A container now. `info` is what the runtime adds for people, where its pid is found.
pub(super) fn container(spec: &ContainerSpec, status: &CriStatus, info: Option<&str>, now: Timestamp) -> ContainerStatus {
    let mut spec = spec.clone();
    if let Some(actual) = status.resources.as_ref().and_then(|r| r.linux.as_ref()) {
        limits(&mut spec.resources, actual);
    }
    let created_at = moment(status.created_at).unwrap_or(now);
    let user = status.user.as_ref().and_then(|user| user.linux.as_ref());
    let running = status.state() == CriState::Running;
    ContainerStatus {
        spec,
        image_id: status.image_ref.clone(),
        pid: info.filter(|_| running).and_then(pid),
        created_at,
        state: state(status, created_at, now),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups.clone())),
    }
}

fn state(status: &CriStatus, created_at: Timestamp, now: Timestamp) -> ContainerState {
    let started_at = moment(status.started_at);
    let exited = |exit_code, reason: &str| ContainerState::Exited {
        started_at,
        finished_at: moment(status.finished_at).unwrap_or(now),
        exit_code,
        // The protocol has the code alone.
        signal: None,
        reason: reason.to_owned(),
        message: status.message.clone(),
    };
    match status.state() {
        CriState::Created => ContainerState::Created,
        CriState::Running => ContainerState::Running { started_at: started_at.unwrap_or(created_at) },
        CriState::Exited => {
            let reason = match (status.reason.as_str(), status.exit_code) {
                ("", 0) => "Completed",
                ("", _) => "Error",
                (reason, _) => reason,
            };
            exited(status.exit_code, reason)
        }
        CriState::Unknown => exited(137, "ContainerStatusUnknown"),
    }
}

/// The limits that a runtime tells, over those that were asked for. Older ones tell none.
fn limits(resources: &mut Resources, actual: &CriResources) {
    let count = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    resources.cpu_period = count(actual.cpu_period).or(resources.cpu_period);
    resources.cpu_shares = count(actual.cpu_shares).or(resources.cpu_shares);
    resources.cpu_quota = Some(actual.cpu_quota).filter(|value| *value != 0).or(resources.cpu_quota);
    resources.memory_limit = Some(actual.memory_limit_in_bytes).filter(|value| *value != 0).or(resources.memory_limit);
}

fn pid(info: &str) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Info {
        pid: Option<u32>,
    }
    serde_json::from_str::<Info>(info).ok()?.pid.filter(|pid| *pid > 0)
}

/// The image of the sandboxes' own process, in a runtime's own words: containerd before 1.7 does not pin it.
pub(super) fn sandbox_image(config: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        sandbox_image: Option<String>,
    }
    serde_json::from_str::<Config>(config).ok()?.sandbox_image.filter(|name| !name.is_empty())
}

/// An image. The protocol does not tell its command and variables; the runtime itself applies them.
pub(super) fn image(image: CriImage) -> Image {
    Image {
        user: image.uid.map_or(image.username, |uid| uid.value.to_string()),
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        working_dir: String::new(),
        env: Vec::new(),
        stop_signal: String::new(),
    }
}

/// A file system of images, where the runtime says which it is.
pub(super) fn filesystem(of: FilesystemUsage) -> Option<ImageFilesystem> {
    let mountpoint = of.fs_id.map(|id| id.mountpoint).filter(|path| !path.is_empty())?;
    let count = |value: Option<super::api::UInt64Value>| value.map_or(0, |value| value.value);
    Some(ImageFilesystem { mountpoint: mountpoint.into(), used_bytes: count(of.used_bytes), inodes_used: count(of.inodes_used) })
}

/// The handlers. No pod has users of its own there: a runtime that can do so makes the pod's network namespace as those users', and ours is
/// made before, as the node's, so that the container could not mount what shows it (docs/adr/0007).
pub(super) fn handlers(told: &[RuntimeHandler]) -> Vec<Handler> {
    let handler = |told: &RuntimeHandler| Handler {
        name: told.name.clone(),
        recursive_read_only: told.features.is_some_and(|features| features.recursive_read_only_mounts),
        user_namespaces: false,
    };
    told.iter().map(handler).collect()
}

/// Why a sandbox cannot be what it asks for. A runtime that names no handlers is asked, and says so itself.
pub(super) fn refusal(handlers: &[Handler], spec: &SandboxSpec) -> Option<String> {
    let found = handlers.iter().find(|handler| handler.name == spec.handler);
    if found.is_none() && !handlers.is_empty() {
        return Some(format!("failed to get sandbox runtime: no runtime for {:?} is configured", spec.handler));
    }
    let refused = spec.user_namespace.is_some() && !found.is_some_and(|handler| handler.user_namespaces);
    refused.then(|| format!("RuntimeClass handler {:?} does not support user namespaces", spec.handler))
}

/// Use of resources.
pub(super) fn stats(stats: &CriStats) -> ContainerStats {
    let of = |value: Option<super::api::UInt64Value>| value.map_or(0, |value| value.value);
    let memory = stats.memory.unwrap_or_default();
    ContainerStats {
        cpu_nanoseconds: of(stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds)),
        // CRI has no word for them.
        cpu_periods: 0,
        cpu_throttled_periods: 0,
        cpu_throttled_nanoseconds: 0,
        memory_working_set: of(memory.working_set_bytes),
        memory_usage: of(memory.usage_bytes),
        memory_rss: of(memory.rss_bytes),
        pids: 0,
        rootfs_bytes: of(stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes)),
        rootfs_inodes: of(stats.writable_layer.as_ref().and_then(|layer| layer.inodes_used)),
        detail: None,
    }
}

/// What was asked for, from the annotation that says it.
pub(super) fn spec<T: serde::de::DeserializeOwned>(annotations: &std::collections::BTreeMap<String, String>) -> Option<T> {
    serde_json::from_str(annotations.get(ask::SPEC)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_ready_says_why() {
        let check = |conditions: &[(&str, bool)], want: Option<&str>| {
            let conditions = conditions.iter().map(|(kind, status)| RuntimeCondition {
                kind: (*kind).to_owned(),
                status: *status,
                reason: "Why".to_owned(),
                message: "so".to_owned(),
            });
            assert_eq!(trouble(&RuntimeStatus { conditions: conditions.collect() }).as_deref(), want);
        };
        check(&[("RuntimeReady", true), ("NetworkReady", true), ("ContainerdHasNoDeprecationWarnings", false)], None);
        check(&[("RuntimeReady", true)], None);
        check(&[], Some("container runtime not ready: it does not say RuntimeReady"));
        let network = "container runtime network not ready: NetworkReady=false reason:Why message:so";
        check(&[("RuntimeReady", true), ("NetworkReady", false)], Some(network));
        let both = format!("container runtime not ready: RuntimeReady=false reason:Why message:so, {network}");
        check(&[("RuntimeReady", false), ("NetworkReady", false)], Some(&both));
    }

    #[test]
    fn a_sandbox_asks_for_what_there_is() {
        use super::super::api::node::RuntimeHandlerFeatures;
        let features = |recursive_read_only_mounts| Some(RuntimeHandlerFeatures { recursive_read_only_mounts, user_namespaces: true });
        let told = [("", features(true)), ("runc", features(true)), ("other", features(false)), ("old", None)];
        let told = told.map(|(name, features)| RuntimeHandler { name: name.to_owned(), features });
        let known = handlers(&told);
        assert_eq!(known.iter().map(|h| h.recursive_read_only).collect::<Vec<_>>(), [true, true, false, false]);
        let check = |known: &[Handler], handler: &str, users: bool, want: Option<&str>| {
            let user_namespace = users.then_some(crate::UserRange { first: 1 << 16, length: 1 << 16 });
            let spec = SandboxSpec { handler: handler.to_owned(), user_namespace, ..SandboxSpec::default() };
            let refused = refusal(known, &spec);
            assert_eq!(refused.is_some(), want.is_some(), "{handler} {refused:?}");
            assert!(refused.unwrap_or_default().contains(want.unwrap_or_default()));
        };
        check(&known, "", false, None);
        check(&known, "runc", false, None);
        check(&known, "no-such", false, Some("no runtime for \"no-such\" is configured"));
        check(&known, "runc", true, Some("does not support user namespaces"));
        // An older runtime does not say what it has.
        check(&[], "no-such", false, None);
        check(&[], "", true, Some("does not support user namespaces"));
    }

    #[test]
    fn a_file_system_of_images_has_a_name() {
        use super::super::api::{UInt64Value, stats::FilesystemIdentifier};
        let usage = |mountpoint: &str| FilesystemUsage {
            fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
            used_bytes: Some(UInt64Value { value: 5 }),
            inodes_used: None,
        };
        assert_eq!(filesystem(usage("")), None);
        assert_eq!(filesystem(FilesystemUsage::default()), None);
        let want = ImageFilesystem { mountpoint: "/images".into(), used_bytes: 5, inodes_used: 0 };
        assert_eq!(filesystem(usage("/images")), Some(want));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(state: CriState, times: (i64, i64, i64), exit_code: i32, reason: &str) -> CriStatus {
        let nano = |second: i64| second * 1_000_000_000;
        CriStatus {
            state: state as i32,
            created_at: nano(times.0),
            started_at: nano(times.1),
            finished_at: nano(times.2),
            exit_code,
            reason: reason.to_owned(),
            ..CriStatus::default()
        }
    }

    #[test]
    fn states_are_ours() {
        let ended = |started_at, finished_at, exit_code, reason: &str| ContainerState::Exited {
            started_at,
            finished_at,
            exit_code,
            signal: None,
            reason: reason.to_owned(),
            message: String::new(),
        };
        for (told, ours) in [
            (status(CriState::Created, (1, 0, 0), 0, ""), ContainerState::Created),
            (status(CriState::Running, (1, 2, 0), 0, ""), ContainerState::Running { started_at: at(2) }),
            (status(CriState::Exited, (1, 2, 3), 0, ""), ended(Some(at(2)), at(3), 0, "Completed")),
            (status(CriState::Exited, (1, 2, 3), 137, "OOMKilled"), ended(Some(at(2)), at(3), 137, "OOMKilled")),
            (status(CriState::Exited, (1, 2, 3), 1, ""), ended(Some(at(2)), at(3), 1, "Error")),
            (status(CriState::Exited, (1, 0, 3), 128, "StartError"), ended(None, at(3), 128, "StartError")),
            (status(CriState::Unknown, (1, 2, 0), 0, ""), ended(Some(at(2)), at(9), 137, "ContainerStatusUnknown")),
        ] {
            assert_eq!(container(&ContainerSpec::default(), &told, None, at(9)).state, ours, "{told:?}");
        }
    }

    #[test]
    fn the_sandboxes_image_is_in_the_runtimes_configuration() {
        for (config, image) in [
            (r#"{"containerd":{},"sandboxImage":"registry.test/pause:3.6"}"#, Some("registry.test/pause:3.6")),
            (r#"{"sandboxImage":""}"#, None),
            ("{}", None),
            ("no JSON", None),
        ] {
            assert_eq!(sandbox_image(config).as_deref(), image, "{config}");
        }
    }

    #[test]
    fn what_older_runtimes_do_not_tell_is_what_was_asked_for() {
        let spec = ContainerSpec {
            resources: Resources { memory_limit: Some(1 << 20), cpu_shares: Some(2), ..Resources::default() },
            ..ContainerSpec::default()
        };
        let running = status(CriState::Running, (1, 2, 0), 0, "");
        let old = container(&spec, &running, Some(r#"{"pid":42,"runtimeSpec":{}}"#), at(9));
        assert_eq!((old.pid, old.user, old.spec.resources), (Some(42), None, spec.resources.clone()));
        let told = CriResources { memory_limit_in_bytes: 2 << 20, ..CriResources::default() };
        let new = CriStatus { resources: Some(super::super::api::container::ContainerResources { linux: Some(told) }), ..running };
        let resources = container(&spec, &new, Some("no json"), at(9)).spec.resources;
        assert_eq!((resources.memory_limit, resources.cpu_shares), (Some(2 << 20), Some(2)));
    }
}
