//! Local disk: which limit a pod has crossed, if any. Pure.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodSpec, Volume};

use crate::{pod::spec, resources};

/// The resource.
const STORAGE: &str = "ephemeral-storage";

/// Bytes that a pod has on the node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Writable layer and logs, by container.
    pub containers: BTreeMap<String, u64>,
    /// By volume; those that are not on the disk are not in it.
    pub volumes: BTreeMap<String, u64>,
}

/// Whether anything of the pod's disk is limited: only then it is measured.
pub fn is_limited(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let volumes = spec.volumes.iter().flatten().filter_map(|v| v.empty_dir.as_ref());
        volumes.filter_map(size_limit).next().is_some() || pod_limit(spec).is_some()
    })
}

fn pod_limit(spec: &PodSpec) -> Option<Quantity> {
    resources::of_pod(spec, resources::limits_of).get(STORAGE).copied().filter(|q| q.signum() > 0)
}

/// Neither memory nor huge pages.
pub fn is_on_disk(volume: &EmptyDirVolumeSource) -> bool {
    volume.medium.as_deref().is_none_or(str::is_empty)
}

/// Whether what a volume holds takes the pod's share of the node's disk. Secrets and tokens are kept in memory.
pub fn takes_disk(volume: &Volume) -> bool {
    let in_memory = volume.empty_dir.as_ref().is_some_and(|e| !is_on_disk(e));
    let files = volume.empty_dir.is_some() || volume.config_map.is_some() || volume.downward_api.is_some();
    files && !in_memory
}

/// Of an emptyDir on disk: one in memory is held to its size by its file system.
fn size_limit(volume: &EmptyDirVolumeSource) -> Option<Quantity> {
    let limit = volume.size_limit.as_ref().filter(|_| is_on_disk(volume))?;
    limit.0.parse().ok().filter(|q: &Quantity| q.signum() > 0)
}

/// Which limit was crossed, by upstream's name of it, and why the pod must go, in upstream's words: clients match them.
pub fn verdict(pod: &Pod, usage: &Usage) -> Option<(&'static str, String)> {
    let spec = pod.spec.as_ref()?;
    let over = |bytes: u64, limit: Quantity| i64::try_from(bytes).unwrap_or(i64::MAX) > limit.units();
    let volumes = spec.volumes.iter().flatten().filter_map(|v| Some((&v.name, size_limit(v.empty_dir.as_ref()?)?)));
    for (name, limit) in volumes {
        if over(usage.volumes.get(name).copied().unwrap_or(0), limit) {
            return Some(("emptydirfs.limit", format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". ")));
        }
    }
    let all = usage.containers.values().chain(usage.volumes.values()).sum();
    if let Some(limit) = pod_limit(spec).filter(|limit| over(all, *limit)) {
        let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        return Some(("ephemeralpodfs.limit", message));
    }
    for part in spec::parts(pod) {
        let Some(limit) = resources::limits_of(&part.spec).get(STORAGE).copied().filter(|q| q.signum() > 0) else { continue };
        if over(usage.containers.get(&part.spec.name).copied().unwrap_or(0), limit) {
            let message = format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", part.spec.name);
            return Some(("ephemeralcontainerfs.limit", message));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: Value, volumes: Value) -> Pod {
        serde_json::from_value(json!({ "spec": { "containers": containers, "volumes": volumes } })).expect("a pod")
    }

    fn limited(name: &str, limit: &str) -> Value {
        json!({ "name": name, "resources": { "limits": { "ephemeral-storage": limit } } })
    }

    #[test]
    fn the_first_limit_that_is_crossed_is_named() {
        const MIB: u64 = 1 << 20;
        let volumes = json!([
            { "name": "m", "emptyDir": { "sizeLimit": "8Mi" } },
            { "name": "open", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "sizeLimit": "1Mi", "medium": "Memory" } }
        ]);
        let two = pod(json!([limited("a", "10Mi"), limited("b", "4Mi")]), volumes);
        let check = |usage: [(&str, u64); 4], want: Option<&str>| {
            let of = |names: &[&str]| usage.iter().filter(|(n, _)| names.contains(n)).map(|(n, b)| ((*n).to_owned(), *b)).collect();
            let usage = Usage { containers: of(&["a", "b"]), volumes: of(&["m", "open", "memory"]) };
            let got = verdict(&two, &usage);
            assert_eq!(got.is_some(), want.is_some(), "{usage:?} {got:?}");
            assert!(want.is_none_or(|w| got.as_ref().is_some_and(|(_, g)| g.contains(w))), "{usage:?} {got:?}");
        };
        check([("a", MIB), ("b", MIB), ("m", 8 * MIB), ("open", 4 * MIB)], None);
        check([("a", MIB), ("b", MIB), ("m", 8 * MIB + 1), ("open", 0)], Some("EmptyDir volume \"m\" exceeds the limit \"8Mi\""));
        check([("a", MIB), ("b", MIB), ("m", MIB), ("open", 12 * MIB)], Some("total limit of containers 14Mi"));
        check([("a", MIB), ("b", 4 * MIB + 1), ("m", 0), ("open", 0)], Some("Container b exceeded"));
    }

    #[test]
    fn what_has_no_limit_is_not_measured() {
        assert!(!is_limited(&pod(json!([{ "name": "a" }]), json!([{ "name": "v", "emptyDir": {} }]))));
        assert!(!is_limited(&pod(
            json!([{ "name": "a" }]),
            json!([{ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }])
        )));
        assert!(is_limited(&pod(json!([{ "name": "a" }]), json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }]))));
        assert!(is_limited(&pod(json!([limited("a", "1Gi")]), json!([]))));
    }
}
