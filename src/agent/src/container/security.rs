//! Who a container runs as and what it may: the pod's and the container's securityContext in one.

use std::path::Path;

use coracle_runtime::{Seccomp, Security};
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use super::apparmor;

/// The security of a container. `profiles` is where Localhost seccomp profiles are.
pub fn security(pod: &Pod, container: &Container, profiles: &Path) -> Security {
    let apparmor = apparmor::asked(pod, container);
    let pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let mut groups: Vec<i64> = pod.fs_group.into_iter().collect();
    groups.extend(pod.supplemental_groups.iter().flatten());
    let sys_admin = capabilities.add.iter().flatten().any(|c| matches!(c.trim_start_matches("CAP_"), "SYS_ADMIN" | "ALL"));
    Security {
        run_as_user: own.run_as_user.or(pod.run_as_user),
        run_as_group: own.run_as_group.or(pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root) == Some(true),
        supplemental_groups: groups,
        merge_image_groups: pod.supplemental_groups_policy.as_deref() != Some("Strict"),
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem == Some(true),
        allow_privilege_escalation: own.allow_privilege_escalation.unwrap_or(true) || privileged || sys_admin,
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(own.seccomp_profile.or(pod.seccomp_profile).as_ref(), profiles) },
        apparmor,
        proc_unmasked: privileged || own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

/// Without a word the runtime's default holds: secure by default, where upstream has it behind a flag.
fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> Seccomp {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => Seccomp::Unconfined,
        Some(("Localhost", Some(name))) => Seccomp::Localhost(profiles.join(name.trim_start_matches('/'))),
        _ => Seccomp::RuntimeDefault,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(pod: Value, container: Value) -> Security {
        let spec = json!({ "securityContext": pod, "containers": [{ "name": "a", "securityContext": container }] });
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).expect("a pod");
        security(&pod, &pod.spec.as_ref().expect("a spec").containers[0], Path::new("/p"))
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let s = of(
            json!({ "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000] }),
            json!({ "runAsUser": 1001 }),
        );
        assert_eq!((s.run_as_user, s.run_as_group, s.supplemental_groups), (Some(1001), Some(3000), vec![2000, 4000]));
        assert!(!of(json!({ "runAsNonRoot": true }), json!({ "runAsNonRoot": false })).run_as_non_root);
    }

    #[test]
    fn seccomp_is_on_unless_said_otherwise() {
        assert_eq!(of(json!({}), json!({})).seccomp, Seccomp::RuntimeDefault);
        assert_eq!(of(json!({}), json!({ "privileged": true })).seccomp, Seccomp::Unconfined);
        let pod = json!({ "seccompProfile": { "type": "Unconfined" } });
        assert_eq!(of(pod.clone(), json!({})).seccomp, Seccomp::Unconfined);
        let own = json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "a/b.json" } });
        assert_eq!(of(pod, own).seccomp, Seccomp::Localhost("/p/a/b.json".into()));
    }
}
