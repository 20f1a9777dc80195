//! What the API is shown of a pod: one write at a time, the newest state next, again when it fails.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{Patch, PatchParams},
};

use super::{Message, Worker};
use crate::{
    context::{Context, chain},
    pod::{backoff::later, life::pause, plan::Event, shown, spec, status, write},
    stats::meters::POD_STATUS_SYNC,
};

/// The API does not answer a status patch for so long: it is sent anew.
const PATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// What was shown, and the write that is under way.
pub(super) struct Report {
    shown: PodStatus,
    writing: bool,
    failures: u32,
    retry_at: Option<Timestamp>,
}

impl Report {
    /// The API has this status.
    pub(super) fn new(shown: PodStatus) -> Self {
        Self { shown, writing: false, failures: 0, retry_at: None }
    }

    /// When a write that failed is tried again.
    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// A write has come to its end.
    pub(super) fn written(&mut self, ok: bool, now: Timestamp) {
        self.writing = false;
        self.failures = if ok { 0 } else { self.failures + 1 };
        self.retry_at = (!ok).then(|| later(now, pause(self.failures)));
        if !ok {
            // What was not written is not shown.
            self.shown.observed_generation = None;
        }
    }

    /// A write that failed is tried again now.
    pub(super) fn hurry(&mut self) {
        self.retry_at = None;
    }

    fn rests(&self, now: Timestamp) -> bool {
        self.writing || self.retry_at.is_some_and(|at| at > now)
    }
}

impl Worker {
    /// Sends the status if it is another than the one shown.
    pub(super) fn show(&mut self, now: Timestamp) {
        // A static pod is shown by its mirror, to its end.
        let object = match &self.mirror {
            Some(mirror) => mirror.object().cloned(),
            None => Some(self.pod.clone()).filter(|_| !self.life.gone),
        };
        let Some(object) = object.filter(|_| !self.report.rests(now)) else { return };
        let mut want = status::status(&self.pod, &self.life, &self.report.shown, &self.ctx.config.node_ips, now);
        shown::to_api(&*self.ctx.runtime, &mut want);
        if self.devices.is_some() {
            self.ctx.devices.show_health(spec::uid(&self.pod), &mut want, &self.report.shown);
        }
        let ended = self.life.all_ended() || self.life.refused.is_some();
        if want == self.report.shown {
            if ended && !self.life.reported {
                let outbox = self.outbox.clone();
                tokio::spawn(async move { outbox.send(Message::Event(Event::Reported)).await });
            }
            return;
        }
        self.report.writing = true;
        self.report.retry_at = None;
        let (ctx, pod, outbox) = (self.ctx.clone(), object, self.outbox.clone());
        self.report.shown = want.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let ok = match tokio::time::timeout(PATCH_TIMEOUT, patch(&ctx, &pod, &want)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(pod = spec::full_name(&pod), error = chain(&error), "the status is not written");
                    false
                }
                Err(_) => false,
            };
            ctx.meters.took(&POD_STATUS_SYNC, &[], began);
            outbox.send(Message::Written { ok, ended }).await
        });
    }
}

async fn patch(ctx: &Context, pod: &Pod, want: &PodStatus) -> Result<(), kube::Error> {
    let body = write::patch(pod, want).map_err(kube::Error::SerdeError)?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    match pods.patch_status(spec::name(pod), &PatchParams::default(), &Patch::Strategic(&body)).await {
        Ok(_) => Ok(()),
        // It is gone, or its name is another's now: the watch will tell.
        Err(kube::Error::Api(status)) if status.code == 404 || (status.code == 409 && status.message.contains("uid")) => Ok(()),
        Err(error) => Err(error),
    }
}
