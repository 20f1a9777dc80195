//! Which changes of an object can make less of what it takes of a quota. What becomes more, admission has seen.

use coracle_client::pod::{ContainerStatus, Pod};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};

use crate::pods::is_terminal;

/// A pod that has gone, has ended, is on its way out, was resized, or got or lost its deadline.
pub fn lighter_pod(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return new.is_none() };
    let deadline = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some());
    is_terminal(old) != is_terminal(new)
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || deadline(old) != deadline(new)
        || resources(old).ne(resources(new))
}

fn resources(pod: &Pod) -> impl Iterator<Item = Option<&k8s_openapi::api::core::v1::ResourceRequirements>> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    let asked = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten())).map(|c| c.resources.as_ref());
    statuses.map(|status: &ContainerStatus| status.resources.as_ref()).chain(asked)
}

/// A Service that has gone, or is of another type, or has other ports.
pub fn lighter_service(old: Option<&Service>, new: Option<&Service>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return new.is_none() };
    let weight = |service: &Service| service.spec.as_ref().map(|s| (s.type_.clone(), s.ports.clone(), s.allocate_load_balancer_node_ports));
    weight(old) != weight(new)
}

/// A claim that has gone, or asks for or has another size, or another class of attributes.
pub fn lighter_claim(old: Option<&PersistentVolumeClaim>, new: Option<&PersistentVolumeClaim>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return new.is_none() };
    let weight = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref();
        let given =
            status.map(|s| (s.allocated_resources.clone(), s.current_volume_attributes_class_name.clone(), s.modify_volume_status.clone()));
        (claim.spec.as_ref().map(|s| (s.resources.clone(), s.volume_attributes_class_name.clone())), given)
    };
    weight(old) != weight(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_lighter_when_it_ends_goes_or_is_resized() {
        let pod = |value: serde_json::Value| -> Pod { serde_json::from_value(value).unwrap() };
        let runs = pod(json!({"spec": {"containers": []}, "status": {"phase": "Running"}}));
        let check =
            |new: serde_json::Value, expected: bool| assert_eq!(lighter_pod(Some(&runs), Some(&pod(new.clone()))), expected, "{new}");
        check(json!({"spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1"}}), false);
        check(json!({"spec": {"containers": []}, "status": {"phase": "Failed"}}), true);
        check(json!({"spec": {"containers": [], "activeDeadlineSeconds": 3}, "status": {"phase": "Running"}}), true);
        let deleted =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}, "status": {"phase": "Running"}});
        check(deleted, true);
        assert!(lighter_pod(Some(&runs), None) && !lighter_pod(None, Some(&runs)));
    }
}
