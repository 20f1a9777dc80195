//! Ids of containers on their way to the API and back, where the runtime has names of its own for them.

use std::sync::Arc;

use coracle_runtime::PodRuntime;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::status::ID_SCHEME;

/// Ours become the runtime's, as its tools show them.
pub fn to_api(runtime: &dyn PodRuntime, status: &mut PodStatus) {
    let Some(naming) = runtime.naming() else { return };
    each(status, |id| id.strip_prefix(ID_SCHEME).map(|own| naming.shown(own)));
}

/// The pod with our ids in its status, as far as the runtime knows them.
pub fn from_api(runtime: &dyn PodRuntime, pod: &Arc<Pod>) -> Arc<Pod> {
    let (Some(naming), Some(mut status)) = (runtime.naming(), pod.status.clone()) else { return pod.clone() };
    each(&mut status, |id| naming.known(id).map(|own| format!("{ID_SCHEME}{own}")));
    Arc::new(Pod { status: Some(status), ..(**pod).clone() })
}

fn each(status: &mut PodStatus, rename: impl Fn(&str) -> Option<String>) {
    let lists = [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    for container in lists.into_iter().flat_map(|list| list.iter_mut().flatten()) {
        let states = [&mut container.state, &mut container.last_state];
        let ends = states.into_iter().filter_map(|state| state.as_mut()?.terminated.as_mut()).map(|end| &mut end.container_id);
        for id in ends.chain([&mut container.container_id]) {
            if let Some(new) = id.as_deref().and_then(&rename) {
                *id = Some(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_id_of_a_status_is_renamed() {
        let status = |main: &str, ended: &str, last: &str| -> PodStatus {
            let container = json!({
                "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 1, "containerID": main,
                "state": { "terminated": { "exitCode": 0, "containerID": ended } },
                "lastState": { "terminated": { "exitCode": 1, "containerID": last } },
            });
            serde_json::from_value(json!({ "containerStatuses": [container], "initContainerStatuses": [container] })).expect("a status")
        };
        let mut renamed = status("coracle://a", "coracle://a", "containerd://gone");
        each(&mut renamed, |id| id.strip_prefix(ID_SCHEME).map(|own| format!("containerd://{own}1")));
        assert_eq!(renamed, status("containerd://a1", "containerd://a1", "containerd://gone"));
    }
}
