//! The book of devices: which there are, how they fare, and which container has which. Pure.
//!
//! A device is in one container's hands at a time, save that containers of one pod that run one after the other may hand it on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceHealth, ResourceStatus};

use super::v1beta1::{ContainerAllocateResponse, Device, HEALTHY};
use crate::pod::backoff::later;

/// How long the resource of a plugin that is gone stays in the node's status: upstream's figure.
const GRACE: std::time::Duration = std::time::Duration::from_secs(300);
/// Resources that the node keeps book of: far more than a machine has kinds of devices.
pub const RESOURCES: usize = 256;

/// Ids of devices of one resource.
pub type Ids = BTreeSet<String>;

/// Why a container gets no devices. The words are upstream's: its own suite matches them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// nobody has registered the resource
    #[error("cannot allocate unregistered device {0}")]
    Unregistered(String),
    /// none is healthy
    #[error("no healthy devices present; cannot allocate unhealthy devices {0}")]
    NoneHealthy(String),
    /// those that it has are ill
    #[error("previously allocated devices are no longer healthy; cannot allocate unhealthy devices {0}")]
    Unhealthy(String),
    /// too few
    #[error("requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}")]
    TooFew {
        /// Of what.
        resource: String,
        /// How many are needed beside those that the container may take over.
        requested: usize,
        /// How many are free.
        available: usize,
    },
    /// it has another number of them
    #[error("pod {uid:?} container {container:?} changed request for resource {resource:?} from {had} to {wants}")]
    Changed {
        /// The pod.
        uid: String,
        /// The container.
        container: String,
        /// Of what.
        resource: String,
        /// How many it has.
        had: usize,
        /// How many it asks for.
        wants: usize,
    },
    /// the pod's life ended meanwhile
    #[error("the pod ends")]
    Ending,
}

/// A device as its plugin has told of it last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    healthy: bool,
    nodes: Vec<i64>,
}

/// Where the plugin of a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Connected; the number tells it from those before.
    Here(u64),
    /// It was there before the agent began.
    Awaited { since: Timestamp },
    /// Its connection ended.
    Gone { since: Timestamp },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    presence: Presence,
    /// Its plugin has told of its devices since it is connected.
    told: bool,
    devices: BTreeMap<String, Known>,
}

impl Resource {
    fn new(presence: Presence) -> Self {
        Self { presence, told: false, devices: BTreeMap::new() }
    }

    fn is_here(&self) -> bool {
        matches!(self.presence, Presence::Here(_))
    }

    /// Those that may be given away: none without a plugin that answers for them.
    fn healthy(&self) -> impl Iterator<Item = &String> {
        let answered = self.told && self.is_here();
        self.devices.iter().filter(move |(_, known)| answered && known.healthy).map(|(id, _)| id)
    }
}

/// What a container has of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which, and the NUMA nodes that are near each.
    pub devices: BTreeMap<String, Vec<i64>>,
    /// What its plugin said of their use; `None` until it has.
    pub response: Option<ContainerAllocateResponse>,
}

/// The grants of a container, by resource.
pub type Grants = BTreeMap<String, Grant>;

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The pod.
    pub uid: &'a str,
    /// Its container.
    pub container: &'a str,
    /// Of what.
    pub resource: &'a str,
    /// How many.
    pub count: usize,
    /// Devices of containers of the pod that are over when this one runs.
    pub reusable: &'a Ids,
}

/// What is to be done for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it has them.
    Met,
    /// Choose.
    Choose {
        /// Handed on to it.
        taken: Ids,
        /// Free.
        free: Ids,
    },
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Book {
    resources: BTreeMap<String, Resource>,
    /// Resources that were here and are no more: the node's status says 0 of them.
    retired: BTreeSet<String>,
    grants: BTreeMap<String, BTreeMap<String, Grants>>,
    /// Pods that may be given devices: those that live.
    open: BTreeSet<String>,
    generation: u64,
}

impl Book {
    /// As it was left: who has what, and which resources had a plugin.
    pub fn restored(grants: BTreeMap<String, BTreeMap<String, Grants>>, registered: impl Iterator<Item = String>, now: Timestamp) -> Self {
        let awaited = |name| (name, Resource::new(Presence::Awaited { since: now }));
        Self { grants, resources: registered.take(RESOURCES).map(awaited).collect(), ..Self::default() }
    }

    /// A plugin is connected; the number by which it is known from now on. `None`: there are too many resources.
    pub fn connect(&mut self, resource: &str) -> Option<u64> {
        if self.resources.len() >= RESOURCES && !self.resources.contains_key(resource) {
            return None;
        }
        self.generation += 1;
        let presence = Presence::Here(self.generation);
        self.retired.remove(resource);
        let entry = self.resources.entry(resource.to_owned()).or_insert_with(|| Resource::new(presence));
        (entry.presence, entry.told) = (presence, false);
        Some(self.generation)
    }

