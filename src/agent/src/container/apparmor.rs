//! Which AppArmor profile a pod asks for, container by container (KEP-24). Pure.

use coracle_runtime::AppArmor;
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use crate::pod::spec;

/// How pods asked before there was a field; static pods may still.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a container asks for: by itself, by the old annotation, or by its pod. `None`: nothing.
pub fn asked(pod: &Pod, container: &Container) -> Option<AppArmor> {
    let own = || container.security_context.as_ref()?.app_armor_profile.as_ref().map(profile);
    let of_pod = || pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.as_ref().map(profile);
    own().or_else(|| annotated(pod, &container.name)).or_else(of_pod)
}

/// Whether the pod is to be confined, so that it must not run where nothing confines.
pub fn is_required(pod: &Pod) -> bool {
    spec::parts(pod).iter().filter_map(|part| asked(pod, &part.spec)).any(|profile| profile != AppArmor::Unconfined)
}

fn annotated(pod: &Pod, container: &str) -> Option<AppArmor> {
    match pod.metadata.annotations.as_ref()?.get(&format!("{ANNOTATION}{container}"))?.as_str() {
        "runtime/default" => Some(AppArmor::RuntimeDefault),
        "unconfined" => Some(AppArmor::Unconfined),
        other => other.strip_prefix("localhost/").map(|name| AppArmor::Localhost(name.to_owned())),
    }
}

fn profile(profile: &AppArmorProfile) -> AppArmor {
    match profile.type_.as_str() {
        "Unconfined" => AppArmor::Unconfined,
        "Localhost" => AppArmor::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => AppArmor::RuntimeDefault,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(annotation: &str, of_pod: Value, own: Value, expected: Option<AppArmor>, required: bool) {
        let mut pod = json!({
            "metadata": { "name": "p" },
            "spec": {
                "securityContext": { "appArmorProfile": of_pod },
                "containers": [{ "name": "a", "securityContext": { "appArmorProfile": own } }],
            },
        });
        if !annotation.is_empty() {
            pod["metadata"]["annotations"] = json!({ format!("{ANNOTATION}a"): annotation });
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        assert_eq!(asked(&pod, container), expected, "{pod:?}");
        assert_eq!(is_required(&pod), required, "{pod:?}");
    }

    #[test]
    fn the_container_wins_over_its_annotation_and_that_over_the_pod() {
        let named = |name: &str| json!({ "type": "Localhost", "localhostProfile": name });
        let localhost = |name: &str| Some(AppArmor::Localhost(name.to_owned()));
        let (default, open) = (json!({ "type": "RuntimeDefault" }), json!({ "type": "Unconfined" }));
        check("", Value::Null, Value::Null, None, false);
        check("", default.clone(), Value::Null, Some(AppArmor::RuntimeDefault), true);
        check("", open.clone(), named("x"), localhost("x"), true);
        check("", default.clone(), open.clone(), Some(AppArmor::Unconfined), false);
        check("localhost/y", open.clone(), Value::Null, localhost("y"), true);
        check("localhost/y", open.clone(), named("x"), localhost("x"), true);
        check("runtime/default", Value::Null, Value::Null, Some(AppArmor::RuntimeDefault), true);
        check("unconfined", default.clone(), Value::Null, Some(AppArmor::Unconfined), false);
        check("something", default, Value::Null, Some(AppArmor::RuntimeDefault), true);
    }

    #[test]
    fn one_container_that_asks_is_enough() {
        for list in ["initContainers", "ephemeralContainers"] {
            let mut spec = json!({ "containers": [{ "name": "a" }] });
            spec[list] = json!([{ "name": "b", "securityContext": { "appArmorProfile": { "type": "RuntimeDefault" } } }]);
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).expect("a pod");
            assert!(is_required(&pod), "{list}");
        }
    }
}
