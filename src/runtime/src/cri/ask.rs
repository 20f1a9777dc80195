//! What is asked of the runtime: sandboxes and containers of ours in the protocol's words. Pure.

use std::collections::BTreeMap;

use super::api::{
    Int64Value,
    container::{
        Capability, CdiDevice, ContainerConfig, ContainerMetadata, Device, HugepageLimit, KeyValue, LinuxContainerConfig,
        LinuxContainerSecurityContext, Mount, MountPropagation, Resources as CriResources, SupplementalGroupsPolicy,
    },
    image::ImageSpec,
    sandbox::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode as CriMode, NamespaceOption, PodSandboxConfig,
        PodSandboxMetadata, ProfileType, SecurityProfile,
    },
};
use crate::{
    AppArmor, ContainerSpec, NamespaceMode, Resources, SandboxSpec, Seccomp, Security,
    masks::{MASKED, READ_ONLY},
};

/// Labels by which tools of the field find a pod's containers.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Whose it is: a runtime may serve others beside this cluster.
pub(super) const CLUSTER: &str = "coracle/cluster";
/// Our own id of the sandbox or container.
pub(super) const ID: &str = "coracle/id";
/// Our own id of the container's sandbox.
pub(super) const SANDBOX: &str = "coracle/sandbox";
/// What was asked for, as JSON, so that the next agent knows it.
pub(super) const SPEC: &str = "coracle/spec";

/// The protocol's numbers of the signals 1 to 31: it has them by the order of their names.
const SIGNALS: [i32; 31] =
    [8, 10, 18, 9, 24, 1, 3, 7, 13, 29, 19, 30, 14, 2, 23, 20, 4, 6, 21, 25, 26, 27, 28, 33, 34, 31, 16, 32, 11, 17, 22];

/// The sandbox.
pub(super) fn sandbox(cluster: &str, spec: &SandboxSpec) -> PodSandboxConfig {
    let labels = [(POD_NAME, &spec.name), (POD_NAMESPACE, &spec.namespace), (POD_UID, &spec.uid), (ID, &spec.id)];
    let mut annotations = spec.annotations.clone();
    annotations.insert(SPEC.to_owned(), json(spec));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.uid.clone(),
            namespace: spec.namespace.clone(),
            attempt: spec.attempt,
        }),
        hostname: if spec.netns.is_some() { spec.hostname.clone() } else { String::new() },
        log_directory: spec.log_directory.display().to_string(),
        labels: labelled(&spec.labels, cluster, &labels),
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: spec.cgroup.clone(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(spec)),
                run_as_user: None,
                privileged: spec.privileged,
                seccomp: Some(profile(&if spec.privileged { Seccomp::Unconfined } else { Seccomp::RuntimeDefault })),
            }),
            sysctls: spec.sysctls.clone(),
            resources: Some(resources(&spec.resources)),
        }),
    }
}

/// The container. `target` is the runtime's id of the container whose processes it joins.
pub(super) fn container(cluster: &str, sandbox: &SandboxSpec, spec: &ContainerSpec, target: Option<&str>) -> ContainerConfig {
    let labels = [
        (POD_NAME, &sandbox.name),
        (POD_NAMESPACE, &sandbox.namespace),
        (POD_UID, &sandbox.uid),
        (CONTAINER_NAME, &spec.name),
        (ID, &spec.id.id),
        (SANDBOX, &spec.id.sandbox),
    ];
    let mut annotations = spec.annotations.clone();
    // Variables may be secret, and nobody asks for them again.
    annotations.insert(SPEC.to_owned(), json(&ContainerSpec { env: Vec::new(), ..spec.clone() }));
    let mut of_sandbox = namespaces(sandbox);
    if let Some(target) = target {
        of_sandbox.pid = CriMode::Target as i32;
        of_sandbox.target_id = target.to_owned();
    }
    let image_mounts = spec.image_mounts.iter().map(|m| Mount {
        container_path: m.destination.display().to_string(),
        readonly: true,
        image: Some(ImageSpec { image: m.image.clone(), ..ImageSpec::default() }),
        image_sub_path: m.sub_path.clone(),
        ..Mount::default()
    });
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: spec.name.clone(), attempt: spec.attempt }),
        image: Some(ImageSpec { image: spec.image.clone(), ..ImageSpec::default() }),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone(),
        envs: spec.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() }).collect(),
        mounts: spec.mounts.iter().map(mount).chain(image_mounts).collect(),
        devices: spec.devices.iter().map(device).collect(),
        labels: labelled(&spec.labels, cluster, &labels),
        annotations,
        log_path: spec.log_path.display().to_string(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(&spec.resources)),
            security_context: Some(security(&spec.security, of_sandbox)),
        }),
        cdi_devices: spec.cdi_devices.iter().map(|name| CdiDevice { name: name.clone() }).collect(),
        stop_signal: spec.stop_signal.map_or(0, signal),
    }
}

