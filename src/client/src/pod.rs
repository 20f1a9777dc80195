//! A pod as the roles of a cluster read it: the part of k8s-openapi's type that decides anything for them.
//!
//! Ten thousand pods are what a cluster's memory goes to, and of k8s-openapi's structs (2.4 KB for a pod, 2 KB for each of its containers,
//! whether a field is set or not) the roles read a fifth. What is not named here is passed over while an object is read. Field names and
//! shapes are those of the API (core/v1 Pod, 1.36), so that code reads the same with either type.

use std::collections::BTreeMap;

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Affinity, ContainerPort, EphemeralVolumeSource, PersistentVolumeClaimVolumeSource, PodCondition, PodIP},
    api::core::v1::{PodResourceClaim, PodSchedulingGate, ResourceRequirements, Toleration},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde::{Deserialize, Deserializer, Serialize};

/// What a role sees of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct Pod {
    pub metadata: ObjectMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<PodSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PodStatus>,
}

/// Of its spec: where it may run, what it takes, what it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct PodSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Affinity>>,
    pub containers: Box<[Container]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_containers: Option<Box<[Container]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<BTreeMap<String, Quantity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_claims: Option<Box<[PodResourceClaim]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<ResourceRequirements>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_gates: Option<Box<[PodSchedulingGate]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Box<[Toleration]>>,
    /// Those that are claims, or make one.
    #[serde(deserialize_with = "claims", skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Box<[Volume]>>,
}

/// Of a container: what it takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct Container {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Box<[ContainerPort]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
}

/// A volume that is a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct Volume {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Box<EphemeralVolumeSource>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
}

/// Of its status: how far it is, and where it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct PodStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Box<[PodCondition]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_statuses: Option<Box<[ContainerStatus]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_container_statuses: Option<Box<[ContainerStatus]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs", skip_serializing_if = "Option::is_none")]
    pub pod_ips: Option<Box<[PodIP]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Box<ResourceRequirements>>,
}

/// Of a container's status: what it was given, and how often it came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the API's own fields")]
pub struct ContainerStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_resources: Option<BTreeMap<String, Quantity>>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    pub restart_count: i32,
}

fn claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<[Volume]>>, D::Error> {
    let volumes = Option::<Vec<Volume>>::deserialize(deserializer)?;
    Ok(volumes.map(|volumes| volumes.into_iter().filter(|v| v.ephemeral.is_some() || v.persistent_volume_claim.is_some()).collect()))
}

impl k8s_openapi::Resource for Pod {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Pod;

    #[test]
    fn a_pod_keeps_what_decides() {
        let container =
            json!({"name": "c", "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 80}], "restartPolicy": "Always"});
        let mut full = container.clone();
        full["env"] = json!([{"name": "A", "value": "b"}]);
        full["livenessProbe"] = json!({"exec": {"command": ["true"]}});
        full["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "restartCount": 3, "resources": {"requests": {"cpu": "1"}}}],
        });
        let pod = |container, volumes| json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [container], "volumes": volumes, "nodeName": "n"}, "status": status});
        let whole = pod(full, json!([{"name": "token", "projected": {"sources": []}}, claim, {"name": "tmp", "emptyDir": {}}]));
        let seen: Pod = serde_json::from_value(whole).unwrap();
        assert_eq!(serde_json::to_value(&seen).unwrap(), pod(container, json!([claim])));
    }

    #[test]
    fn ten_thousand_take_little() {
        assert!(size_of::<Pod>() <= 1200, "{}", size_of::<Pod>());
        assert!(size_of::<super::Container>() <= 200, "{}", size_of::<super::Container>());
    }
}
