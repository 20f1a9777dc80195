//! Keeps the mirror of a static pod: made when there is none, removed when it shows another pod or somebody deletes it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};

use super::{Message, Worker, report::Report};
use crate::{
    context::{Context, chain},
    pod::{backoff::later, life::pause, spec},
    statics::mirror::{self, Step},
};

/// The watch tells of a mirror that was made within this time, or it is looked at again; what was refused is tried again then.
const TOLD: Duration = Duration::from_secs(5);

/// What the API has of a static pod, and the write that is under way.
#[derive(Default)]
pub(super) struct Mirror {
    object: Option<Arc<Pod>>,
    busy: bool,
    /// The watch has told of it since the write began: what it did is known before its answer is.
    told: bool,
    failures: u32,
    retry_at: Option<Timestamp>,
}

impl Mirror {
    /// The object whose status shows the pod; not one that is about to go.
    pub(super) fn object(&self) -> Option<&Arc<Pod>> {
        self.object.as_ref()
    }

    /// When the next try is.
    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }
}

impl Worker {
    /// The API has this mirror now.
    pub(super) fn mirrored(&mut self, object: Arc<Pod>) {
        let Some(mirror) = &mut self.mirror else { return };
        let known = mirror.object.as_ref().map(|o| o.metadata.uid.clone());
        if known != Some(object.metadata.uid.clone()) {
            self.report = Report::new(object.status.clone().unwrap_or_default());
        }
        if let Some(start) = object.status.as_ref().and_then(|s| s.start_time.as_ref()) {
            self.life.start_time = self.life.start_time.min(start.0);
        }
        // Conditions that others write (readiness gates) are read from it.
        let mut pod = (*self.pod).clone();
        pod.status.clone_from(&object.status);
        self.pod = Arc::new(pod);
        mirror.object = Some(object);
        mirror.told = true;
        mirror.retry_at = None;
        mirror.failures = 0;
    }

    /// The mirror of this uid is no more.
    pub(super) fn mirror_gone(&mut self, uid: &str) {
        let Some(mirror) = &mut self.mirror else { return };
        if mirror.object.as_ref().is_none_or(|o| spec::uid(o) == uid) {
            mirror.object = None;
            mirror.told = true;
            mirror.retry_at = None;
        }
    }

    /// A write has come to its end. What it did is told by the watch; if that does not come, it is looked at again.
    pub(super) fn reflected(&mut self, ok: bool, now: Timestamp) {
        let Some(mirror) = &mut self.mirror else { return };
        mirror.busy = false;
        mirror.failures = if ok { 0 } else { mirror.failures + 1 };
        mirror.retry_at = match ok {
            true if mirror.told => None,
            true => Some(later(now, TOLD)),
            false => Some(later(now, pause(mirror.failures).min(TOLD))),
        };
    }

    /// Takes the next step towards a mirror that shows the pod.
    pub(super) fn reflect(&mut self, now: Timestamp) {
        let Some(mirror) = &mut self.mirror else { return };
        if self.life.gone || mirror.busy || mirror.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let step = mirror::plan(&self.pod, mirror.object.as_deref());
        if step == Step::Stands {
            return;
        }
        mirror.busy = true;
        mirror.told = false;
        mirror.retry_at = None;
        let (ctx, pod, outbox) = (self.ctx.clone(), self.pod.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let done = match step {
                Step::Create => create(&ctx, &pod).await,
                Step::Delete(uid) => delete(&ctx, &pod, Some(uid)).await.map(|()| None),
                Step::Stands => Ok(None),
            };
            let ok = done.is_ok();
            match done {
                Ok(Some(there)) => drop(outbox.send(Message::Mirror(Arc::new(there))).await),
                Ok(None) => {}
                Err(error @ kube::Error::Api(_)) => {
                    tracing::warn!(pod = spec::full_name(&pod), error = chain(&error), "the API refuses the mirror of a static pod");
                }
                Err(error) => tracing::debug!(pod = spec::full_name(&pod), error = chain(&error), "the mirror waits for the API"),
            }
            outbox.send(Message::Reflected(ok)).await
        });
    }

    /// The static pod is over, and its mirror goes with it.
    pub(super) fn remove_mirror(&self) {
        let Some(object) = self.mirror.as_ref().and_then(|m| m.object.clone()) else { return };
        let ctx = self.ctx.clone();
        tokio::spawn(async move { remove(&ctx, &object).await });
    }
}

/// Removes a mirror that shows nothing. What fails is repeated when the API lists it again.
pub async fn remove(ctx: &Context, mirror: &Pod) {
    if let Err(error) = delete(ctx, mirror, mirror.metadata.uid.clone()).await {
        tracing::warn!(pod = spec::full_name(mirror), error = chain(&error), "a mirror that shows nothing is not removed");
    }
}

/// The one that was there already, if there was one.
async fn create(ctx: &Context, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    let node = ctx.config.node_name.as_str();
    let uid = Api::<Node>::all(ctx.client.clone()).get(node).await?.metadata.uid.unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    match pods.create(&PostParams::default(), &mirror::object(pod, node, &uid)).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 409 => match pods.get_opt(spec::name(pod)).await? {
            Some(there) => Ok(Some(there)),
            // It went in between.
            None => Err(kube::Error::Api(status)),
        },
        Err(error) => Err(error),
    }
}

async fn delete(ctx: &Context, pod: &Pod, uid: Option<String>) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    let preconditions = Preconditions { uid, resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    match pods.delete(spec::name(pod), &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}
