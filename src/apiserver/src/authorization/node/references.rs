//! What a pod references: the objects that its node must be able to read.

use std::collections::BTreeSet;

use serde_json::Value;

/// Names in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets of volumes, environment and image pulls.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps of volumes and environment.
    pub config_maps: BTreeSet<String>,
    /// PersistentVolumeClaims, also those of generic ephemeral volumes.
    pub claims: BTreeSet<String>,
    /// ResourceClaims that its status names.
    pub resource_claims: BTreeSet<String>,
    /// Who it runs as.
    pub service_account: Option<String>,
}

impl References {
    /// Of a pod. A mirror pod stands for one that the node runs from a file: it gives its node no rights.
    pub fn of(pod: &Value) -> Self {
        let mut out = Self::default();
        if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
            return out;
        }
        let spec = &pod["spec"];
        let pod_name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        out.service_account = spec["serviceAccountName"].as_str().map(str::to_owned);
        out.secrets.extend(each(&spec["imagePullSecrets"]).filter_map(|secret| text(&secret["name"])));
        for kind in ["initContainers", "containers", "ephemeralContainers"] {
            for container in each(&spec[kind]) {
                out.environment(container);
            }
        }
        for volume in each(&spec["volumes"]) {
            out.volume(volume, pod_name);
        }
        let claims = each(&pod["status"]["resourceClaimStatuses"]).filter_map(|claim| text(&claim["resourceClaimName"]));
        out.resource_claims.extend(claims);
        out.resource_claims.extend(each(&spec["resourceClaims"]).filter_map(|claim| text(&claim["resourceClaimName"])));
        out
    }

    /// Whether an object of this plural and name is among them.
    pub fn holds(&self, resource: &str, name: &str) -> bool {
        match resource {
            "secrets" => self.secrets.contains(name),
            "configmaps" => self.config_maps.contains(name),
            "persistentvolumeclaims" => self.claims.contains(name),
            "resourceclaims" => self.resource_claims.contains(name),
            "serviceaccounts" => self.service_account.as_deref() == Some(name),
            _ => false,
        }
    }

    fn environment(&mut self, container: &Value) {
        for from in each(&container["envFrom"]) {
            self.secrets.extend(text(&from["secretRef"]["name"]));
            self.config_maps.extend(text(&from["configMapRef"]["name"]));
        }
        for variable in each(&container["env"]) {
            self.secrets.extend(text(&variable["valueFrom"]["secretKeyRef"]["name"]));
            self.config_maps.extend(text(&variable["valueFrom"]["configMapKeyRef"]["name"]));
        }
    }

    fn volume(&mut self, volume: &Value, pod_name: &str) {
        self.secrets.extend(text(&volume["secret"]["secretName"]));
        self.config_maps.extend(text(&volume["configMap"]["name"]));
        self.claims.extend(text(&volume["persistentVolumeClaim"]["claimName"]));
        if let (true, Some(name)) = (volume["ephemeral"].is_object(), volume["name"].as_str()) {
            self.claims.insert(format!("{pod_name}-{name}"));
        }
        for source in each(&volume["projected"]["sources"]) {
            self.secrets.extend(text(&source["secret"]["name"]));
            self.config_maps.extend(text(&source["configMap"]["name"]));
        }
        self.secrets.extend(text(&volume["azureFile"]["secretName"]));
        self.secrets.extend(text(&volume["csi"]["nodePublishSecretRef"]["name"]));
        for driver in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            self.secrets.extend(text(&volume[driver]["secretRef"]["name"]));
        }
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
