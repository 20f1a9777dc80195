//! Exits as the runtime tells them: how a container ended is asked, and told to the state machine.

use coracle_runtime::{ContainerId, ContainerState, RuntimeError};
use jiff::Timestamp;

use super::{Message, Worker};
use crate::pod::{
    adopt,
    life::{Life, RunState, pause},
    message,
    plan::Event,
};

/// Exits that are told before their starts; a pod has few containers that start at once.
const EARLY_EXITS: usize = 32;

/// Exits of containers whose start is not told yet.
#[derive(Default)]
pub(super) struct EarlyExits(Vec<ContainerId>);

impl EarlyExits {
    fn keep(&mut self, id: ContainerId) {
        if self.0.len() == EARLY_EXITS {
            self.0.remove(0);
        }
        self.0.push(id);
    }

    /// Those that have become known.
    pub(super) fn known(&mut self, life: &Life) -> Vec<ContainerId> {
        let runs = |id: &ContainerId| life.members.values().any(|m| m.running().is_some_and(|r| r.id == *id));
        let (known, unknown) = std::mem::take(&mut self.0).into_iter().partition(runs);
        self.0 = unknown;
        known
    }
}

impl Worker {
    /// Asks the runtime how a container fares that is said to be over.
    pub(super) fn inspect(&mut self, id: ContainerId) {
        let found = self.life.members.iter().find(|(_, m)| m.run.as_ref().is_some_and(|r| r.id == id));
        let Some((name, _)) = found else {
            // Its start is not told yet: it is looked at when it is.
            return self.early.keep(id);
        };
        let (name, ctx, pod, outbox) = (name.clone(), self.ctx.clone(), self.pod.clone(), self.outbox.clone());
        let Some(part) = self.part(&name) else { return };
        tokio::spawn(async move {
            let ended = match ctx.runtime.container(&id).await {
                Ok(status) if matches!(status.state, ContainerState::Exited { .. }) => {
                    match message::run_of(&ctx, &pod, &part, &status).state {
                        RunState::Ended(ended) => ended,
                        RunState::Running { .. } => return,
                    }
                }
                Ok(_) => return,
                Err(RuntimeError::NotFound(_)) => adopt::unknown(&id.id, Timestamp::now()),
                Err(error) => {
                    tracing::warn!(%error, container = id.id, "how the container ended is not known yet");
                    tokio::time::sleep(pause(1)).await;
                    let _ = outbox.send(Message::Exited(id)).await;
                    return;
                }
            };
            let _ = outbox.send(Message::Event(Event::Exited { name, ended })).await;
        });
    }
}
