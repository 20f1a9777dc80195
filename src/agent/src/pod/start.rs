//! Carries the start of a container out: image, configuration, creation, start; and tells of each in an Event.

mod image;
mod mounts;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use coracle_runtime::{ContainerId, ContainerSpec, Image, ImageMount, Resources, RuntimeError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Service};
use kube::{Api, api::ListParams};
use tokio_util::sync::CancellationToken;

use super::startup::Pulls;
use super::{
    life::{Ended, Life, Run, RunState, SandboxFacts},
    message,
    plan::Event,
    spec::{self, Kind, Part},
};
use crate::{
    container::{
        env,
        env_file::{self, Files},
        security, service_env,
    },
    context::{Context, chain},
    devices::{self, additions::Additions},
    objects::Used,
    resources::limits,
    stats::meters::{STARTED_CONTAINERS, STARTED_CONTAINERS_ERRORS},
};

/// Services that are told to a container; a namespace with more than that has no use for them.
const SERVICES: u32 = 1_000;

/// Service variables of the pod, kept for the time when the API is away.
pub type ServiceVariables = Arc<Mutex<Vec<(String, String)>>>;

/// What a start needs.
#[derive(Debug)]
pub struct Start {
    /// The node.
    pub ctx: Context,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its sandbox.
    pub sandbox: SandboxFacts,
    /// The container.
    pub part: Part,
    /// The running container whose processes it joins, or why there is none.
    pub looks_into: Option<Result<String, String>>,
    /// Which run.
    pub attempt: u32,
    /// Tells that nobody wants it any more.
    pub cancel: CancellationToken,
    /// What the pod uses.
    pub used: Arc<Used>,
    /// Service variables.
    pub services: ServiceVariables,
    /// Where pulls of its images are noted.
    pub pulls: Pulls,
}

/// Why a start came to nothing: state.waiting.
struct Waiting {
    reason: &'static str,
    message: String,
}

/// Starts the container; the answer is `Started` or `NotStarted`.
pub async fn start(start: Start) -> Event {
    let name = start.part.spec.name.clone();
    let kind = match start.part.kind {
        Kind::Init | Kind::Sidecar => "init_container",
        Kind::Main => "container",
        Kind::Ephemeral => "ephemeral_container",
    };
    let meters = start.ctx.meters.clone();
    meters.count(&STARTED_CONTAINERS, &[kind]);
    let started = run(&start).await;
    let failed = match &started {
        Ok(Run { state: RunState::Ended(ended), .. }) if ended.reason == "StartError" => Some("StartError"),
        Ok(_) => None,
        Err(waiting) => Some(waiting.reason),
    };
    if let Some(code) = failed {
        meters.count(&STARTED_CONTAINERS_ERRORS, &[code, kind]);
    }
    match started {
        Ok(run) => Event::Started { name, run },
        Err(Waiting { reason, message }) => Event::NotStarted { name, reason: reason.to_owned(), message },
    }
}

async fn run(start: &Start) -> Result<Run, Waiting> {
    let name = start.part.spec.image.clone().unwrap_or_default();
    let image = image::local(start, &name, start.part.spec.image_pull_policy.as_deref().unwrap_or("IfNotPresent")).await?;
    if start.cancel.is_cancelled() {
        return Err(Waiting { reason: "ContainerCreating", message: "the pod ends".to_owned() });
    }
    let id = Life::container_id(&start.sandbox.id, &start.part.spec.name, start.attempt);
    let images = image::volumes(start).await?;
    let spec = match configure(start, &image, &id, images).await {
        Ok(spec) => spec,
        Err(message) => return Err(failed(start, "CreateContainerConfigError", message)),
    };
    forget_old(start).await;
    match start.ctx.runtime.create_container(&spec).await {
        Ok(()) => {}
        Err(RuntimeError::Start(message)) => {
            start.tell(false, "Created", format!("Created container: {}", start.part.spec.name));
            return Ok(start_error(start, &id, &image, message));
        }
        Err(error) => {
            // The next try has the same id.
            if let Err(error) = start.ctx.runtime.remove_container(&id).await {
                tracing::debug!(%error, "a container that was not created is not removed");
            }
            return Err(failed(start, "CreateContainerError", chain(&error)));
        }
    }
    start.tell(false, "Created", format!("Created container: {}", start.part.spec.name));
    if let Err(error) = start.ctx.runtime.start_container(&id).await {
        return Ok(start_error(start, &id, &image, chain(&error)));
    }
    start.tell(false, "Started", format!("Started container {}", start.part.spec.name));
    let image_id = image_id(&image);
    match start.ctx.runtime.container(&id).await {
        Ok(status) => Ok(message::run_of(&start.ctx, &start.pod, &start.part, &status)),
        Err(error) => {
            tracing::warn!(%error, "a container that was just started is not known");
            Ok(Run {
                id,
                attempt: start.attempt,
                image_id,
                user: None,
                limits: None,
                state: RunState::Running { started_at: Timestamp::now() },
            })
        }
    }
}

