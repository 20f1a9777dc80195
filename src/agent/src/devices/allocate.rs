//! Gives devices to containers: chooses with the plugin's advice, asks the plugin for their use, and writes it down before anybody uses them.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use coracle_runtime::grpc::Status;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    Devices, Plugin,
    additions::{Additions, additions},
    book::{Ask, Ids, Need, Shortage},
    v1beta1::{
        self, AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
        Empty, PreStartContainerRequest, PreferredAllocationRequest, PreferredAllocationResponse,
    },
    wishes,
};
use crate::{
    pod::spec::{self, Kind, Part},
    stats::meters::DEVICE_ALLOCATION,
};

/// How long a plugin may take to give a device away: some load programs into it. Upstream waits for ever.
const ALLOCATION: Duration = Duration::from_secs(60);
/// How long it may take before a container starts: upstream's figure.
const PRE_START: Duration = Duration::from_secs(30);
/// How long a pod waits for a plugin that was there before the agent was restarted: they come again within a second or two.
const RETURN: Duration = Duration::from_secs(10);

/// Why a container gets no devices.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// there are none for it
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// the plugin has gone
    #[error("unknown Device Plugin {0}")]
    Unknown(String),
    /// the plugin does not give them
    #[error("{0}")]
    Refused(Rpc),
    /// the plugin does not say which
    #[error("device plugin GetPreferredAllocation rpc failed with err: {0}")]
    Preferred(Rpc),
    /// the plugin does not make them ready
    #[error("device plugin PreStartContainer rpc failed with err: {0}")]
    PreStart(Rpc),
    /// the plugin's answer is for nobody
    #[error("no containers return in allocation response of {0}")]
    Empty(String),
    /// it cannot be written down
    #[error("cannot write down who has which device")]
    Save(#[source] io::Error),
}

/// A call that failed, in the words that Go's programs have for it: people search for them.
#[derive(Debug)]
pub struct Rpc(Status);

impl std::fmt::Display for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rpc error: code = {:?} desc = {}", self.0.code(), self.0.message())
    }
}

