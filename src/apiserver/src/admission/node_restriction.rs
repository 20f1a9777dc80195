//! NodeRestriction: a node writes its own object, its own lease and the status of its own pods, and labels that are for it to set.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::{
    authorization::node::{NODE_PREFIX, node_name},
    objects::Objects,
};

/// Labels under this domain say what may run where: no node sets them for itself.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that a node may set.
const OWN_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
];
/// Domains in which a node may set any label.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The plugin.
#[derive(Debug)]
pub struct NodeRestriction {
    /// Where pods are looked up.
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(node) = node_name(write.user) else { return Ok(()) };
        if node.is_empty() {
            return Err(refuse(write, &format!("could not determine node from user {:?}", write.user.name)));
        }
        let info = write.info;
        let checked = match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("", "pods", "" | "status" | "eviction") => self.pod(write, node, object),
            ("", "pods", other) => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
            ("", "nodes", _) => own_node(write, node, object),
            ("coordination.k8s.io", "leases", _) => lease(write, node),
            ("certificates.k8s.io", "certificatesigningrequests", "") if write.operation == Operation::Create => {
                own_certificate(object.unwrap_or(&Value::Null), node)
            }
            ("storage.k8s.io", "csinodes", _) if info.name != node => {
                Err("can only access CSINode with the same name as the requesting node".into())
            }
            _ => Ok(()),
        };
        checked.map_err(|why| refuse(write, &why))
    }
}

/// A node asks for certificates of its own name; other signers than those of nodes look at requests themselves.
fn own_certificate(object: &Value, node: &str) -> Result<(), String> {
    const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    if !SIGNERS.iter().any(|signer| object["spec"]["signerName"] == *signer) {
        return Ok(());
    }
    let name = super::certificate_subject::request(object)?.common_name;
    if name.strip_prefix(NODE_PREFIX) == Some(node) {
        return Ok(());
    }
    Err(format!("can only create a node CSR with CN={NODE_PREFIX}{node}"))
}

impl NodeRestriction {
    fn pod(&self, write: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
        let on = |pod: Option<&Value>| pod.and_then(|pod| pod.pointer("/spec/nodeName")).and_then(Value::as_str) == Some(node);
        let info = write.info;
        match (info.subresource.as_str(), write.operation) {
            ("", Operation::Create) => new_pod(object.unwrap_or(&Value::Null), node),
            ("", Operation::Delete) | ("status", Operation::Update) if on(write.old) => Ok(()),
            ("", Operation::Delete) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            ("status", Operation::Update) => {
                Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
            }
            ("eviction", _) => {
                let pod = self.objects.get("", "pods", &info.namespace, &info.name);
                let own = on(pod.as_ref());
                if own { Ok(()) } else { Err(format!("node {node:?} can only evict pods with spec.nodeName set to itself")) }
            }
            (_, operation) => Err(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods")),
        }
    }
}

/// A node creates shadows of what it runs from files, which reference nothing.
fn new_pod(pod: &Value, node: &str) -> Result<(), String> {
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_none() {
        return Err(format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"));
    }
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    match owners {
        [] => Ok(()),
        [owner] if owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node && owner["controller"] == true => Ok(()),
        _ => Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
    }
}

fn own_node(write: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), String> {
    let name = write.info.name.as_str();
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    if new["spec"]["configSource"].is_object() {
        return Err(format!("node {node:?} is not allowed to set spec.configSource"));
    }
    let old = write.old.unwrap_or(&Value::Null);
    if write.operation == Operation::Update && list(&old["spec"]["taints"]) != list(&new["spec"]["taints"]) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let changed = changed_labels(&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let forbidden: Vec<&str> = changed.into_iter().filter(|label| !may_set(label)).collect();
    match (&forbidden[..], write.operation) {
        ([], _) => Ok(()),
        (labels, Operation::Create) => Err(format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", "))),
        (labels, _) => Err(format!("is not allowed to modify labels: {}", labels.join(", "))),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The labels that are not as they were, gone ones too.
fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let labels = |of: &'a Value| of.as_object().into_iter().flatten();
    let gone = labels(old).filter(|(key, value)| new.get(key) != Some(value));
    let fresh = labels(new).filter(|(key, _)| old.get(key).is_none());
    let mut out: Vec<&str> = gone.chain(fresh).map(|(key, _)| key.as_str()).collect();
    out.sort_unstable();
    out
}

fn may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within(RESTRICTED_DOMAIN) {
        return false;
    }
    let system = within("kubernetes.io") || within("k8s.io");
    !system || OWN_LABELS.contains(&label) || OWN_DOMAINS.iter().any(|own| within(own))
}

fn lease(write: &Attributes<'_>, node: &str) -> Result<(), String> {
    if write.info.namespace != LEASE_NAMESPACE {
        return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if write.info.name == node { Ok(()) } else { Err("can only access node lease with the same name as the requesting node".into()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_a_node_may_set() {
        for (label, allowed) in [
            ("mine", true),
            ("example.com/x", true),
            ("kubernetes.io/hostname", true),
            ("kubernetes.io/os", true),
            ("kubernetes.io/other", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("a.node-restriction.kubernetes.io/x", false),
            ("node.kubernetes.io/anything", true),
            ("kubelet.kubernetes.io/x", true),
            ("a.kubelet.kubernetes.io/x", true),
            ("xk8s.io/x", true),
            ("x.k8s.io/x", false),
        ] {
            assert_eq!(may_set(label), allowed, "{label}");
        }
        let changed = changed_labels(&json!({"a": "1", "b": "1", "c": "1"}), &json!({"a": "1", "b": "2", "d": "1"})).join(" ");
        assert_eq!(changed, "b c d");
    }

    #[test]
    fn a_node_creates_mirror_pods_of_its_own() {
        let pod = |annotation: bool, node: &str, owner: Value| {
            let annotations = if annotation { json!({"kubernetes.io/config.mirror": "x"}) } else { json!({}) };
            json!({"metadata": {"annotations": annotations, "ownerReferences": owner}, "spec": {"nodeName": node}})
        };
        let owner = |name: &str| json!([{"apiVersion": "v1", "kind": "Node", "name": name, "controller": true}]);
        for (pod, ok) in [
            (pod(true, "n", owner("n")), true),
            (pod(true, "n", json!([])), true),
            (pod(false, "n", owner("n")), false),
            (pod(true, "m", owner("n")), false),
            (pod(true, "n", owner("m")), false),
        ] {
            assert_eq!(new_pod(&pod, "n").is_ok(), ok, "{pod}");
        }
    }
}
