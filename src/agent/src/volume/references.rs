//! Which ConfigMaps and Secrets a pod uses: these and no others are watched.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec;

/// Names in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// All that `pod` refers to.
pub fn references(pod: &Pod) -> References {
    let mut out = References::default();
    for part in spec::parts(pod) {
        for from in part.spec.env_from.iter().flatten() {
            out.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
            out.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        }
        for from in part.spec.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            out.config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
            out.secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    let Some(spec) = &pod.spec else { return out };
    out.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        out.config_maps.extend(volume.config_map.iter().map(|v| v.name.clone()));
        out.secrets.extend(volume.secret.iter().filter_map(|v| v.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            out.config_maps.extend(source.config_map.iter().map(|v| v.name.clone()));
            out.secrets.extend(source.secret.iter().map(|v| v.name.clone()));
        }
    }
    out.config_maps.remove("");
    out.secrets.remove("");
    out
}
