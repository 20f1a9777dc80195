//! The binding loop: gathers what informers tell, asks [`crate::decide`], binds, and says why not.

use coracle_client::{EventType, Informers, Key, Lister, Recorder, events::reference, pod::Pod};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Binding, Node, ObjectReference, PersistentVolumeClaim, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    claims,
    cluster::{self, Cluster},
    decide::{Decision, decide},
    queue::Queue,
};

/// Bindings on their way at once; a burst of pods waits for the API server, not for one round trip each.
const MAX_BINDINGS: usize = 64;

/// What the scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".into() }
    }
}

/// Binds pods until `shutdown`.
pub async fn run(client: Client, informers: Informers, config: Config, shutdown: CancellationToken) {
    let (nodes, pods, claims) = (informers.of::<Node>(), informers.of::<Pod>(), informers.of::<PersistentVolumeClaim>());
    let (mut node_changes, mut pod_changes, mut claim_changes) = (nodes.changes(), pods.changes(), claims.changes());
    let synced = async { tokio::join!(nodes.synced(), pods.synced(), claims.synced()) };
    if shutdown.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let recorder = Recorder::new(client.clone(), config.scheduler_name.clone(), "");
    let mut this = Scheduler {
        nodes: nodes.lister(),
        pods: pods.lister(),
        claims: claims.lister(),
        cluster: Cluster::default(),
        queue: Queue::default(),
        config,
    };
    let mut bindings = tokio::task::JoinSet::new();
    loop {
        // Everything that is known goes in before the next decision.
        while let Some(key) = node_changes.try_next() {
            this.node_changed(&key);
        }
        while let Some(key) = pod_changes.try_next() {
            this.pod_changed(&key);
        }
        while claim_changes.try_next().is_some() {
            this.queue.cluster_changed();
        }
        while bindings.len() < MAX_BINDINGS
            && let Some((pod, decision)) = this.next(Instant::now())
        {
            bindings.spawn(carry_out(client.clone(), recorder.clone(), pod, decision));
        }
        let wake = this.queue.next_wake();
        tokio::select! {
            () = shutdown.cancelled() => return,
            key = node_changes.next() => this.node_changed(&key),
            key = pod_changes.next() => this.pod_changed(&key),
            _ = claim_changes.next() => this.queue.cluster_changed(),
            Some(done) = bindings.join_next() => if let Ok((key, outcome)) = done { this.carried_out(&key, outcome) },
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() && bindings.len() < MAX_BINDINGS => {}
        }
    }
}

struct Scheduler {
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    claims: Lister<PersistentVolumeClaim>,
    cluster: Cluster,
    queue: Queue,
    config: Config,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Bound,
    Told,
    Failed,
}

impl Scheduler {
    fn node_changed(&mut self, key: &Key) {
        match self.nodes.get(key) {
            Some(node) => self.cluster.put_node(&key.name, node),
            None => self.cluster.remove_node(&key.name),
        }
        self.queue.cluster_changed();
    }

    fn pod_changed(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else {
            self.cluster.remove_pod(key);
            self.queue.remove(key);
            self.queue.cluster_changed();
            return;
        };
        if self.cluster.put_pod(key, &pod) {
            self.queue.cluster_changed();
        }
        if self.wants_node(&pod) {
            let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
            self.queue.push(key.clone(), pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0), created);
        } else {
            self.queue.remove(key);
            // It takes nothing of its node any more, not even one of its places for pods.
            if cluster::is_over(&pod) {
                self.queue.cluster_changed();
            }
        }
    }

    fn wants_node(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let ours = spec.scheduler_name.as_deref() == Some(&self.config.scheduler_name);
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        let unbound = spec.node_name.as_deref().is_none_or(str::is_empty);
        ours && unbound && !gated && pod.metadata.deletion_timestamp.is_none() && !cluster::is_over(pod)
    }

    /// Decides for the next pod that waits.
    fn next(&mut self, now: Instant) -> Option<(std::sync::Arc<Pod>, Decision)> {
        loop {
            let key = self.queue.pop(now)?;
            let Some(pod) = self.pods.get(&key).filter(|pod| self.wants_node(pod)) else {
                self.queue.remove(&key);
                continue;
            };
            let refusal = claims::refusal(&pod, |name| self.claims.get(&Key::new(key.namespace.clone(), name)));
            let decision = decide(&self.cluster, &pod, refusal);
            match &decision {
                Decision::Bind(node) => self.cluster.assume(&key, node, &pod),
                Decision::Unschedulable(_) => self.queue.park(&key, now),
            }
            return Some((pod, decision));
        }
    }

    fn carried_out(&mut self, key: &Key, outcome: Outcome) {
        match outcome {
            Outcome::Bound => self.queue.remove(key),
            Outcome::Told => {}
            Outcome::Failed => {
                self.cluster.remove_pod(key);
                self.queue.retry(key, Instant::now());
                self.pod_changed(key); // it may have been bound or deleted by somebody else
            }
        }
    }
}

async fn carry_out(client: Client, recorder: Recorder, pod: std::sync::Arc<Pod>, decision: Decision) -> (Key, Outcome) {
    let key = Key::of(&*pod);
    let api: Api<Pod> = Api::namespaced(client, &key.namespace);
    match decision {
        Decision::Bind(node) => match bind(&api, &pod, &node).await {
            Ok(()) => {
                let message = format!("Successfully assigned {key} to {node}");
                recorder.event(&reference(&*pod), EventType::Normal, "Scheduled", message);
                (key, Outcome::Bound)
            }
            Err(error) => {
                tracing::debug!(%key, node, error = &error as &dyn std::error::Error, "not bound");
                if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) {
                    recorder.event(&reference(&*pod), EventType::Warning, "FailedScheduling", format!("binding rejected: {error}"));
                }
                (key, Outcome::Failed)
            }
        },
        Decision::Unschedulable(why) => {
            if let Err(error) = tell(&api, &pod, &why).await {
                tracing::debug!(%key, error = &error as &dyn std::error::Error, "the condition was not written");
            }
            recorder.event(&reference(&*pod), EventType::Warning, "FailedScheduling", why);
            (key, Outcome::Told)
        }
    }
}

async fn bind(api: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.into()),
            ..Default::default()
        },
    };
    api.create_subresource::<_, serde_json::Value>("binding", name, &PostParams::default(), &binding).await.map(drop)
}

/// Writes the `PodScheduled` condition, unless it says so already.
async fn tell(api: &Api<Pod>, pod: &Pod, why: &str) -> Result<(), kube::Error> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let old = conditions.iter().find(|c| c.type_ == "PodScheduled");
    if old.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(why)) {
        return Ok(());
    }
    let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(why.into()),
        last_transition_time: Some(since.unwrap_or_else(|| Time(Timestamp::now()))),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}
