//! Keeps the node's object and Lease alive: registration with patience, then the status when it changes, and every few minutes.

use std::{sync::Arc, time::Duration};

use coracle_client::{EventType, watch::watch_object};
use coracle_runtime::{Image, RuntimeError};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    lease,
    machine::{self, Machine},
    object::{self, Sight},
    storage::{Probe, STORAGE},
};
use crate::{
    context::{Context, chain},
    eviction::pressure::Pressure,
    pod::admit::NodeFacts,
    resources::Amounts,
    stats::meters::NODE_READY,
};

/// The trouble of a runtime that does not answer.
const RUNTIME: &str = "runtime";
/// Between tries while the API is not there: short, so that a node is Ready as soon as there is a cluster.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause.
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Between two looks at a disk that takes no writes, or at a runtime that does not answer: nobody tells when that is over.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the node's task knows.
#[derive(Debug)]
pub struct NodeTask {
    /// The agent.
    pub ctx: Context,
    /// The machine.
    pub machine: Machine,
    /// With `pods`.
    pub capacity: Amounts,
    /// Port of the node's server.
    pub port: u16,
    /// Whether what is reserved is kept from pods: the Event that tells of it.
    pub enforced: (EventType, &'static str, String),
    /// For admission.
    pub facts: watch::Sender<NodeFacts>,
    /// Of what the node is short.
    pub pressure: watch::Receiver<Pressure>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl NodeTask {
    /// Runs until the agent stops.
    pub async fn run(self) {
        let Some(mut node) = self.stop.run_until_cancelled(self.register()).await else { return };
        let mut shown = NodeStatus::default();
        self.note(EventType::Normal, "Starting", "Starting kubelet.".to_owned());
        let (kind, reason, message) = &self.enforced;
        self.note(*kind, reason, message.clone());
        let mut closed = false;
        let mut leases = tokio::time::interval(self.ctx.config.lease_period);
        leases.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut written_at, mut probe) = (None, Probe::default());
        let mut pressure = self.pressure.clone();
        let mut health = self.ctx.health.subscribe();
        let mut devices = self.ctx.devices.changes();
        // Labels, taints and amounts that others write decide about pods at once.
        let mut seen = watch_object::<Node>(&self.ctx.client, None, &self.ctx.config.node_name);
        loop {
            tokio::select! {
                Some(Ok(Some(node))) = seen.next() => {
                    self.tell_facts(&node);
                    self.tell_schedulable(&node, &mut closed);
                    continue;
                }
                _ = leases.tick() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if self.is_in_trouble() => {
                    self.look(&mut probe).await;
                    continue;
                }
                _ = health.changed() => {}
                changed = pressure.changed() => if changed.is_err() { return },
                changed = devices.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            let now = Timestamp::now();
            let uid = node.metadata.uid.clone().unwrap_or_default();
            if written_at.is_none() {
                // Ready first: that is what everybody waits for.
                self.show(&mut node, &mut shown, &mut written_at, now, &mut probe).await;
            }
            if let Err(error) = lease::renew(&self.ctx.client, &self.ctx.config, &uid, now).await {
                tracing::warn!(error = chain(&error), "the node's Lease is not renewed");
            }
            self.show(&mut node, &mut shown, &mut written_at, now, &mut probe).await;
        }
    }

    async fn show(&self, node: &mut Node, shown: &mut NodeStatus, written_at: &mut Option<Timestamp>, now: Timestamp, probe: &mut Probe) {
        let config = &self.ctx.config;
        let images = self.look(probe).await;
        let info = machine::info(&config.version, &self.ctx.runtime.version());
        let pressure = *self.pressure.borrow();
        let (mut capacity, mut allocatable) = self.ctx.devices.amounts();
        capacity.extend(self.capacity.clone());
        allocatable.extend((*self.ctx.allocatable).clone());
        let sight = Sight {
            config,
            capacity: &capacity,
            allocatable: &allocatable,
            info: &info,
            port: self.port,
            pressure,
            troubles: &self.ctx.health.troubles(),
            images: &images,
            handlers: &self.ctx.runtime.handlers(),
            apparmor: self.facts.borrow().apparmor,
        };
        let before = if written_at.is_some() { shown.clone() } else { node.status.clone().unwrap_or_default() };
        let status = object::status(&sight, &before, now);
        let due = written_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= config.status_period);
        if !due && !object::differs(&status, shown) {
            return;
        }
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let mut body = json!({ "status": status });
        // The list is the node's as a whole: addresses that are gone must go.
        if let Some(list) = body["status"]["addresses"].as_array_mut() {
            list.insert(0, json!({ "$patch": "replace" }));
        }
        match nodes.patch_status(&config.node_name, &PatchParams::default(), &Patch::Strategic(&body)).await {
            Ok(new) => {
                self.tell_facts(&new);
                if written_at.is_none() && object::rebooted(&before, &info.boot_id) {
                    let message = format!("Node {} has been rebooted, boot id: {}", config.node_name, info.boot_id);
                    self.note(EventType::Warning, "Rebooted", message);
                }
                for reason in object::changes(&before, &status) {
                    self.note(EventType::Normal, reason, format!("Node {} status is now: {reason}", config.node_name));
                    if reason == "NodeReady" {
                        self.ctx.meters.first(&NODE_READY, machine::up_seconds());
                    }
                }
                (*node, *shown, *written_at) = (new, status, Some(now));
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // Somebody deleted it: a node that lives comes back.
                *node = self.register().await;
                *written_at = None;
            }
            Err(error) => tracing::warn!(error = chain(&error), "the node's status is not written"),
        }
    }

    fn is_in_trouble(&self) -> bool {
        [RUNTIME, STORAGE].iter().any(|who| self.ctx.health.is(who))
    }

    /// Asks the runtime for its images and looks at the disk; what is wrong there is told as the node's health.
    async fn look(&self, probe: &mut Probe) -> Vec<Image> {
        let (health, data_dir) = (&self.ctx.health, &self.ctx.config.data_dir);
        let images = self.ctx.runtime.images().await;
        let trouble = match &images {
            Ok(_) => self.ctx.runtime.trouble().await.unwrap_or_else(|error| Some(down(&error))),
            Err(error) => Some(down(error)),
        };
        health.set(RUNTIME, trouble);
        health.set(STORAGE, probe.look(data_dir).await);
        images.unwrap_or_default()
    }

    /// An Event of the node.
    fn note(&self, kind: EventType, reason: &str, message: String) {
        self.ctx.recorder.event(&object::reference(&self.ctx.config.node_name), kind, reason, message);
    }

    /// Somebody has closed the node to new pods, or opened it.
    fn tell_schedulable(&self, node: &Node, closed: &mut bool) {
        let now = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if std::mem::replace(closed, now) != now {
            let reason = if now { "NodeNotSchedulable" } else { "NodeSchedulable" };
            self.note(EventType::Normal, reason, format!("Node {} status is now: {reason}", self.ctx.config.node_name));
        }
    }

    fn tell_facts(&self, node: &Node) {
        let pressure = *self.pressure.borrow();
        self.facts.send_if_modified(|facts| {
            let new = NodeFacts { pressure, ..object::facts(node, &self.ctx.allocatable, facts) };
            let changed = *facts != new;
            *facts = new;
            changed
        });
    }

    /// Creates the object, or brings the labels of the one that is there up to date.
    async fn register(&self) -> Node {
        let mut pause = RETRY_FIRST;
        loop {
            match self.try_register().await {
                Ok(node) => {
                    self.tell_facts(&node);
                    return node;
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the node is not registered yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    async fn try_register(&self) -> Result<Node, kube::Error> {
        let config: &Arc<_> = &self.ctx.config;
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        match nodes.create(&PostParams::default(), &object::node(config)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => return other,
        }
        let labels = json!({ "metadata": { "labels": object::labels(config) } });
        nodes.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(&labels)).await
    }
}

fn down(error: &RuntimeError) -> String {
    format!("container runtime is down: {}", chain(error))
}
