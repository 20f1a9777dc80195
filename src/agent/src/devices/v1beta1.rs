//! The messages and methods of `v1beta1`, the protocol between a node and its device plugins.

use std::collections::BTreeMap;

use prost::Message;

/// What plugins must say in `RegisterRequest::version`.
pub const VERSION: &str = "v1beta1";
/// `Device::health` of one that may be given away.
pub const HEALTHY: &str = "Healthy";

/// Served by the node.
pub const REGISTER: &str = "/v1beta1.Registration/Register";
/// Served by a plugin.
pub const OPTIONS: &str = "/v1beta1.DevicePlugin/GetDevicePluginOptions";
/// Served by a plugin.
pub const LIST_AND_WATCH: &str = "/v1beta1.DevicePlugin/ListAndWatch";
/// Served by a plugin.
pub const PREFER: &str = "/v1beta1.DevicePlugin/GetPreferredAllocation";
/// Served by a plugin.
pub const ALLOCATE: &str = "/v1beta1.DevicePlugin/Allocate";
/// Served by a plugin.
pub const PRE_START: &str = "/v1beta1.DevicePlugin/PreStartContainer";

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// What a plugin wants to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DevicePluginOptions {
    /// `PreStartContainer` before each start of a container.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// `GetPreferredAllocation` before devices are chosen.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin presents itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RegisterRequest {
    /// Of the protocol.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Its socket, in the directory of the node's.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// What it has: `vendor.example/gpu`.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// As `GetDevicePluginOptions` says it, too.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plugin.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ListAndWatchResponse {
    /// Each of them; one that is not named is gone.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Device {
    /// Of its resource the only one.
    #[prost(string, tag = "1")]
    pub id: String,
    /// `Healthy` or not.
    #[prost(string, tag = "2")]
    pub health: String,
    /// Near which memory it is.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<TopologyInfo>,
}

/// NUMA nodes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TopologyInfo {
    /// Those that are near.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NumaNode>,
}

/// A NUMA node.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct NumaNode {
    /// Its number.
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Asks which devices a container had best be given.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreferredAllocationRequest {
    /// One is sent.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerPreferredAllocationRequest>,
}

/// For one container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerPreferredAllocationRequest {
    /// To choose from.
    #[prost(string, repeated, tag = "1")]
    pub available: Vec<String>,
    /// Chosen already.
    #[prost(string, repeated, tag = "2")]
    pub must_include: Vec<String>,
    /// How many it gets in all.
    #[prost(int32, tag = "3")]
    pub allocation_size: i32,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreferredAllocationResponse {
    /// One for each request.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerPreferredAllocationResponse>,
}

/// For one container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerPreferredAllocationResponse {
    /// The best first.
    #[prost(string, repeated, tag = "1")]
    pub device_ids: Vec<String>,
}

/// Gives devices away.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateRequest {
    /// One is sent.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// To one container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateRequest {
    /// Which.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AllocateResponse {
    /// One for each request.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What a container needs to use its devices.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContainerAllocateResponse {
    /// Environment.
    #[prost(btree_map = "string, string", tag = "1")]
    pub envs: BTreeMap<String, String>,
    /// Files of the node.
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
    /// Device nodes.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
    /// For the container runtime.
    #[prost(btree_map = "string, string", tag = "4")]
    pub annotations: BTreeMap<String, String>,
    /// Devices that are described on the node.
    #[prost(message, repeated, tag = "5")]
    pub cdi_devices: Vec<CdiDevice>,
}

/// A file or directory of the node in a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mount {
    /// There.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the node.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Not writable.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
}

/// A device node in a container.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceSpec {
    /// There.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// On the node.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Of `rwm`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// A device of the Container Device Interface.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CdiDevice {
    /// `vendor.example/class=name`.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A container is about to start with its devices.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PreStartContainerRequest {
    /// Which.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire() {
        // As protoc's reference encoder has them: field numbers and types are the contract.
        let request = RegisterRequest {
            version: "v".into(),
            endpoint: "e".into(),
            resource_name: "r".into(),
            options: Some(DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }),
        };
        assert_eq!(request.encode_to_vec(), b"\x0a\x01v\x12\x01e\x1a\x01r\x22\x04\x08\x01\x10\x01");
        let device = Device { id: "d".into(), health: "H".into(), topology: Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] }) };
        assert_eq!(ListAndWatchResponse { devices: vec![device] }.encode_to_vec(), b"\x0a\x0c\x0a\x01d\x12\x01H\x1a\x04\x0a\x02\x08\x01");
        let response = ContainerAllocateResponse {
            envs: BTreeMap::from([("K".into(), "V".into())]),
            mounts: vec![Mount { container_path: "c".into(), host_path: "h".into(), read_only: true }],
            devices: vec![DeviceSpec { container_path: "c".into(), host_path: "h".into(), permissions: "p".into() }],
            annotations: BTreeMap::new(),
            cdi_devices: vec![CdiDevice { name: "n".into() }],
        };
        let bytes = b"\x0a\x06\x0a\x01K\x12\x01V\x12\x08\x0a\x01c\x12\x01h\x18\x01\x1a\x09\x0a\x01c\x12\x01h\x1a\x01p\x2a\x03\x0a\x01n";
        assert_eq!(response.encode_to_vec(), bytes);
        assert_eq!(ContainerAllocateResponse::decode(&bytes[..]).expect("decoded"), response);
    }
}
