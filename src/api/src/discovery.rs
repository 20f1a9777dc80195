//! Discovery documents of a catalogue: the legacy ones and the aggregated one.

use serde_json::Value;

use crate::catalogue::Catalogue;

/// `/api`: APIVersions.
pub fn core_versions(server_address: &str) -> Value {
    let _ = server_address;
    Value::Null
}

/// `/apis`: APIGroupList.
pub fn groups(catalogue: &Catalogue) -> Value {
    let _ = catalogue;
    Value::Null
}

/// `/apis/GROUP`: APIGroup.
pub fn group(catalogue: &Catalogue, group: &str) -> Option<Value> {
    let _ = (catalogue, group);
    None
}

/// `/api/v1`, `/apis/GROUP/VERSION`: APIResourceList.
pub fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let _ = (catalogue, group, version);
    None
}

/// `/api` (`core`) and `/apis` (not `core`) for clients that accept `g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
pub fn aggregated(catalogue: &Catalogue, core: bool) -> Value {
    let _ = (catalogue, core);
    Value::Null
}
