//! Keeps the node's object and Lease alive: registration with patience, then the status when it changes, and every few minutes.

use std::{sync::Arc, time::Duration};

use coracle_client::watch::watch_object;
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
};
use crate::{
    context::{Context, chain},
    eviction::pressure::Pressure,
    pod::admit::NodeFacts,
    resources::Amounts,
};

/// Between tries while the API is not there: short, so that a node is Ready as soon as there is a cluster.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

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
        let mut leases = tokio::time::interval(self.ctx.config.lease_period);
        leases.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written_at = None;
        let mut pressure = self.pressure.clone();
        // Labels, taints and amounts that others write decide about pods at once.
        let mut seen = watch_object::<Node>(&self.ctx.client, None, &self.ctx.config.node_name);
        loop {
            tokio::select! {
                Some(Ok(Some(node))) = seen.next() => {
                    self.tell_facts(&node);
                    continue;
                }
                _ = leases.tick() => {}
                changed = pressure.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            let now = Timestamp::now();
            let uid = node.metadata.uid.clone().unwrap_or_default();
            if written_at.is_none() {
                // Ready first: that is what everybody waits for.
                self.show(&mut node, &mut shown, &mut written_at, now).await;
            }
            if let Err(error) = lease::renew(&self.ctx.client, &self.ctx.config, &uid, now).await {
                tracing::warn!(error = chain(&error), "the node's Lease is not renewed");
            }
            self.show(&mut node, &mut shown, &mut written_at, now).await;
        }
    }

    async fn show(&self, node: &mut Node, shown: &mut NodeStatus, written_at: &mut Option<Timestamp>, now: Timestamp) {
        let images = self.ctx.runtime.images().await.unwrap_or_default();
        let config = &self.ctx.config;
        let info = machine::info(&config.version, &self.ctx.runtime.version());
        let pressure = *self.pressure.borrow();
        let sight = Sight {
            config,
            capacity: &self.capacity,
            allocatable: &self.ctx.allocatable,
            info: &info,
            port: self.port,
            pressure,
            images: &images,
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
