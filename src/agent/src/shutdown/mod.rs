//! Graceful shutdown of the machine: while logind holds it back for us, pods end in the order of their priority.
//!
//! The end of our own process is another thing: pods outlive it.

pub mod logind;
pub mod plan;
pub mod wire;

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use coracle_client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use self::logind::{Logind, LogindError};
use crate::{
    context::{Context, chain},
    node::object,
    pod::{
        life::{Refusal, Termination},
        spec,
    },
    pods::Pods,
    stats::meters::{SHUTDOWN_END, SHUTDOWN_START},
};

/// The name of this trouble of the node.
pub const SHUTDOWN: &str = "shutdown";
/// Before the bus is looked for again; it may be restarted, or come late at boot.
const RECONNECT: Duration = Duration::from_secs(1);
/// The longest such pause.
const RECONNECT_LONGEST: Duration = Duration::from_secs(60);
/// Where logind reads its configuration.
const LOGIND_CONFIGURATION: &str = "/etc/systemd/logind.conf.d";

/// Why no pod is taken while the machine goes down.
pub fn refusal() -> Refusal {
    Refusal { reason: "NodeShutdown".to_owned(), message: "Pod was rejected as the node is shutting down.".to_owned() }
}

/// What the API is told of a pod that ends with the machine.
fn termination(grace: Duration) -> Termination {
    let message = "Pod was terminated in response to imminent node shutdown.";
    Termination { reason: "Terminated", message, disruption: message, grace: Some(grace), may_succeed: true }
}

/// Seconds since 1970.
fn epoch() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

/// The task that follows logind.
#[derive(Debug)]
pub struct Shutdown {
    /// The agent.
    pub ctx: Context,
    /// Its pods.
    pub pods: Pods,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Shutdown {
    /// Runs until the agent stops.
    pub async fn run(self) {
        let mut pause = RECONNECT;
        loop {
            match self.stop.run_until_cancelled(self.follow(&mut pause)).await {
                None => return,
                Some(Ok(never)) => match never {},
                Some(Err(error)) => tracing::warn!(error = chain(&error), "a shutdown of the machine would not wait for pods"),
            }
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(RECONNECT_LONGEST);
        }
    }

    async fn follow(&self, pause: &mut Duration) -> Result<Infallible, LogindError> {
        let mut logind = Logind::connect(&logind::system_bus()).await?;
        logind.allow(plan::whole(&self.ctx.config.shutdown), Path::new(LOGIND_CONFIGURATION)).await?;
        let mut lock = Some(logind.inhibit().await?);
        *pause = RECONNECT;
        loop {
            if logind.shutdown().await? {
                self.note("Shutdown manager detected shutdown event");
                self.ctx.health.set(SHUTDOWN, Some("node is shutting down".to_owned()));
                self.ctx.meters.set(&SHUTDOWN_START, epoch());
                self.ctx.meters.set(&SHUTDOWN_END, 0.0);
                self.end_pods().await;
                self.ctx.meters.set(&SHUTDOWN_END, epoch());
                // The machine goes on.
                drop(lock.take());
            } else {
                self.note("Shutdown manager detected shutdown cancellation");
                self.ctx.health.set(SHUTDOWN, None);
                lock = Some(logind.inhibit().await?);
            }
        }
    }

    fn note(&self, message: &str) {
        let node = object::reference(&self.ctx.config.node_name);
        self.ctx.recorder.event(&node, EventType::Normal, "Shutdown", message.to_owned());
    }

    async fn end_pods(&self) {
        let over = |pod: &Pod| matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let pods: Vec<Arc<Pod>> =
            self.pods.list().into_iter().filter(|(pod, facts)| !facts.over && !over(pod)).map(|(pod, _)| pod).collect();
        for group in plan::groups(&self.ctx.config.shutdown, &pods) {
            let mut ends = Vec::with_capacity(group.pods.len());
            for (pod, grace) in &group.pods {
                tracing::info!(pod = spec::full_name(pod), ?grace, "the pod ends with the machine");
                ends.extend(self.pods.terminate(pod, termination(*grace)).await);
            }
            // Its last status is written before its sandbox goes.
            let all = ends.into_iter().map(|mut facts| async move {
                let _ = facts.wait_for(|f| f.over || f.sandbox.is_none()).await;
            });
            if tokio::time::timeout(group.period, futures::future::join_all(all)).await.is_err() {
                tracing::warn!(period = ?group.period, "pods did not end in their time; the next ones follow");
            }
        }
    }
}