impl Start {
    fn has_devices(&self) -> bool {
        devices::asks(&self.pod)
    }

    fn tell(&self, warning: bool, reason: &str, message: String) {
        self.ctx.tell(&self.pod, Some(&self.part.spec.name), warning, reason, message);
    }
}

fn failed(start: &Start, reason: &'static str, message: String) -> Waiting {
    start.tell(true, "Failed", format!("Error: {message}"));
    Waiting { reason, message }
}

fn start_error(start: &Start, id: &ContainerId, image: &Image, message: String) -> Run {
    start.tell(true, "Failed", format!("Error: {message}"));
    let ended = Ended {
        id: id.id.clone(),
        started_at: None,
        finished_at: Timestamp::now(),
        exit_code: 128,
        reason: "StartError".to_owned(),
        message,
    };
    Run { id: id.clone(), attempt: start.attempt, image_id: image_id(image), user: None, limits: None, state: RunState::Ended(ended) }
}

fn image_id(image: &Image) -> String {
    image.digests.first().cloned().unwrap_or_else(|| image.id.clone())
}

/// Everything that the container is made with.
async fn configure(start: &Start, image: &Image, id: &ContainerId, image_mounts: Vec<ImageMount>) -> Result<ContainerSpec, String> {
    let (ctx, pod, container) = (&start.ctx, &start.pod, &start.part.spec);
    let spec_ = pod.spec.clone().unwrap_or_default();
    let security = security::security(pod, container, &ctx.config.data_dir.join("agent/seccomp"));
    non_root(&security, image)?;
    let snapshot = start.used.snapshot().await.map_err(|e| e.to_string())?;
    let services = services(start).await;
    let known = ctx.known(&start.sandbox.addresses);
    let files = files(start).await?;
    let env = env::environment(pod, container, &services, &snapshot, &files, &known).map_err(|e| e.to_string())?;
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand = |list: &Option<Vec<String>>| list.iter().flatten().map(|t| env::expand(t, &get).0).collect::<Vec<_>>();
    let mut mounts = mounts::mounts(start, &get).await?;
    let given = match start.has_devices() {
        true => ctx.devices.prepare(pod, container).await.map_err(|e| chain(&e))?,
        false => Additions::default(),
    };
    let own: Vec<PathBuf> = mounts.iter().map(|m| m.destination.clone()).collect();
    mounts.extend(given.mounts.into_iter().filter(|m| !own.contains(&m.destination)));
    Ok(ContainerSpec {
        id: id.clone(),
        name: container.name.clone(),
        attempt: start.attempt,
        image: image.id.clone(),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        image_mounts,
        pid_target: start.looks_into.clone().transpose()?,
        devices: given.devices,
        cdi_devices: given.cdi_devices,
        resources: resources(ctx, &spec_, container),
        security,
        log_path: PathBuf::from(&container.name).join(format!("{}.log", start.attempt)),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        stop_signal: stop_signal(container, image),
        labels: Default::default(),
        annotations: given.annotations,
        // What the pod says of a name counts more than what a plugin does.
        env: given.env.into_iter().chain(env).collect(),
    })
}

