//! Actions of the state machine as work: each is begun here, and its answer comes back as a message.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use tokio_util::sync::CancellationToken;

use super::{Message, Worker};
use crate::{
    context::{Context, chain},
    devices::allocate::AllocateError,
    pod::{
        hooks,
        life::{Refusal, Sandbox},
        plan::{Action, Event},
        resize, sandbox,
        spec::{self, Part},
        start::{self, Start},
        volumes,
    },
    probe::ask::Target,
    stats::meters::{STARTED_PODS, STARTED_PODS_ERRORS, STARTED_USER_NAMESPACED_PODS},
    volume::mount,
};

impl Worker {
    /// Begins an action; its answer comes as a message.
    pub(super) fn act(&mut self, action: Action) {
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        match action {
            Action::Note { name, warning, reason, message } => ctx.tell(&pod, name.as_deref(), warning, reason, message),
            Action::Cancel { name } => {
                if let Some(cancel) = self.cancels.remove(&name) {
                    cancel.cancel();
                }
            }
            Action::Signal { name, kill } => self.signal(&name, kill),
            Action::GiveDevices => {
                ctx.devices.live(spec::uid(&pod));
                self.answer(async move {
                    let given = ctx.devices.allocate(&pod).await.map_err(|error| refusal(&error));
                    if let Err(refusal) = &given {
                        ctx.tell(&pod, None, true, &refusal.reason, refusal.message.clone());
                    }
                    Event::DevicesGiven(given)
                })
            }
            Action::MountVolumes => {
                let (used, tokens, outbox) = (self.used.clone(), self.tokens.clone(), self.outbox.clone());
                let addresses = self.addresses();
                tokio::spawn(async move {
                    if let Err(message) = volumes::claims(&pod) {
                        ctx.tell(&pod, None, true, "FailedPrepareDynamicResources", message);
                        return outbox.send(Message::Event(Event::VolumesMounted(false))).await;
                    }
                    let made = volumes::mount(&ctx, &pod, &used, &tokens, &addresses).await;
                    if let Err(message) = &made {
                        ctx.tell(&pod, None, true, "FailedMount", format!("MountVolume.SetUp failed: {message}"));
                    }
                    let _ = outbox.send(Message::Refreshed(made.as_ref().ok().copied().flatten())).await;
                    outbox.send(Message::Event(Event::VolumesMounted(made.is_ok()))).await
                });
            }
            Action::MakeSandbox { attempt } => {
                let granted = self.granted();
                self.answer(async move {
                    ctx.meters.count(&STARTED_PODS, &[]);
                    if granted.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false)) {
                        ctx.meters.count(&STARTED_USER_NAMESPACED_PODS, &[]);
                    }
                    let made = sandbox::make(&ctx, &granted, attempt).await;
                    if let Err(message) = &made {
                        ctx.meters.count(&STARTED_PODS_ERRORS, &[]);
                        ctx.tell(&pod, None, true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
                    }
                    Event::SandboxMade(made.ok())
                })
            }
            Action::RemoveSandbox { id } => self.answer(async move {
                let removed = sandbox::remove(&ctx, &id).await;
                if let Err(message) = &removed {
                    ctx.tell(&pod, None, true, "FailedKillPod", format!("error killing pod: {message}"));
                }
                Event::SandboxRemoved(removed.is_ok())
            }),
            Action::Start { name, attempt } => self.start(name, attempt),
            Action::PostStart { name } => self.post_start(name),
            Action::PreStop { name, timeout } => self.pre_stop(name, timeout),
            Action::Clean => self.answer(async move {
                let dir = ctx.pod_dir(&pod);
                let removed = tokio::task::spawn_blocking(move || mount::remove_all(&dir)).await;
                let ok = matches!(removed, Ok(Ok(())));
                if !ok {
                    tracing::warn!(pod = spec::full_name(&pod), ?removed, "the pod's directory is not removed");
                }
                Event::Cleaned(ok)
            }),
            Action::Allocate => {
                let answer = ctx.ledger.change(&pod, &ctx.allocatable);
                self.answer(async move { Event::Allocated(answer) });
            }
            Action::Resize { changes, whole } => {
                let Sandbox::Ready(sandbox) = &self.life.sandbox else { return };
                let granted = resize::granted(&pod, &self.life);
                let alive = self.life.members.values().filter_map(|m| m.running().map(|r| r.id.clone())).collect();
                let before = self.life.whole.limits.clone();
                let wish = super::resize::Wish { sandbox: sandbox.id.clone(), granted, alive, before, whole, changes };
                self.answer(async move {
                    let (done, whole, error) = super::resize::write(&ctx, wish).await;
                    Event::Resized { done, whole, error }
                });
            }
            Action::Delete => self.answer(async move { Event::Deleted(delete(&ctx, &pod).await) }),
        }
    }

    fn answer(&self, work: impl Future<Output = Event> + Send + 'static) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let event = work.await;
            outbox.send(Message::Event(event)).await
        });
    }

    pub(super) fn addresses(&self) -> Vec<std::net::IpAddr> {
        match &self.life.sandbox {
            Sandbox::Ready(facts) => facts.addresses.clone(),
            _ => Vec::new(),
        }
    }

    /// The pod with the resources that it was granted.
    fn granted(&self) -> Arc<Pod> {
        let granted = resize::granted(&self.pod, &self.life);
        if granted == *self.pod { self.pod.clone() } else { Arc::new(granted) }
    }

    pub(super) fn part(&self, name: &str) -> Option<Part> {
        spec::part(&spec::parts(&self.pod), name).cloned()
    }

    fn start(&mut self, name: String, attempt: u32) {
        let pod = self.granted();
        let (Some(part), Sandbox::Ready(sandbox)) = (spec::part(&spec::parts(&pod), &name).cloned(), &self.life.sandbox) else { return };
        let looks_into = part.target.as_ref().map(|target| {
            let run = self.life.members.get(target).and_then(|m| m.running());
            run.map(|r| r.id.id.clone()).ok_or_else(|| format!("unable to find target container {target}"))
        });
        if self.devices.is_some() {
            self.ctx.devices.live(spec::uid(&pod));
        }
        let cancel = CancellationToken::new();
        self.cancels.insert(name, cancel.clone());
        let start = Start {
            ctx: self.ctx.clone(),
            pod,
            sandbox: sandbox.clone(),
            part,
            looks_into,
            attempt,
            cancel,
            used: self.used.clone(),
            services: self.services.clone(),
            pulls: self.pulls.clone(),
        };
        self.answer(start::start(start));
    }

    pub(super) fn target(&self, name: &str) -> Option<(Target, Part)> {
        let part = self.part(name)?;
        let id = self.life.members.get(name)?.running()?.id.clone();
        Some((Target { id, address: self.addresses().first().copied(), container: part.spec.clone() }, part))
    }

    fn post_start(&self, name: String) {
        let Some((target, part)) = self.target(&name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let Some(hook) = part.spec.lifecycle.and_then(|l| l.post_start) else { return };
        self.answer(async move {
            let result = hooks::run(&ctx, &target, &hook, hooks::POST_START).await;
            if let Err(error) = &result {
                ctx.tell(&pod, Some(&name), true, "FailedPostStartHook", format!("PostStartHook failed: {error}"));
            }
            Event::PostStarted { name, id: target.id.id, ok: result.is_ok() }
        });
    }

    fn pre_stop(&self, name: String, timeout: Duration) {
        let Some((target, part)) = self.target(&name) else { return };
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        let Some(hook) = part.spec.lifecycle.and_then(|l| l.pre_stop) else { return };
        self.answer(async move {
            if let Err(error) = hooks::run(&ctx, &target, &hook, timeout).await {
                ctx.tell(&pod, Some(&name), true, "FailedPreStopHook", format!("PreStopHook failed: {error}"));
            }
            Event::PreStopped { name, id: target.id.id }
        });
    }

    fn signal(&self, name: &str, kill: bool) {
        let Some((target, _)) = self.target(name) else { return };
        let (ctx, outbox) = (self.ctx.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let signal = match kill {
                true => libc::SIGKILL,
                // The container knows what was agreed on when it was made: its image may be gone by now.
                false => ctx.runtime.container(&target.id).await.ok().and_then(|c| c.spec.stop_signal).unwrap_or(libc::SIGTERM),
            };
            if let Err(error) = ctx.runtime.signal_container(&target.id, signal).await {
                tracing::debug!(%error, container = target.id.id, signal, "the signal did not arrive");
                // It may be gone already.
                let _ = outbox.send(Message::Exited(target.id)).await;
            }
        });
    }
}

/// A pod that gets no devices is one that the node does not take.
fn refusal(error: &AllocateError) -> Refusal {
    let message = format!("Allocate failed due to {}, which is unexpected", chain(error));
    Refusal { reason: "UnexpectedAdmissionError".to_owned(), message }
}

async fn delete(ctx: &Context, pod: &Pod) -> bool {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
    match pods.delete(spec::name(pod), &params).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            tracing::warn!(pod = spec::full_name(pod), error = chain(&error), "the pod's object is not removed");
            false
        }
    }
}