impl Devices {
    /// Gives every container of a pod its devices, or the pod none at all. App containers may have what init containers had before them.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), AllocateError> {
        let uid = spec::uid(pod);
        let mut handed_on: BTreeMap<String, Ids> = BTreeMap::new();
        let mut changed = false;
        for part in spec::parts(pod) {
            for (resource, count) in wishes(&part.spec) {
                if !self.lock().book.manages(&resource) {
                    continue;
                }
                let reusable = handed_on.entry(resource.clone()).or_default();
                let ask = Ask { uid, container: &part.spec.name, resource: &resource, count, reusable };
                changed |= self.give(&ask).await.inspect_err(|_| self.take_back(pod))?;
                let has = self.lock().book.ids(uid, &part.spec.name, &resource);
                hand_on(reusable, has, &part);
            }
        }
        if changed {
            self.save().await.inspect_err(|_| self.take_back(pod)).map_err(AllocateError::Save)?;
        }
        Ok(())
    }

    fn take_back(&self, pod: &Pod) {
        self.lock().book.release(spec::uid(pod));
    }

    /// Waits a while for a plugin that was there before the agent was restarted.
    async fn returned(&self, resource: &str) {
        let mut changes = self.changes();
        let wait = async {
            while self.lock().book.is_awaited(resource) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(RETURN, wait).await.is_err() {
            tracing::debug!(resource, "a device plugin has not come back");
        }
    }

    fn plugin(&self, resource: &str) -> Option<Plugin> {
        self.lock().plugins.get(resource).cloned()
    }

    /// Gives a container devices of one resource. Whether it had none before.
    async fn give(&self, ask: &Ask<'_>) -> Result<bool, AllocateError> {
        let mut need = self.lock().book.need(ask);
        if need.is_err() && self.lock().book.is_awaited(ask.resource) {
            self.returned(ask.resource).await;
            need = self.lock().book.need(ask);
        }
        let Need::Choose { taken, free } = need? else { return Ok(false) };
        let plugin = self.plugin(ask.resource).ok_or_else(|| AllocateError::Unknown(ask.resource.to_owned()))?;
        let preferred = prefer(&plugin, ask, taken, free).await?;
        // Others may have chosen meanwhile: what counts is what is free now.
        let Some(ids) = self.lock().book.reserve(ask, &preferred)? else { return Ok(false) };
        let began = Instant::now();
        let answer = ask_for(&plugin, ask, ids).await;
        self.meters.took(&DEVICE_ALLOCATION, &[ask.resource], began);
        let outcome = match answer {
            Ok(response) => self.lock().book.confirm(ask, response).map_err(AllocateError::from),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            self.lock().book.cancel(ask.uid, ask.container);
        }
        outcome.map(|()| true)
    }

    /// What a container that is about to start is given with its devices; its plugins make them ready first. One whose grant is not
    /// known (its checkpoint was lost) is given devices now.
    pub async fn prepare(&self, pod: &Pod, container: &Container) -> Result<Additions, AllocateError> {
        let (uid, name) = (spec::uid(pod), container.name.as_str());
        let mut changed = false;
        for (resource, count) in wishes(container) {
            if !self.lock().book.manages(&resource) {
                continue;
            }
            if self.lock().book.ids(uid, name, &resource).is_empty() {
                changed |= self.give(&Ask { uid, container: name, resource: &resource, count, reusable: &Ids::new() }).await?;
            }
            if let Some(plugin) = self.plugin(&resource).filter(|p| p.options.pre_start_required) {
                let devices_ids = self.lock().book.ids(uid, name, &resource).into_iter().collect();
                let request = PreStartContainerRequest { devices_ids };
                let ready = plugin.channel.unary::<_, Empty>(v1beta1::PRE_START, request, Some(PRE_START)).await;
                ready.map_err(|status| AllocateError::PreStart(Rpc(status)))?;
            }
        }
        if changed {
            self.save().await.map_err(AllocateError::Save)?;
        }
        Ok(self.lock().book.grants(uid, name).map(additions).unwrap_or_default())
    }
}

/// What the containers after this one may have: what an init container had, and what nobody who runs beside them has taken.
fn hand_on(reusable: &mut Ids, has: Ids, part: &Part) {
    if part.kind == Kind::Init {
        reusable.extend(has);
    } else {
        reusable.retain(|id| !has.contains(id));
    }
}

/// Which devices the plugin would choose, if it has an opinion.
async fn prefer(plugin: &Plugin, ask: &Ask<'_>, taken: Ids, free: Ids) -> Result<Vec<String>, AllocateError> {
    if !plugin.options.get_preferred_allocation_available || taken.len() >= ask.count {
        return Ok(Vec::new());
    }
    let request = ContainerPreferredAllocationRequest {
        available: free.union(&taken).cloned().collect(),
        must_include: taken.into_iter().collect(),
        allocation_size: i32::try_from(ask.count).unwrap_or(i32::MAX),
    };
    let request = PreferredAllocationRequest { container_requests: vec![request] };
    let answer = plugin.channel.unary::<_, PreferredAllocationResponse>(v1beta1::PREFER, request, Some(ALLOCATION)).await;
    let answer = answer.map_err(|status| AllocateError::Preferred(Rpc(status)))?;
    Ok(answer.container_responses.into_iter().next().map(|c| c.device_ids).unwrap_or_default())
}

async fn ask_for(plugin: &Plugin, ask: &Ask<'_>, ids: Ids) -> Result<ContainerAllocateResponse, AllocateError> {
    let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: ids.into_iter().collect() }] };
    let answer = plugin.channel.unary::<_, AllocateResponse>(v1beta1::ALLOCATE, request, Some(ALLOCATION)).await;
    let answer = answer.map_err(|status| AllocateError::Refused(Rpc(status)))?;
    answer.container_responses.into_iter().next().ok_or_else(|| AllocateError::Empty(ask.resource.to_owned()))
}
