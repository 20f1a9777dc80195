//! What a container is given with its devices: environment, files, nodes, annotations, described devices. Pure.

use std::collections::BTreeMap;

use coracle_runtime::{Device, Mount};

use super::book::Grants;

/// All that the plugins said of a container's devices. Of two that say different things of one name the first counts, as upstream.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// Weaker than what the pod says.
    pub env: Vec<(String, String)>,
    /// Weaker than the pod's own at the same place.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// For the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Names of described devices.
    pub cdi_devices: Vec<String>,
}

/// Brings the answers of all plugins of a container together.
pub fn additions(grants: &Grants) -> Additions {
    let mut out = Additions::default();
    for response in grants.values().filter_map(|g| g.response.as_ref()) {
        for (name, value) in &response.envs {
            if out.env.iter().all(|(known, _)| known != name) {
                out.env.push((name.clone(), value.clone()));
            }
        }
        for mount in &response.mounts {
            if out.mounts.iter().all(|known| known.destination.as_os_str() != mount.container_path.as_str()) {
                out.mounts.push(Mount {
                    source: mount.host_path.clone().into(),
                    destination: mount.container_path.clone().into(),
                    read_only: mount.read_only,
                    recursive_read_only: false,
                    propagation: "private".to_owned(),
                });
            }
        }
        for device in &response.devices {
            if out.devices.iter().all(|known| known.container_path.as_os_str() != device.container_path.as_str()) {
                out.devices.push(Device {
                    host_path: device.host_path.clone().into(),
                    container_path: device.container_path.clone().into(),
                    permissions: device.permissions.clone(),
                    numbers: None,
                });
            }
        }
        for (name, value) in &response.annotations {
            out.annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
        for device in &response.cdi_devices {
            if !out.cdi_devices.contains(&device.name) {
                out.cdi_devices.push(device.name.clone());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{
        book::Grant,
        v1beta1::{CdiDevice, ContainerAllocateResponse, DeviceSpec, Mount as Told},
    };

    #[test]
    fn the_first_word_counts() {
        let answer = |value: &str| ContainerAllocateResponse {
            envs: BTreeMap::from([("BOTH".into(), value.into()), (value.to_uppercase(), "1".into())]),
            mounts: vec![Told { container_path: "/c".into(), host_path: format!("/{value}"), read_only: true }],
            devices: vec![DeviceSpec { container_path: "/dev/c".into(), host_path: format!("/dev/{value}"), permissions: "rw".into() }],
            annotations: BTreeMap::from([("k".into(), value.into())]),
            cdi_devices: vec![CdiDevice { name: "v/c=both".into() }, CdiDevice { name: format!("v/c={value}") }],
        };
        let grant = |value| Grant { devices: BTreeMap::new(), response: Some(answer(value)) };
        let silent = Grant { devices: BTreeMap::new(), response: None };
        let out = additions(&Grants::from([("e/a".into(), grant("x")), ("e/b".into(), grant("y")), ("e/c".into(), silent)]));
        let env: Vec<_> = out.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["BOTH=x", "X=1", "Y=1"]);
        assert_eq!(out.mounts.iter().map(|m| (m.source.to_str(), m.read_only)).collect::<Vec<_>>(), [(Some("/x"), true)]);
        assert_eq!(out.devices.iter().map(|d| d.host_path.to_str()).collect::<Vec<_>>(), [Some("/dev/x")]);
        assert_eq!(out.annotations, BTreeMap::from([("k".into(), "x".into())]));
        assert_eq!(out.cdi_devices, ["v/c=both", "v/c=x", "v/c=y"]);
    }
}
