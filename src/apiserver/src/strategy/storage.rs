//! Volumes and claims: pending at birth, protected from being deleted while in use.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::meta;

/// Adds a finalizer.
pub fn protect(object: &mut Value, finalizer: &str) {
    let mut list = meta::finalizers(object);
    if !list.iter().any(|f| f == finalizer) {
        list.push(finalizer.to_owned());
        meta::set_finalizers(object, &list);
    }
}

/// A new volume waits for a claim.
pub fn prepare_volume(volume: &mut Value, now: Timestamp) {
    volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": meta::time(now)});
    protect(volume, "kubernetes.io/pv-protection");
}

/// A new claim waits for a volume.
pub fn prepare_claim(claim: &mut Value) {
    claim["status"] = json!({"phase": "Pending"});
    protect(claim, "kubernetes.io/pvc-protection");
    sources(claim, None);
}

fn is_claim_or_snapshot(source: &Value) -> bool {
    let group = source["apiGroup"].as_str().unwrap_or_default();
    matches!((source["kind"].as_str(), group), (Some("PersistentVolumeClaim"), "") | (Some("VolumeSnapshot"), "snapshot.storage.k8s.io"))
}

/// The two names of a claim's source say the same.
pub fn sources(claim: &mut Value, old: Option<&Value>) {
    let in_use = old.is_some_and(|old| ["dataSource", "dataSourceRef"].iter().any(|name| !old["spec"][*name].is_null()));
    let spec = meta::map(claim, "spec");
    // The older field takes claims and snapshots alone; anything else in it was always dropped.
    let told = spec.get("dataSourceRef").is_some_and(|reference| !reference.is_null());
    if !in_use && !told && !spec.get("dataSource").is_none_or(is_claim_or_snapshot) {
        spec.remove("dataSource");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => drop(spec.insert("dataSourceRef".into(), source)),
        (None, Some(source)) if source["namespace"].is_null() => drop(spec.insert("dataSource".into(), source)),
        _ => {}
    }
}
