//! Follows the APIServices: makes those of what is served here, and has a keeper for each server that others run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use coracle_api::status::Status;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Aggregation, Table, check,
    register::{self, Step},
    remote::Remote,
    service::{ApiService, GROUP, PLURAL},
};
use crate::{
    cache::{
        collection::Expired,
        object::{Action, Object},
        watcher::Watcher,
    },
    registry::Registry,
    strategy::meta,
};

/// Follows for ever.
pub(crate) async fn run(aggregation: Arc<Aggregation>, registry: Registry) {
    let mut catalogue = registry.catalogue_changes();
    let mut keepers = Keepers::default();
    let mut services = registry.subscribe(GROUP, PLURAL);
    keepers.read(&registry);
    // What leads to others' servers is followed only while there are any.
    let mut ways: Option<[Watcher; 2]> = None;
    let mut at_start = true;
    let mut again = true;
    loop {
        if std::mem::take(&mut again) {
            let table = keepers.follow(&aggregation, &registry);
            ways = match (table.remotes.is_empty(), ways) {
                (true, _) => None,
                (false, None) => Some(subscribe(&registry, &table)),
                (false, same) => same,
            };
            let wanted = register::wanted(&registry.catalogue());
            for step in register::plan(&wanted, &table.services, std::mem::take(&mut at_start)) {
                if let Err(status) = execute(&registry, &step).await {
                    tracing::warn!(?step, error = status.message, "an APIService was not kept");
                }
            }
        }
        tokio::select! {
            changed = catalogue.changed() => match changed {
                Ok(()) => again = true,
                Err(_) => return,
            },
            changed = services.next() => {
                match changed {
                    Ok(changes) => changes.iter().for_each(|change| keepers.take(&change.object, change.action)),
                    // The feed was too fast: what is there is read again.
                    Err(_) => {
                        services = registry.subscribe(GROUP, PLURAL);
                        keepers.read(&registry);
                    }
                }
                again = true;
            }
            moved = moved(&mut ways) => {
                let table = aggregation.table();
                match moved {
                    Ok(namespaces) => {
                        let near = table.remotes.iter().filter(|remote| namespaces.contains(&remote.reference.namespace));
                        near.for_each(|remote| remote.locate(registry.cache()));
                    }
                    // The feed was too fast: what is there is read again.
                    Err(_) => ways = Some(subscribe(&registry, &table)),
                }
            }
        }
    }
}

/// Follows what leads to servers from now on; what was before is looked at.
fn subscribe(registry: &Registry, table: &Table) -> [Watcher; 2] {
    let watchers = [registry.subscribe("", "services"), registry.subscribe("discovery.k8s.io", "endpointslices")];
    table.remotes.iter().for_each(|remote| remote.locate(registry.cache()));
    watchers
}

/// The namespaces in which Services or their endpoints have changed.
async fn moved(ways: &mut Option<[Watcher; 2]>) -> Result<Vec<String>, Expired> {
    let Some([services, slices]) = ways else { return std::future::pending().await };
    let changes = tokio::select! {
        changes = services.next() => changes?,
        changes = slices.next() => changes?,
    };
    Ok(changes.iter().map(|change| change.object.namespace().to_owned()).collect())
}

/// Who checks the servers, by the names of their APIServices.
#[derive(Default)]
struct Keepers {
    services: BTreeMap<String, Arc<ApiService>>,
    all: HashMap<String, (Arc<Remote>, AbortOnDropHandle<()>)>,
}

impl Keepers {
    /// Reads all APIServices.
    fn read(&mut self, registry: &Registry) {
        self.services.clear();
        for object in &registry.list(GROUP, PLURAL, "").objects {
            self.take(object, Action::Added);
        }
    }

    /// Takes one change of one.
    fn take(&mut self, object: &Object, action: Action) {
        match action {
            Action::Deleted => drop(self.services.remove(object.name())),
            _ => drop(self.services.insert(object.name().to_owned(), Arc::new(ApiService::read(&object.value())))),
        }
    }

    /// Takes the APIServices as they are now.
    fn follow(&mut self, aggregation: &Arc<Aggregation>, registry: &Registry) -> Arc<Table> {
        let table =
            Arc::new(Table::of(self.services.values().cloned().collect(), registry.cache(), &aggregation.table(), &aggregation.dialer));
        aggregation.put(Arc::clone(&table));
        self.all.retain(|name, (remote, _)| table.remotes.iter().any(|now| now.name == *name && Arc::ptr_eq(now, remote)));
        for remote in &table.remotes {
            if !self.all.contains_key(&remote.name) {
                let keeper = tokio::spawn(check::keep(Arc::clone(remote), Arc::clone(aggregation), registry.clone()));
                self.all.insert(remote.name.clone(), (Arc::clone(remote), AbortOnDropHandle::new(keeper)));
            }
            let said = table.services.iter().find(|service| service.name == remote.name).and_then(|service| service.available.as_ref());
            if said.is_none_or(|(status, _)| (status == "True") != remote.state().available) {
                // Somebody else has written the condition: it is checked and written again.
                remote.wake.notify_one();
            }
        }
        table
    }
}

async fn execute(registry: &Registry, step: &Step) -> Result<(), Status> {
    let done = match step {
        Step::Create(wanted) => registry.create_if_absent(wanted.object()).await.map(drop),
        Step::Update(wanted) => {
            let mut make = |old: &Value| {
                let mut new = old.clone();
                meta::map_of(&mut new).insert("spec".into(), wanted.spec());
                new
            };
            registry.change(GROUP, PLURAL, "", &wanted.name(), &mut make).await.map(drop)
        }
        Step::Delete { name, uid } => registry.remove(GROUP, PLURAL, "", name, uid).await,
        Step::Available(name) => {
            // Meanwhile it may lead elsewhere.
            let local = |service: &Value| ApiService::read(service).remote.is_none();
            let condition =
                |old: &Value| register::with_condition(old, "True", "Local", "Local APIServices are always available", Timestamp::now());
            let mut make = |old: &Value| if local(old) { condition(old) } else { old.clone() };
            registry.change_status(GROUP, PLURAL, "", name, &mut make).await.map(drop)
        }
    };
    match done {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}
