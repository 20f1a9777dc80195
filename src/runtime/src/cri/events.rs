//! What happens in the runtime: by its stream of events, or, where it has none (containerd before 1.7), by a look each second as upstream does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    Inner,
    api::{
        container::{ContainerEventType, ContainerFilter, ContainerState},
        sandbox::{PodSandboxFilter, PodSandboxState},
    },
    ask,
    names::Sight,
};
use crate::grpc::{Code, Status};

/// Between looks at a runtime without events, while anything runs: upstream's figure.
const LOOK: Duration = Duration::from_secs(1);
/// Between tries while the runtime is not there.
const AWAY: Duration = Duration::from_secs(1);

/// Runs until the runtime is dropped.
pub(super) async fn follow(runtime: Weak<Inner>) {
    let mut streams = true;
    while let Some(inner) = runtime.upgrade() {
        let followed = if streams { stream(&inner).await } else { look(&inner).await };
        match followed {
            // Whoever begins something wakes the loop.
            Ok(()) if !streams && inner.names().is_idle() => {
                let woken = inner.begun.clone();
                drop(inner);
                woken.notified().await;
            }
            Ok(()) => {
                drop(inner);
                tokio::time::sleep(LOOK).await;
            }
            Err(status) if status.code() == Code::Unimplemented && streams => {
                tracing::debug!("the container runtime has no events: it is looked at each second");
                streams = false;
            }
            Err(status) => {
                tracing::debug!(error = status.message(), "the container runtime does not say what happens");
                drop(inner);
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

/// Reads the runtime's events until it ends them. What was before is seen by one look.
async fn stream(inner: &Arc<Inner>) -> Result<(), Status> {
    let mut events = inner.client.events().await?;
    look(inner).await?;
    while let Some(event) = events.message().await? {
        if matches!(event.kind(), ContainerEventType::Stopped | ContainerEventType::Deleted) {
            let told = inner.names().ended(&event.container_id);
            told.into_iter().for_each(|event| inner.tell(event));
        }
    }
    Ok(())
}

/// Sees what has ended.
async fn look(inner: &Inner) -> Result<(), Status> {
    let mark = inner.names().mark();
    let label_selector = ours(&inner.options.cluster);
    let filter = PodSandboxFilter { label_selector: label_selector.clone(), ..PodSandboxFilter::default() };
    let (sandboxes, containers) =
        tokio::try_join!(inner.client.sandboxes(filter), inner.client.containers(ContainerFilter { label_selector }))?;
    let lives = |state| matches!(state, ContainerState::Created | ContainerState::Running);
    let sight = Sight {
        ready: sandboxes.items.into_iter().filter(|s| s.state() == PodSandboxState::Ready).map(|s| s.id).collect(),
        alive: containers.containers.into_iter().filter(|c| lives(c.state())).map(|c| c.id).collect(),
    };
    let told = inner.names().see(mark, &sight);
    told.into_iter().for_each(|event| inner.tell(event));
    Ok(())
}

/// The labels of all that is this cluster's.
pub(super) fn ours(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(ask::CLUSTER.to_owned(), cluster.to_owned())])
}