/// What the files have in them that variables come from.
async fn files(start: &Start) -> Result<Files, String> {
    let container = start.part.spec.clone();
    if !env_file::is_asked_for(&container) {
        return Ok(Files::new());
    }
    let (pod, dir) = (start.pod.clone(), start.ctx.pod_dir(&start.pod));
    tokio::task::spawn_blocking(move || env_file::read(&pod, &container, &dir)).await.map_err(|e| e.to_string())
}

fn resources(ctx: &Context, spec: &PodSpec, container: &Container) -> Resources {
    let mut out = limits::of_container(spec, container, ctx.memory_bytes, None);
    if let Some(factor) = ctx.config.memory_throttling_factor {
        out.unified = limits::memory_quality(spec, container, ctx.node_memory(), factor);
    }
    out
}

fn non_root(security: &coracle_runtime::Security, image: &Image) -> Result<(), String> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let user = image.user.split(':').next().unwrap_or_default();
    match security.run_as_user {
        Some(0) => Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => Ok(()),
        None if user.is_empty() || user == "0" => Err("container has runAsNonRoot and image will run as root".to_owned()),
        None if user.parse::<u32>().is_err() => {
            Err(format!("container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"))
        }
        None => Ok(()),
    }
}

/// What asks a container to end: `lifecycle.stopSignal`, or its image's word.
fn stop_signal(container: &Container, image: &Image) -> Option<i32> {
    let asked = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    numbered(asked.unwrap_or(&image.stop_signal))
}

/// A signal by its number or its name, of which images may leave out the first letters; nobody knows another.
fn numbered(signal: &str) -> Option<i32> {
    let known = 1..=libc::SIGRTMAX();
    if let Ok(number) = signal.parse::<i32>() {
        return Some(number).filter(|n| known.contains(n));
    }
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let beyond = |from: &str, sign| Some(name.strip_prefix(from)?.strip_prefix(sign)?.parse::<i32>().ok().filter(|n| (0..=30).contains(n)));
    if let Some(more) = beyond("RTMIN", '+') {
        return more.map(|n| libc::SIGRTMIN() + n).filter(|n| known.contains(n));
    }
    if let Some(less) = beyond("RTMAX", '-') {
        return less.map(|n| libc::SIGRTMAX() - n).filter(|n| known.contains(n));
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

async fn services(start: &Start) -> Vec<(String, String)> {
    let links = start.pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
    let namespace = spec::namespace(&start.pod);
    let api = |namespace: &str| Api::<Service>::namespaced(start.ctx.client.clone(), namespace);
    let list = async {
        let mut out = Vec::new();
        if links {
            out = api(namespace).list(&ListParams::default().limit(SERVICES)).await?.items;
        }
        if !links || namespace != "default" {
            out.retain(|s| s.metadata.name.as_deref() != Some("kubernetes"));
            out.extend(api("default").get_opt("kubernetes").await?);
        }
        Ok::<_, kube::Error>(out)
    };
    let mut kept = Vec::new();
    match list.await {
        Ok(list) => {
            kept = service_env::variables(&list);
            start.services.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&kept);
        }
        Err(error) => {
            tracing::debug!(%error, "the Services are told as they were last");
            kept.clone_from(&start.services.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
    kept
}

/// Of the runs that are over only the last stays, for `logs --previous`.
async fn forget_old(start: &Start) {
    let Some(old) = start.attempt.checked_sub(2) else { return };
    let name = &start.part.spec.name;
    let id = Life::container_id(&start.sandbox.id, name, old);
    if let Err(error) = start.ctx.runtime.remove_container(&id).await {
        tracing::debug!(%error, container = id.id, "an old container is not removed");
    }
    crate::logs::remove_run(&start.ctx.log_dir(&start.pod).join(name), old);
    let _ = fs::remove_file(message::file(&start.ctx.pod_dir(&start.pod), name, old));
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (signal, number) in [
            ("SIGINT", Some(2)),
            ("sigquit", Some(3)),
            ("TERM", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("", None),
            ("0", None),
            ("-1", None),
            ("SIGRTMIN+99", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(numbered(signal), number, "{signal}");
        }
    }
}
