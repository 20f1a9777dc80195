//! Which container runtime runs the pods: the one in this program, or another at its socket; and the end of what the other runs.

use std::{fs, io, path::Path, sync::Arc};

use coracle_agent::eviction::pressure::{Least, Settings, Signal};
use coracle_runtime::{
    PodRuntime,
    cri::{self, CriRuntime, cni},
    embedded::EmbeddedRuntime,
    images::{Share, Spare},
};
use serde_json::{Value, json};

use super::{node::runtime_options, start::StartError};
use crate::{
    config::server::{ContainerRuntime, ServerConfig},
    place::Place,
};

/// What is kept in the data directory of the runtime beside, for the day on which its pods are taken down.
const RECORD: &str = "container-runtime.json";

/// Opens it.
pub async fn open(place: &Place, config: &ServerConfig) -> Result<Arc<dyn PodRuntime>, StartError> {
    let Some(beside) = &config.container_runtime else {
        let options = runtime_options(place.data_dir.clone(), place.state_dir.clone(), place.cgroup());
        let registries = config.images.registries().map_err(StartError::Registries)?;
        let mut runtime = EmbeddedRuntime::open(options).await.map_err(StartError::Runtime)?;
        runtime.image_store().keep_free(spare(&config.node_resources.eviction));
        runtime.supply(registries, place.data_dir.join("agent/images")).await.map_err(StartError::Runtime)?;
        return Ok(Arc::new(runtime));
    };
    let options = options(&beside.endpoint, &place.id, &place.state_dir);
    let record = json!({ "endpoint": beside.endpoint, "cniConfDir": beside.cni_conf_dir, "cniBinDir": beside.cni_bin_dir });
    let program = std::env::current_exe().map_err(StartError::Plugin)?;
    fs::write(place.data_dir.join(RECORD), record.to_string()).map_err(StartError::Plugin)?;
    cni::install(&directories(beside), &options.state_dir, &program).map_err(StartError::Plugin)?;
    Ok(Arc::new(CriRuntime::open(options).await.map_err(StartError::ContainerRuntime)?))
}

/// What images leave of their disk: as much as must be left before pods are ended for it.
fn spare(eviction: &Settings) -> Spare {
    let of = |signals: &[Signal]| {
        let share = |least| match least {
            Least::Of(amount) => Share::Of(amount),
            Least::Percent(percent) => Share::Percent(percent),
        };
        signals.iter().filter_map(|signal| eviction.hard(*signal)).map(share).collect()
    };
    Spare {
        bytes: of(&[Signal::Disk, Signal::Images, Signal::Containers]),
        inodes: of(&[Signal::Inodes, Signal::ImageInodes, Signal::ContainerInodes]),
    }
}

fn options(endpoint: &str, cluster: &str, state_dir: &Path) -> cri::Options {
    cri::Options { endpoint: endpoint.to_owned(), cluster: cluster.to_owned(), state_dir: state_dir.join("cri") }
}

fn directories(beside: &ContainerRuntime) -> cni::Directories {
    cni::Directories { conf: beside.cni_conf_dir.clone(), bin: beside.cni_bin_dir.clone() }
}

/// Removes the cluster's pods from the runtime beside, and its network plugin; nothing if there never was one.
pub async fn take_down(id: &str, data_dir: &Path, state_dir: &Path, mut tell: impl FnMut(&str, &dyn std::error::Error)) {
    let record = data_dir.join(RECORD);
    let beside = match fs::read(&record) {
        Ok(bytes) => read(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return tell("the container runtime's record cannot be read", &error),
    };
    let Some(beside) = beside else { return };
    let options = options(&beside.endpoint, id, state_dir);
    let plugin = options.state_dir.clone();
    match CriRuntime::open(options).await {
        Ok(runtime) => {
            for sandbox in runtime.sandboxes().await.unwrap_or_default() {
                if let Err(error) = runtime.remove_sandbox(&sandbox.spec.id).await {
                    tell("a pod is left", &error);
                }
            }
        }
        Err(error) => return tell("pods may be left", &error),
    }
    if let Err(error) = cni::uninstall(&directories(&beside), &plugin).and_then(|()| fs::remove_file(&record)) {
        tell("the network plugin is left", &error);
    }
}

fn read(record: &[u8]) -> Option<ContainerRuntime> {
    let record: Value = serde_json::from_slice(record).ok()?;
    let text = |name: &str| record[name].as_str().map(str::to_owned);
    Some(ContainerRuntime { endpoint: text("endpoint")?, cni_conf_dir: text("cniConfDir")?.into(), cni_bin_dir: text("cniBinDir")?.into() })
}
