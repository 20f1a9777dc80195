//! Devices: since when a taint is there, and who may ask for devices that others use.

use coracle_api::status::Cause;
use jiff::Timestamp;
use serde_json::Value;

use super::{Kind, meta};

/// Label of namespaces whose claims may ask for administrators' access to devices.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

/// A taint of a device that says no time was put on it now.
pub fn date_taints(slice: &mut Value, now: Timestamp) {
    let devices = slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten();
    let taints = devices.filter_map(|device| device.get_mut("taints")?.as_array_mut()).flatten();
    for taint in taints.filter(|taint| taint.is_object() && taint["timeAdded"].is_null()) {
        taint["timeAdded"] = meta::time(now).into();
    }
}

/// What is wrong with a new claim or template for its namespace, which is looked up only when the claim asks for such access.
pub fn check(kind: Kind<'_>, object: &Value, namespace: impl FnOnce() -> Option<Value>) -> Option<Cause> {
    let place = match (kind.group, kind.plural) {
        ("resource.k8s.io", "resourceclaims") => "spec",
        ("resource.k8s.io", "resourceclaimtemplates") => "spec.spec",
        _ => return None,
    };
    let requests = object.pointer(&format!("/{}/devices/requests", place.replace('.', "/")))?.as_array()?;
    let asks = requests.iter().position(|request| request["exactly"]["adminAccess"] == true)?;
    let allowed = namespace().is_some_and(|namespace| namespace["metadata"]["labels"][ADMIN_LABEL] == "true");
    let message = format!("Forbidden: admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
    (!allowed).then(|| Cause { reason: "FieldValueForbidden", field: format!("{place}.devices.requests[{asks}].adminAccess"), message })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_are_dated_once() {
        let mut slice = json!({"spec": {"devices": [{"name": "a", "taints": [{"key": "k"}, {"key": "l", "timeAdded": "2020-01-01T00:00:00Z"}]}, {"name": "b"}]}});
        date_taints(&mut slice, Timestamp::UNIX_EPOCH);
        let times: Vec<&Value> =
            slice["spec"]["devices"][0]["taints"].as_array().expect("taints").iter().map(|t| &t["timeAdded"]).collect();
        assert_eq!(times, ["1970-01-01T00:00:00Z", "2020-01-01T00:00:00Z"]);
    }

    #[test]
    fn access_of_administrators_is_a_matter_of_the_namespace() {
        let kind = Kind { group: "resource.k8s.io", plural: "resourceclaims", has_status: true, custom: false };
        let claim =
            |admin: bool| json!({"spec": {"devices": {"requests": [{"name": "a"}, {"name": "b", "exactly": {"adminAccess": admin}}]}}});
        let (plain, labelled) = (json!({"metadata": {}}), json!({"metadata": {"labels": {ADMIN_LABEL: "true"}}}));
        let told = |admin: bool, namespace: &Value| check(kind, &claim(admin), || Some(namespace.clone())).map(|cause| cause.field);
        assert_eq!(told(true, &plain).as_deref(), Some("spec.devices.requests[1].adminAccess"));
        assert_eq!((told(true, &labelled), told(false, &plain)), (None, None));
    }
}
