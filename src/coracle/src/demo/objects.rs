//! The demo's objects.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, Service},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::serve::{GREETING, PORT};

/// Pods of the Deployment.
pub const REPLICAS: usize = 3;
/// Name of the Deployment and its Service.
pub const WEB: &str = "web";
/// Name of the ConfigMap.
pub const CONFIG: &str = "greeting";

/// All of them in a namespace.
pub struct Objects {
    /// Where they live.
    pub namespace: Namespace,
    /// What the pods say.
    pub config: ConfigMap,
    /// Three pods that say it.
    pub deployment: Deployment,
    /// Their name.
    pub service: Service,
}

/// Makes them.
pub fn objects(namespace: &str, image: &str) -> Objects {
    let labels = json!({"app": WEB});
    let directory = GREETING.rsplit_once('/').map_or("/", |(directory, _)| directory);
    Objects {
        namespace: typed(json!({"metadata": {"name": namespace}})),
        config: typed(json!({"metadata": {"name": CONFIG}, "data": {"greeting": "hello"}})),
        deployment: typed(json!({
            "metadata": {"name": WEB, "labels": labels},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": "server", "image": image, "imagePullPolicy": "Never", "args": [super::WORKLOAD, "serve"],
                        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                        "ports": [{"containerPort": PORT}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                        "volumeMounts": [{"name": "config", "mountPath": directory}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": CONFIG}}],
                },
            }},
        })),
        service: typed(json!({"metadata": {"name": WEB}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]}})),
    }
}

/// A pod that asks the Service until `pods` pods have answered.
pub fn asker(name: &str, image: &str, pods: usize) -> Pod {
    typed(json!({
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "ask", "image": image, "imagePullPolicy": "Never", "args": [super::WORKLOAD, "ask", format!("{WEB}:80"), pods.to_string()],
        }]},
    }))
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|e| unreachable!("the demo's own objects are of their types: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_of_their_types() {
        let objects = objects("ns", "image");
        assert_eq!(objects.deployment.spec.and_then(|s| s.replicas), Some(3));
        assert!(asker("ask", "image", 3).spec.is_some());
    }
}