    /// A plugin tells of all its devices.
    pub fn update(&mut self, resource: &str, generation: u64, devices: Vec<Device>) {
        let Some(entry) = self.of(resource, generation) else { return };
        let known = |d: Device| {
            let nodes = d.topology.map(|t| t.nodes.iter().map(|n| n.id).collect()).unwrap_or_default();
            (d.id, Known { healthy: d.health == HEALTHY, nodes })
        };
        entry.devices = devices.into_iter().map(known).collect();
        entry.told = true;
    }

    /// A plugin's connection has ended.
    pub fn disconnect(&mut self, resource: &str, generation: u64, now: Timestamp) {
        if let Some(entry) = self.of(resource, generation) {
            entry.presence = Presence::Gone { since: now };
        }
    }

    fn of(&mut self, resource: &str, generation: u64) -> Option<&mut Resource> {
        self.resources.get_mut(resource).filter(|r| r.presence == Presence::Here(generation))
    }

    /// Forgets resources whose plugin has been away for too long; when the next one is due.
    pub fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due = |r: &Resource| match r.presence {
            Presence::Here(_) => None,
            Presence::Awaited { since } | Presence::Gone { since } => Some(later(since, GRACE)),
        };
        let over: Vec<String> = self.resources.iter().filter(|(_, r)| due(r).is_some_and(|at| at <= now)).map(|(n, _)| n.clone()).collect();
        for name in over {
            self.resources.remove(&name);
            if self.retired.len() < RESOURCES {
                self.retired.insert(name);
            }
        }
        self.resources.values().filter_map(due).min()
    }

    /// Of each resource how many there are, and how many may be given away.
    pub fn amounts(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        let present = self.resources.iter().map(|(name, r)| (name.as_str(), r.devices.len(), r.healthy().count()));
        present.chain(self.retired.iter().map(|name| (name.as_str(), 0, 0)))
    }

    /// Resources that have a plugin, or had one until a short time ago, with their healthy devices.
    pub fn registered(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.resources.iter().map(|(name, r)| (name.as_str(), r.healthy().map(String::as_str).collect()))
    }

    /// Healthy devices of a resource with the NUMA nodes that are near.
    pub fn allocatable(&self) -> impl Iterator<Item = (&str, Vec<(&str, &[i64])>)> {
        self.resources.iter().map(|(name, r)| {
            let devices = r.healthy().filter_map(|id| Some((id.as_str(), r.devices.get(id)?.nodes.as_slice())));
            (name.as_str(), devices.collect())
        })
    }

    /// Whether a resource is given away by this book.
    pub fn manages(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.all_grants().any(|(_, _, grants)| grants.contains_key(resource))
    }

    /// Whether a plugin that was there before the agent began has not come back yet, or has not told of its devices yet.
    pub fn is_awaited(&self, resource: &str) -> bool {
        self.resources.get(resource).is_some_and(|r| matches!(r.presence, Presence::Awaited { .. }) || (r.is_here() && !r.told))
    }

    /// A pod lives: it may be given devices from now on.
    pub fn open(&mut self, uid: &str) {
        if !self.open.contains(uid) {
            self.open.insert(uid.to_owned());
        }
    }

    /// A pod takes nothing any more. Whether it had anything.
    pub fn release(&mut self, uid: &str) -> bool {
        self.open.remove(uid);
        self.grants.remove(uid).is_some()
    }

    /// Takes away from all pods but these. Whether any had anything.
    pub fn retain(&mut self, lives: impl Fn(&str) -> bool) -> bool {
        let before = self.grants.len();
        self.grants.retain(|uid, _| lives(uid));
        before != self.grants.len()
    }

    /// Takes back what a container was to be given, and whose plugin has not said yes.
    pub fn cancel(&mut self, uid: &str, container: &str) {
        let Some(containers) = self.grants.get_mut(uid) else { return };
        if let Some(grants) = containers.get_mut(container) {
            grants.retain(|_, grant| grant.response.is_some());
            if grants.is_empty() {
                containers.remove(container);
            }
        }
        if containers.is_empty() {
            self.grants.remove(uid);
        }
    }

    fn all_grants(&self) -> impl Iterator<Item = (&str, &str, &Grants)> {
        self.grants.iter().flat_map(|(uid, containers)| containers.iter().map(move |(name, grants)| (uid.as_str(), name.as_str(), grants)))
    }

    fn grant_of(&self, uid: &str, container: &str, resource: &str) -> Option<&Grant> {
        self.grants.get(uid)?.get(container)?.get(resource)
    }

    /// What a container has.
    pub fn grants(&self, uid: &str, container: &str) -> Option<&Grants> {
        self.grants.get(uid)?.get(container)
    }

    /// By pod and container.
    pub fn everything(&self) -> &BTreeMap<String, BTreeMap<String, Grants>> {
        &self.grants
    }

    /// Ids of a resource that a container has.
    pub fn ids(&self, uid: &str, container: &str, resource: &str) -> Ids {
        self.grant_of(uid, container, resource).map(|g| g.devices.keys().cloned().collect()).unwrap_or_default()
    }

    fn taken(&self, resource: &str) -> BTreeSet<&String> {
        self.all_grants().filter_map(|(_, _, grants)| grants.get(resource)).flat_map(|g| g.devices.keys()).collect()
    }

    /// What must be done so that a container has what it asks for.
    pub fn need(&self, ask: &Ask<'_>) -> Result<Need, Shortage> {
        let resource = self.resources.get(ask.resource);
        if let Some(grant) = self.grant_of(ask.uid, ask.container, ask.resource) {
            return self.kept(ask, grant, resource);
        }
        let unregistered = || Shortage::Unregistered(ask.resource.to_owned());
        let resource = resource.ok_or_else(unregistered)?;
        if resource.healthy().next().is_none() {
            return Err(Shortage::NoneHealthy(ask.resource.to_owned()));
        }
        let taken: Ids = ask.reusable.iter().take(ask.count).cloned().collect();
        let in_use = self.taken(ask.resource);
        let free: Ids = resource.healthy().filter(|id| !in_use.contains(id)).cloned().collect();
        let requested = ask.count - taken.len();
        if free.len() < requested {
            return Err(Shortage::TooFew { resource: ask.resource.to_owned(), requested, available: free.len() });
        }
        Ok(Need::Choose { taken, free })
    }

    /// It was given some before: they stay, while they are well as far as anybody knows.
    fn kept(&self, ask: &Ask<'_>, grant: &Grant, resource: Option<&Resource>) -> Result<Need, Shortage> {
        if grant.devices.len() != ask.count {
            return Err(Shortage::Changed {
                uid: ask.uid.to_owned(),
                container: ask.container.to_owned(),
                resource: ask.resource.to_owned(),
                had: grant.devices.len(),
                wants: ask.count,
            });
        }
        let ill = |id: &String| resource.and_then(|r| r.devices.get(id)).is_some_and(|known| !known.healthy);
        if grant.devices.keys().any(ill) {
            return Err(Shortage::Unhealthy(ask.resource.to_owned()));
        }
        Ok(Need::Met)
    }

    /// Sets devices aside for a container: those that are handed on to it, then those that its plugin prefers, then any. `None`: it has them.
    pub fn reserve(&mut self, ask: &Ask<'_>, preferred: &[String]) -> Result<Option<Ids>, Shortage> {
        if !self.open.contains(ask.uid) {
            return Err(Shortage::Ending);
        }
        let Need::Choose { taken, free } = self.need(ask)? else { return Ok(None) };
        let mut chosen = taken;
        // Free ones twice: a second time for what the plugin has no wish about.
        for id in preferred.iter().filter(|id| free.contains(*id)).chain(&free) {
            if chosen.len() >= ask.count {
                break;
            }
            chosen.insert(id.clone());
        }
        let known = self.resources.get(ask.resource).map(|r| &r.devices);
        let nodes = |id: &String| known.and_then(|k| k.get(id)).map(|k| k.nodes.clone()).unwrap_or_default();
        let grant = Grant { devices: chosen.iter().map(|id| (id.clone(), nodes(id))).collect(), response: None };
        let containers = self.grants.entry(ask.uid.to_owned()).or_default();
        containers.entry(ask.container.to_owned()).or_default().insert(ask.resource.to_owned(), grant);
        Ok(Some(chosen))
    }

    /// The plugin has given what was set aside.
    pub fn confirm(&mut self, ask: &Ask<'_>, response: ContainerAllocateResponse) -> Result<(), Shortage> {
        let grant = self.grants.get_mut(ask.uid).and_then(|c| c.get_mut(ask.container)).and_then(|g| g.get_mut(ask.resource));
        grant.ok_or(Shortage::Ending)?.response = Some(response);
        Ok(())
    }

    /// How the devices of a container fare; one that its plugin has not told of counts as well.
    pub fn health(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        let grants = self.grants(uid, container).into_iter().flatten();
        let statuses = grants.map(|(name, grant)| {
            let known = self.resources.get(name).map(|r| &r.devices);
            let healthy = |id: &String| known.and_then(|k| k.get(id)).is_none_or(|k| k.healthy);
            let one = |id: &String| ResourceHealth {
                health: Some(if healthy(id) { "Healthy" } else { "Unhealthy" }.to_owned()),
                resource_id: id.clone(),
                ..ResourceHealth::default()
            };
            ResourceStatus { name: name.clone(), resources: Some(grant.devices.keys().map(one).collect()) }
        });
        statuses.collect()
    }

    /// Whether a pod has anything.
    pub fn has(&self, uid: &str) -> bool {
        self.grants.contains_key(uid)
    }
}

#[cfg(test)]
mod tests;
