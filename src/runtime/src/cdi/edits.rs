//! What a described device changes in a container. Pure.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{ContainerSpec, Device, DeviceNumbers, Mount};

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// hooks
    #[error("it wants the hook {hook} ({path}): containers of this runtime have no hooks; a RuntimeClass of the vendor's runtime has")]
    Hook {
        /// When.
        hook: String,
        /// What.
        path: String,
    },
    /// a variable
    #[error("{0:?} is not a variable of the form NAME=VALUE")]
    Variable(String),
    /// network
    #[error("it wants the network device {0} moved into the container, which this runtime does not do")]
    NetworkDevice(String),
}

/// Changes, as descriptions have them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Files>,
    hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    groups: Vec<i64>,
    net_devices: Vec<NetworkDevice>,
}

/// A device node. Kind and numbers are those that it has on the node, unless they are given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
    file_mode: Option<u32>,
}

/// Of a node that says nothing of it: as runc makes it.
const MODE: u32 = 0o666;

impl Node {
    fn device(&self) -> Device {
        let host = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let numbers = |kind| DeviceNumbers { kind, major: self.major, minor: self.minor, mode: self.file_mode.unwrap_or(MODE) & 0o777 };
        let kind = match self.kind.as_str() {
            "b" => Some('b'),
            "c" | "u" => Some('c'),
            _ => None,
        };
        Device {
            host_path: host.into(),
            container_path: PathBuf::from(&self.path),
            permissions: self.permissions.clone(),
            numbers: kind.filter(|_| self.major > 0).map(numbers),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Files {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hook {
    hook_name: String,
    path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkDevice {
    host_interface_name: String,
}

impl Edits {
    /// Makes them: a later variable, and what comes to a place that is taken, is in the place of the earlier one.
    pub(super) fn apply(&self, spec: &mut ContainerSpec) -> Result<(), EditError> {
        if let Some(hook) = self.hooks.first() {
            return Err(EditError::Hook { hook: hook.hook_name.clone(), path: hook.path.clone() });
        }
        if let Some(device) = self.net_devices.first() {
            return Err(EditError::NetworkDevice(device.host_interface_name.clone()));
        }
        for pair in &self.env {
            let (name, value) = pair.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(|| EditError::Variable(pair.clone()))?;
            spec.env.push((name.to_owned(), value.to_owned()));
        }
        for node in &self.device_nodes {
            let device = node.device();
            spec.devices.retain(|known| known.container_path != device.container_path);
            spec.devices.push(device);
        }
        for files in &self.mounts {
            let mount = files.mount();
            spec.mounts.retain(|known| known.destination != mount.destination);
            spec.mounts.push(mount);
        }
        for group in self.groups.iter().filter(|group| **group > 0) {
            if !spec.security.supplemental_groups.contains(group) {
                spec.security.supplemental_groups.push(*group);
            }
        }
        Ok(())
    }
}

impl Files {
    fn mount(&self) -> Mount {
        let has = |options: &[&str]| self.options.iter().any(|o| options.contains(&o.as_str()));
        let propagation = match () {
            () if has(&["rshared", "shared"]) => "rshared",
            () if has(&["rslave", "slave"]) => "rslave",
            () => "private",
        };
        Mount {
            // A mount without files of the node is one in memory.
            source: if self.kind == "tmpfs" { PathBuf::new() } else { PathBuf::from(&self.host_path) },
            destination: PathBuf::from(&self.container_path),
            read_only: has(&["ro"]),
            recursive_read_only: false,
            propagation: propagation.to_owned(),
        }
    }
}
