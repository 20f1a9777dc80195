//! What a pod's volume claims say against binding it anywhere: upstream's VolumeBinding, as far as it looks at no node.
//!
//! Nothing here binds a claim to a volume. A pod whose claims are not bound waits until somebody else has bound them. Nor are devices
//! allocated to ResourceClaims: a pod that has some waits for a scheduler that does.

use std::sync::Arc;

use coracle_client::pod::Pod;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::filter::Reason;

/// The volume controller (or who binds in its place) says with it that both ends of the binding are written.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The first reason to leave the pod without a node; `None`: it has no claims, or they are all bound. `claim` gives a claim of the pod's
/// namespace by its name.
pub fn refusal(pod: &Pod, claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>) -> Option<Reason> {
    if pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten()).next().is_some() {
        return Some("cannot allocate all claims".into());
    }
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut unbound = false;
    for volume in volumes() {
        let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name),
            (None, None) => continue,
        };
        let made_for_it = volume.persistent_volume_claim.is_none();
        let Some(found) = claim(&name) else {
            return Some(if made_for_it {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
            } else {
                format!("persistentvolumeclaim \"{name}\" not found")
            });
        };
        if made_for_it && !is_of(&found, pod) {
            return Some(format!("persistentvolumeclaim \"{name}\" was not created for the pod"));
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let volume = found.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        if found.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
            return Some(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""));
        }
        unbound |= volume.is_empty() || !found.metadata.annotations.iter().flatten().any(|(key, _)| key == BIND_COMPLETED);
    }
    unbound.then(|| "pod has unbound PersistentVolumeClaims".into())
}

fn is_of(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(volume: Value, claim: Option<Value>, want: Option<&str>) {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [{"name": "c"}], "volumes": [volume]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let claim = claim.clone().map(|c| Arc::new(serde_json::from_value::<PersistentVolumeClaim>(c).expect("a claim")));
        let name = |c: &PersistentVolumeClaim| c.metadata.name.clone().unwrap_or_default();
        let got = refusal(&pod, |asked| claim.clone().filter(|c| name(c) == asked));
        assert_eq!(got.as_deref(), want, "{volume} {claim:?}");
    }

    fn claim(name: &str, more: Value) -> Option<Value> {
        let mut claim = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        claim["metadata"]["annotations"] = json!({BIND_COMPLETED: "yes"});
        for (part, value) in more.as_object().expect("an object") {
            value.as_object().expect("an object").iter().for_each(|(k, v)| claim[part][k] = v.clone());
        }
        Some(claim)
    }

    #[test]
    fn a_pod_waits_for_claims_that_are_there_and_bound() {
        let disk = || json!({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}});
        check(json!({"name": "e", "emptyDir": {}}), None, None);
        check(disk(), claim("disk", json!({})), None);
        check(disk(), None, Some("persistentvolumeclaim \"disk\" not found"));
        check(disk(), claim("disk2", json!({})), Some("persistentvolumeclaim \"disk\" not found"));
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        check(disk(), claim("disk", going), Some("persistentvolumeclaim \"disk\" is being deleted"));
        let lost = json!({"status": {"phase": "Lost"}});
        check(disk(), claim("disk", lost), Some("persistentvolumeclaim \"disk\" bound to non-existent persistentvolume \"v\""));
        let unbound = Some("pod has unbound PersistentVolumeClaims");
        check(disk(), claim("disk", json!({"spec": {"volumeName": ""}})), unbound);
        check(disk(), claim("disk", json!({"metadata": {"annotations": {}}})), unbound);
    }

    #[test]
    fn a_pod_that_claims_devices_is_bound_nowhere() {
        let spec = json!({"containers": [{"name": "c"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}]});
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        assert_eq!(refusal(&pod, |_| None).as_deref(), Some("cannot allocate all claims"));
    }

    #[test]
    fn an_ephemeral_volume_needs_the_claim_that_was_made_for_this_pod() {
        let volume = || json!({"name": "eph", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let owned = |uid: &str| json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]}});
        check(volume(), None, Some("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-eph\""));
        check(volume(), claim("p-eph", json!({})), Some("persistentvolumeclaim \"p-eph\" was not created for the pod"));
        check(volume(), claim("p-eph", owned("other")), Some("persistentvolumeclaim \"p-eph\" was not created for the pod"));
        check(volume(), claim("p-eph", owned("u")), None);
    }
}
