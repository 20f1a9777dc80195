//! The cluster as the scheduler sees it: nodes, and what the pods on them take, kept up to date change by change.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coracle_client::{Key, pod::Pod};
use k8s_openapi::api::core::v1::Node;

use crate::needs::{self, Amounts, HostPort, Needs};

/// Nodes with what is left of them.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    placed: HashMap<Key, Placed>,
}

/// A node, and the sums over its pods.
#[derive(Debug, Default)]
pub struct NodeState {
    /// `None`: pods are bound to it, but it does not exist (any more).
    pub node: Option<Arc<Node>>,
    /// `status.allocatable`.
    pub allocatable: Amounts,
    /// Sum of its pods' requests.
    pub requested: Amounts,
    /// How many pods it has.
    pub pods: i64,
    /// Host ports taken.
    pub ports: Vec<HostPort>,
    /// Pods by the uid of their controller.
    pub owners: HashMap<Box<str>, u32>,
}

#[derive(Debug)]
struct Placed {
    node: String,
    needs: Needs,
    owner: Option<Box<str>>,
    /// Bound by us, not yet seen in the informer.
    assumed: bool,
}

impl Cluster {
    /// Nodes that exist, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeState, &Node)> {
        self.nodes.iter().filter_map(|(name, state)| Some((name.as_str(), state, &**state.node.as_ref()?)))
    }

    /// A node was added or changed.
    pub fn put_node(&mut self, name: &str, node: Arc<Node>) {
        let state = self.nodes.entry(name.to_owned()).or_default();
        state.allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref()).map(needs::amounts).unwrap_or_default();
        state.node = Some(node);
    }

    /// A node is gone; its pods count until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(state) = self.nodes.get_mut(name) {
            state.node = None;
            if state.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// A pod was added or changed: it counts while it is bound and not over. An assumed pod that the informer still shows unbound keeps
    /// its place. Says whether it takes less of something than before, as a pod does that has shrunk.
    pub fn put_pod(&mut self, key: &Key, pod: &Pod) -> bool {
        let bound = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|_| !is_over(pod));
        if bound.is_none() && !is_over(pod) && self.placed.get(key).is_some_and(|p| p.assumed) {
            return false;
        }
        let before = self.placed.get(key).map(|placed| placed.needs.requests.clone()).unwrap_or_default();
        self.remove_pod(key);
        if let Some(node) = bound {
            self.place(key.clone(), node, pod, false);
        }
        let now = self.placed.get(key).map(|placed| &placed.needs.requests);
        before.iter().any(|(name, amount)| now.and_then(|now| now.get(name)).is_none_or(|now| now < amount))
    }

    /// A pod is bound to the node, as far as we know.
    pub fn assume(&mut self, key: &Key, node: &str, pod: &Pod) {
        self.remove_pod(key);
        self.place(key.clone(), node, pod, true);
    }

    /// A pod is gone, or its binding failed.
    pub fn remove_pod(&mut self, key: &Key) {
        let Some(placed) = self.placed.remove(key) else { return };
        let Some(state) = self.nodes.get_mut(&placed.node) else { return };
        needs::subtract(&mut state.requested, &placed.needs.requests);
        state.pods -= 1;
        for port in &placed.needs.ports {
            if let Some(at) = state.ports.iter().position(|p| p == port) {
                state.ports.swap_remove(at);
            }
        }
        if let Some(owner) = placed.owner
            && let Some(count) = state.owners.get_mut(&owner)
        {
            *count -= 1;
            if *count == 0 {
                state.owners.remove(&owner);
            }
        }
        if state.pods == 0 && state.node.is_none() {
            self.nodes.remove(&placed.node);
        }
    }

    fn place(&mut self, key: Key, node: &str, pod: &Pod, assumed: bool) {
        let (needs, owner) = (needs::needs(pod), owner(pod));
        let state = self.nodes.entry(node.to_owned()).or_default();
        needs::add(&mut state.requested, &needs.requests);
        state.pods += 1;
        state.ports.extend(needs.ports.iter().cloned());
        if let Some(owner) = &owner {
            *state.owners.entry(owner.clone()).or_default() += 1;
        }
        self.placed.insert(key, Placed { node: node.to_owned(), needs, owner, assumed });
    }
}

/// Uid of the pod's controller.
pub fn owner(pod: &Pod) -> Option<Box<str>> {
    let controller = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    Some(controller.uid.as_str().into())
}

/// Whether none of its containers will run again.
pub fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_takes_less_than_before_is_told() {
        let mut cluster = Cluster::default();
        let mut put = |cpu: &str, granted: &str, phase: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "d"},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
                "status": {"phase": phase, "containerStatuses": [{"name": "c", "restartCount": 0, "allocatedResources": {"cpu": granted}}]},
            }))
            .expect("a pod");
            let less = cluster.put_pod(&Key::new("d", "p"), &pod);
            (less, cluster.nodes["n"].requested.get("cpu").copied().unwrap_or(0))
        };
        assert_eq!(put("1", "1", "Running"), (false, 1000));
        assert_eq!(put("2", "1", "Running"), (false, 2000));
        assert_eq!(put("2", "2", "Running"), (false, 2000));
        assert_eq!(put("500m", "2", "Running"), (false, 2000), "it has not left its room yet");
        assert_eq!(put("500m", "500m", "Running"), (true, 500));
        assert_eq!(put("500m", "500m", "Running"), (false, 500));
    }
}
