//! Room for a critical pod: others end, and it begins when they are gone.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;

use super::{Pods, PoisonError};
use crate::{
    pod::{admit::NodeFacts, life::Refusal, plan::Event, preempt::PREEMPTED, spec, worker::Message},
    resources::ledger::Ledger,
    stats::meters::PREEMPTIONS,
};

/// A pod that ends has at least so long before it is given up: the runtime needs time, too.
const LEAST_WAIT: Duration = Duration::from_secs(10);

impl Pods {
    /// Ends `victims`, since there is too little of `lacking`; when they have given back what they took, `pod` begins, and is refused if they do
    /// not in time.
    pub(super) async fn preempt(&self, pod: Arc<Pod>, victims: Vec<Arc<Pod>>, node: NodeFacts, lacking: &str) {
        let uid = spec::uid(&pod).to_owned();
        self.preempting.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), pod.clone());
        let mut limit = LEAST_WAIT;
        for victim in victims {
            limit = limit.max(spec::grace(&victim) * 3 / 2);
            self.ctx.meters.count(&PREEMPTIONS, &[lacking]);
            self.ctx.tell(&victim, None, true, PREEMPTED.reason, PREEMPTED.message);
            self.tell(spec::uid(&victim), Message::Event(Event::Terminate(PREEMPTED))).await;
        }
        let pods = self.clone();
        tokio::spawn(async move {
            let refused = tokio::time::timeout(limit, room(&pods.ctx.ledger, &pod, &node)).await.err().map(|_| Refusal {
                reason: "UnexpectedAdmissionError".to_owned(),
                message: "Unexpected error while attempting to recover from admission failure: timeout waiting to kill pod".to_owned(),
            });
            // Whoever asks for the pod from now on finds its task.
            let mut preempting = pods.preempting.lock().unwrap_or_else(PoisonError::into_inner);
            match preempting.remove(&uid) {
                Some(newest) => pods.start(newest, uid, refused, None),
                // It was deleted while it waited.
                None => pods.ctx.ledger.release(&uid),
            }
        });
    }

    /// A newer sight of a pod that waits for room; `None`: it is no more. Whether it waits.
    pub(super) fn see_preempting(&self, uid: &str, pod: Option<&Arc<Pod>>) -> bool {
        let mut preempting = self.preempting.lock().unwrap_or_else(PoisonError::into_inner);
        match (preempting.get_mut(uid), pod) {
            (Some(waits), Some(newer)) => waits.clone_from(newer),
            (Some(_), None) => drop(preempting.remove(uid)),
            (None, _) => return false,
        }
        true
    }
}

async fn room(ledger: &Ledger, pod: &Arc<Pod>, node: &NodeFacts) {
    let mut freed = ledger.freed();
    while ledger.admit(pod, node).is_some() {
        if freed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