fn labelled(own: &BTreeMap<String, String>, cluster: &str, labels: &[(&str, &String)]) -> BTreeMap<String, String> {
    let mut out = own.clone();
    out.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())));
    out.insert(CLUSTER.to_owned(), cluster.to_owned());
    out
}

fn json(spec: &impl serde::Serialize) -> String {
    // Plain data with text for keys: there is no way for it to fail.
    serde_json::to_string(spec).unwrap_or_default()
}

fn namespaces(spec: &SandboxSpec) -> NamespaceOption {
    let mode = |mode| match mode {
        NamespaceMode::Host => CriMode::Node,
        NamespaceMode::Pod => CriMode::Pod,
        NamespaceMode::Container => CriMode::Container,
    };
    NamespaceOption {
        network: if spec.netns.is_some() { CriMode::Pod } else { CriMode::Node } as i32,
        pid: mode(spec.pid) as i32,
        ipc: mode(spec.ipc) as i32,
        target_id: String::new(),
    }
}

fn security(security: &Security, namespaces: NamespaceOption) -> LinuxContainerSecurityContext {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let masks = !security.privileged && !security.proc_unmasked;
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces),
        run_as_user: security.run_as_user.map(|value| Int64Value { value }),
        run_as_group: security.run_as_group.map(|value| Int64Value { value }),
        run_as_username: String::new(),
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: if security.merge_image_groups {
            SupplementalGroupsPolicy::Merge
        } else {
            SupplementalGroupsPolicy::Strict
        } as i32,
        no_new_privs: !security.allow_privilege_escalation,
        masked_paths: if masks { owned(&MASKED) } else { Vec::new() },
        readonly_paths: if masks { owned(&READ_ONLY) } else { Vec::new() },
        seccomp: Some(profile(if security.privileged { &Seccomp::Unconfined } else { &security.seccomp })),
        apparmor: security.apparmor.as_ref().map(loaded),
    }
}

fn loaded(apparmor: &AppArmor) -> SecurityProfile {
    let (kind, name) = match apparmor {
        AppArmor::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        AppArmor::Unconfined => (ProfileType::Unconfined, String::new()),
        AppArmor::Localhost(name) => (ProfileType::Localhost, name.clone()),
    };
    SecurityProfile { profile_type: kind as i32, localhost_ref: name }
}

fn profile(seccomp: &Seccomp) -> SecurityProfile {
    let (kind, file) = match seccomp {
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Seccomp::Unconfined => (ProfileType::Unconfined, String::new()),
        Seccomp::Localhost(path) => (ProfileType::Localhost, path.display().to_string()),
    };
    SecurityProfile { profile_type: kind as i32, localhost_ref: file }
}

/// Limits; what is none is zero.
pub(super) fn resources(of: &Resources) -> CriResources {
    let count = |value: Option<u64>| value.map_or(0, |value| i64::try_from(value).unwrap_or(i64::MAX));
    CriResources {
        cpu_period: count(of.cpu_period),
        cpu_quota: of.cpu_quota.unwrap_or(0),
        cpu_shares: count(of.cpu_shares),
        memory_limit_in_bytes: of.memory_limit.unwrap_or(0),
        oom_score_adj: of.oom_score_adj.unwrap_or(0).into(),
        hugepage_limits: of.hugepages.iter().map(|(size, limit)| HugepageLimit { page_size: size.clone(), limit: *limit }).collect(),
        unified: of.unified.clone(),
    }
}

