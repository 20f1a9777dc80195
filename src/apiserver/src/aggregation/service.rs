//! An APIService as far as the aggregator looks at it. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::strategy::meta;

/// Group of APIServices themselves.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Plural of APIServices themselves.
pub const PLURAL: &str = "apiservices";
/// Says that this server made an APIService and keeps it as its kinds are.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Who answers for one version of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiService {
    /// `v1.apps`.
    pub name: String,
    /// Tells it from another of its name.
    pub uid: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The group comes before those with a smaller number.
    pub group_priority: i64,
    /// The version comes before those of its group with a smaller number.
    pub version_priority: i64,
    /// `onstart` or `true`, where this server made it.
    pub automanaged: Option<String>,
    /// Where requests go; `None` for what is served here.
    pub remote: Option<Reference>,
    /// Status and reason of its condition Available.
    pub available: Option<(String, String)>,
}

/// The Service of an extension API server, and how its certificate is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Of the Service.
    pub namespace: String,
    /// Of the Service.
    pub name: String,
    /// Of the Service.
    pub port: u16,
    /// PEM; empty for none.
    pub ca_bundle: Vec<u8>,
    /// Takes any certificate.
    pub insecure: bool,
}

impl ApiService {
    /// Reads an object.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = spec["service"].as_object();
        let remote = service.map(|_| Reference {
            namespace: text(&spec["service"]["namespace"]),
            name: text(&spec["service"]["name"]),
            port: spec["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            ca_bundle: STANDARD.decode(spec["caBundle"].as_str().unwrap_or_default()).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
        });
        let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let available = conditions.iter().find(|condition| condition["type"] == "Available");
        Self {
            name: meta::text(object, "name").to_owned(),
            uid: meta::text(object, "uid").to_owned(),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            automanaged: object["metadata"]["labels"][AUTOMANAGED].as_str().map(str::to_owned),
            remote,
            available: available.map(|condition| (text(&condition["status"]), text(&condition["reason"]))),
        }
    }

    /// Its condition Available is true.
    pub fn is_available(&self) -> bool {
        self.available.as_ref().is_some_and(|(status, _)| status == "True")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn remote_and_local() {
        let remote = ApiService::read(&json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io", "uid": "u"},
            "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 10,
                "service": {"namespace": "kube-system", "name": "metrics-server"}, "caBundle": "UEVN"},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]},
        }));
        let reference = Reference {
            namespace: "kube-system".into(),
            name: "metrics-server".into(),
            port: 443,
            ca_bundle: b"PEM".to_vec(),
            insecure: false,
        };
        assert_eq!(remote.remote, Some(reference));
        assert_eq!(remote.available, Some(("False".into(), "MissingEndpoints".into())));
        assert!(!remote.is_available());
        let local =
            ApiService::read(&json!({"metadata": {"labels": {AUTOMANAGED: "onstart"}}, "spec": {"group": "apps", "version": "v1"}}));
        assert_eq!((local.remote, local.automanaged.as_deref(), local.available), (None, Some("onstart"), None));
    }
}
