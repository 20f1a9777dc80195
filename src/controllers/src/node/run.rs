//! The loops around the plans of nodes: what wakes them and what they remember.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister, Scope, pod::Pod};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};

use super::{evict, ipam, lifecycle};
use crate::{
    plan::Plan,
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Index of pods by their node.
pub const BY_NODE: &str = "pods by node";
/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// Adds the index of pods by node.
pub fn index_pods(informers: &Informers) {
    informers.of::<Pod>().index(BY_NODE, |pod| pod.spec.as_ref().and_then(|s| s.node_name.clone()).into_iter().collect());
}

/// Node lifecycle.
#[derive(Debug)]
pub struct Lifecycle {
    nodes: Lister<Node>,
    leases: Lister<Lease>,
    pods: Lister<Pod>,
    grace: SignedDuration,
    /// The last sign of life of each node, and when it was new to us. By the steady clock: the machine's may jump, and no node is silent then.
    signs: Mutex<HashMap<Key, (Sign, Instant)>>,
}

/// Two clocks that a living node advances: its Lease, and the heartbeat of its Ready condition.
type Sign = (Option<MicroTime>, Option<Time>);

impl Lifecycle {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups, grace: SignedDuration) -> Self {
        index_pods(informers);
        let (nodes, leases) = (informers.of::<Node>(), informers.scoped::<Lease>(Scope::fields(format!("metadata.namespace={LEASES}"))));
        let pods = informers.of::<Pod>();
        wakeups.watch(&nodes, |old, new| old.or(new).map(Key::of).into_iter().collect());
        wakeups.watch(&leases, |old, new| {
            old.or(new).map(|lease| Key::cluster(lease.metadata.name.as_deref().unwrap_or_default())).into_iter().collect()
        });
        // Its own writes on pods come back so; a pod that lands on a silent node is looked at too.
        wakeups.watch(&pods, |_, new| new.and_then(node_key).into_iter().collect());
        Self { nodes: nodes.lister(), leases: leases.lister(), pods: pods.lister(), grace, signs: Mutex::default() }
    }

    fn alive_at(&self, key: &Key, sign: Sign, now: Timestamp, steady: Instant) -> Timestamp {
        let mut signs = self.signs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let since = match signs.get(key) {
            Some((known, at)) if *known == sign => *at,
            _ => {
                signs.insert(key.clone(), (sign, steady));
                steady
            }
        };
        now.checked_sub(steady.saturating_duration_since(since)).unwrap_or(now)
    }

    fn forget(&self, key: &Key) {
        self.signs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(key);
    }
}

fn node_key(pod: &Pod) -> Option<Key> {
    Some(Key::cluster(pod.spec.as_ref()?.node_name.as_deref()?))
}

#[async_trait]
impl Controller for Lifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(node) = self.nodes.get(key) else {
            self.forget(key);
            return Ok(Plan::default());
        };
        let lease = self.leases.get(&Key::new(LEASES, key.name.clone()));
        let renewed = lease.as_ref().and_then(|l| l.spec.as_ref()?.renew_time.clone());
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let heartbeat = conditions.iter().find(|c| c.type_ == "Ready").and_then(|c| c.last_heartbeat_time.clone());
        let alive_at = self.alive_at(key, (renewed, heartbeat), now, Instant::now());
        let pods = self.pods.indexed(BY_NODE, &key.name);
        Ok(lifecycle::plan(&lifecycle::Observed { node: &node, pods: &pods, alive_at, grace: self.grace, now }))
    }

    fn keys(&self) -> Vec<Key> {
        self.nodes.list().iter().map(|n| Key::of(&**n)).collect()
    }
}

/// Node, key and value of a taint.
type TaintOf = (Key, String, Option<String>);

/// Eviction by taint.
#[derive(Debug)]
pub struct Evictions {
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    /// When taints without a time were seen first, by node, key and value.
    seen: Mutex<HashMap<TaintOf, Timestamp>>,
}

impl Evictions {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        index_pods(informers);
        let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
        wakeups.watch(&nodes, |old, new| old.or(new).map(Key::of).into_iter().collect());
        wakeups.watch(&pods, |_, new| new.and_then(node_key).into_iter().collect());
        Self { nodes: nodes.lister(), pods: pods.lister(), seen: Mutex::default() }
    }
}

#[async_trait]
impl Controller for Evictions {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let node = self.nodes.get(key);
        let taints = || node.iter().flat_map(|n| n.spec.iter()).flat_map(|s| s.taints.iter().flatten());
        seen.retain(|(of, name, value), _| of != key || taints().any(|t| t.key == *name && t.value == *value));
        let Some(node) = &node else { return Ok(Plan::default()) };
        for taint in taints().filter(|t| t.effect == "NoExecute" && t.time_added.is_none()) {
            seen.entry((key.clone(), taint.key.clone(), taint.value.clone())).or_insert(now);
        }
        let pods = self.pods.indexed(BY_NODE, &key.name);
        let first_seen = |taint: &k8s_openapi::api::core::v1::Taint| {
            seen.get(&(key.clone(), taint.key.clone(), taint.value.clone())).copied().unwrap_or(now)
        };
        Ok(evict::plan(&evict::Observed { node, pods: &pods, first_seen: &first_seen, now }))
    }

    fn keys(&self) -> Vec<Key> {
        self.nodes.list().iter().map(|n| Key::of(&**n)).collect()
    }
}

/// Networks of nodes.
#[derive(Debug)]
pub struct Ipam {
    nodes: Lister<Node>,
    networks: Vec<(IpNet, u8)>,
}

impl Ipam {
    /// The one key: parts are given out to all nodes at once.
    fn key() -> Key {
        Key::cluster("nodes")
    }

    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups, networks: Vec<(IpNet, u8)>) -> Self {
        let nodes = informers.of::<Node>();
        wakeups.watch(&nodes, |_, _| vec![Self::key()]);
        Self { nodes: nodes.lister(), networks }
    }
}

#[async_trait]
impl Controller for Ipam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    async fn plan(&self, _key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let nodes: Vec<Arc<Node>> = self.nodes.list();
        Ok(ipam::plan(&ipam::Observed { nodes: &nodes, networks: &self.networks }))
    }

    fn keys(&self) -> Vec<Key> {
        vec![Self::key()]
    }
}