fn mount(mount: &crate::Mount) -> Mount {
    Mount {
        container_path: mount.destination.display().to_string(),
        host_path: mount.source.display().to_string(),
        readonly: mount.read_only,
        propagation: match mount.propagation.as_str() {
            "rslave" => MountPropagation::HostToContainer,
            "rshared" => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        } as i32,
        recursive_read_only: mount.recursive_read_only,
        ..Mount::default()
    }
}

fn device(device: &crate::Device) -> Device {
    Device {
        container_path: device.container_path.display().to_string(),
        host_path: device.host_path.display().to_string(),
        permissions: device.permissions.clone(),
    }
}

/// The protocol's own number of a signal; zero, the image's way to stop, for one that it does not have.
fn signal(number: i32) -> i32 {
    match number {
        1..=31 => usize::try_from(number - 1).ok().and_then(|at| SIGNALS.get(at)).copied().unwrap_or(0),
        // SIGRTMIN is 34 for whoever uses glibc, and 35 here; SIGRTMAX is 64 and 65.
        34..=64 => number + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_protocols_numbers() {
        // SIGABRT 6, SIGHUP 1, SIGKILL 9, SIGQUIT 3, SIGTERM 15, SIGUSR1 10, SIGWINCH 28, SIGSYS 31, SIGRTMIN+3 37.
        for (number, protocol) in
            [(6, 1), (1, 8), (9, 13), (3, 18), (15, 23), (10, 29), (2, 10), (28, 32), (31, 22), (37, 38), (64, 65), (0, 0)]
        {
            assert_eq!(signal(number), protocol, "signal {number}");
        }
    }

    #[test]
    fn what_a_pod_says_reaches_the_runtime_and_secrets_stay_out_of_annotations() {
        let sandbox_spec = SandboxSpec {
            id: "s".into(),
            name: "p".into(),
            namespace: "n".into(),
            uid: "u".into(),
            netns: Some("/run/n".into()),
            hostname: "h".into(),
            pid: NamespaceMode::Pod,
            ..SandboxSpec::default()
        };
        let spec = ContainerSpec {
            id: crate::ContainerId { sandbox: "s".into(), id: "c".into() },
            name: "web".into(),
            env: vec![("TOKEN".into(), "hidden".into())],
            resources: Resources { memory_limit: Some(64 << 20), cpu_shares: Some(512), oom_score_adj: Some(-3), ..Resources::default() },
            security: Security {
                run_as_user: Some(1000),
                allow_privilege_escalation: false,
                apparmor: Some(AppArmor::Localhost("mine".into())),
                ..Security::default()
            },
            ..ContainerSpec::default()
        };
        let pod = sandbox("k", &sandbox_spec);
        assert_eq!((pod.hostname.as_str(), pod.labels[POD_UID].as_str(), pod.labels[CLUSTER].as_str()), ("h", "u", "k"));
        let back: SandboxSpec = serde_json::from_str(&pod.annotations[SPEC]).unwrap();
        assert_eq!((back.id, back.netns), (sandbox_spec.id.clone(), sandbox_spec.netns.clone()));

        let made = container("k", &sandbox_spec, &spec, Some("target"));
        assert_eq!(made.envs[0].value, b"hidden");
        assert!(!made.annotations[SPEC].contains("hidden"));
        let linux = made.linux.unwrap();
        let limits = linux.resources.unwrap();
        assert_eq!((limits.memory_limit_in_bytes, limits.cpu_shares, limits.oom_score_adj), (64 << 20, 512, -3));
        let security = linux.security_context.unwrap();
        assert!(security.no_new_privs && security.masked_paths.iter().any(|p| p == "/proc/kcore"));
        assert_eq!(security.run_as_user, Some(Int64Value { value: 1000 }));
        let confined = SecurityProfile { profile_type: ProfileType::Localhost as i32, localhost_ref: "mine".to_owned() };
        assert_eq!(security.apparmor, Some(confined));
        let namespaces = security.namespace_options.unwrap();
        assert_eq!((namespaces.network(), namespaces.pid(), namespaces.target_id.as_str()), (CriMode::Pod, CriMode::Target, "target"));

        let of_node = sandbox("k", &SandboxSpec { netns: None, ..sandbox_spec });
        let of_node = of_node.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!((of_node.network(), of_node.pid()), (CriMode::Node, CriMode::Pod));
    }
}
