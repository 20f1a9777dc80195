//! The maps: what the programs know.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use aya::{
    Pod as Plain,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use coracle_ebpf_common::{Address, Backend, Frontend, Member, Node, Pod, Service, Slot, from_v4};

use crate::services::plan::{Dump, Op};

/// Why a map could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[error("eBPF map {map}")]
pub struct TableError {
    /// Its name.
    pub map: &'static str,
    /// Why.
    #[source]
    pub source: MapError,
}

impl From<TableError> for io::Error {
    fn from(error: TableError) -> Self {
        io::Error::other(error)
    }
}

/// All maps that this side reads or writes.
pub struct Tables {
    node: Array<MapData, Node>,
    node_addresses: HashMap<MapData, Address, u32>,
    pods: HashMap<MapData, Address, Pod>,
    pod_netns: HashMap<MapData, u64, Address>,
    services: HashMap<MapData, Frontend, Service>,
    slots: HashMap<MapData, Slot, Backend>,
    members: HashMap<MapData, Member, u32>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens the maps that are pinned in a directory.
    pub fn open(maps: &Path) -> Result<Self, TableError> {
        let hash = |name: &'static str| open(maps, name, Map::HashMap);
        Ok(Self {
            node: open(maps, "NODE", Map::Array)?.try_into().map_err(|source| TableError { map: "NODE", source })?,
            node_addresses: typed("NODE_ADDRESSES", hash)?,
            pods: typed("PODS", hash)?,
            pod_netns: typed("POD_NETNS", hash)?,
            services: typed("SERVICES", hash)?,
            slots: typed("SLOTS", hash)?,
            members: typed("MEMBERS", hash)?,
        })
    }

    /// Tells the programs of this node.
    pub fn set_node(&mut self, node: Node) -> Result<(), TableError> {
        self.node.set(0, node, 0).map_err(|source| TableError { map: "NODE", source })
    }

    /// Makes these the node's addresses.
    pub fn set_node_addresses(&mut self, addresses: &[Ipv4Addr]) -> Result<(), TableError> {
        let fail = |source| TableError { map: "NODE_ADDRESSES", source };
        let wanted: Vec<Address> = addresses.iter().map(|v4| address((*v4).into())).collect();
        for address in &wanted {
            self.node_addresses.insert(address, 1, 0).map_err(fail)?;
        }
        let known: Vec<Address> = self.node_addresses.keys().collect::<Result<_, _>>().map_err(fail)?;
        for gone in known.iter().filter(|known| !wanted.contains(known)) {
            absent_is_fine(self.node_addresses.remove(gone)).map_err(fail)?;
        }
        Ok(())
    }

    /// A pod and its network namespace.
    pub fn put_pod(&mut self, ip: IpAddr, pod: Pod, netns: u64) -> Result<(), TableError> {
        self.pods.insert(address(ip), pod, 0).map_err(|source| TableError { map: "PODS", source })?;
        self.pod_netns.insert(netns, address(ip), 0).map_err(|source| TableError { map: "POD_NETNS", source })
    }

    /// Forgets a pod.
    pub fn drop_pod(&mut self, ip: IpAddr) -> Result<(), TableError> {
        let address = address(ip);
        absent_is_fine(self.pods.remove(&address)).map_err(|source| TableError { map: "PODS", source })?;
        let fail = |source| TableError { map: "POD_NETNS", source };
        let known: Vec<(u64, Address)> = self.pod_netns.iter().collect::<Result<_, _>>().map_err(fail)?;
        for (netns, _) in known.iter().filter(|(_, of)| *of == address) {
            absent_is_fine(self.pod_netns.remove(netns)).map_err(fail)?;
        }
        Ok(())
    }

    /// The pods that the programs know.
    pub fn pods(&self) -> Result<Vec<Address>, TableError> {
        self.pods.keys().collect::<Result<_, _>>().map_err(|source| TableError { map: "PODS", source })
    }

    /// One step of a plan.
    pub fn apply(&mut self, op: &Op) -> Result<(), TableError> {
        match op {
            Op::PutMember(key) => self.members.insert(key, 1, 0).map_err(|source| TableError { map: "MEMBERS", source }),
            Op::PutSlot(key, value) => self.slots.insert(key, value, 0).map_err(|source| TableError { map: "SLOTS", source }),
            Op::PutService(key, value) => self.services.insert(key, value, 0).map_err(|source| TableError { map: "SERVICES", source }),
            Op::DropService(key) => absent_is_fine(self.services.remove(key)).map_err(|source| TableError { map: "SERVICES", source }),
            Op::DropSlot(key) => absent_is_fine(self.slots.remove(key)).map_err(|source| TableError { map: "SLOTS", source }),
            Op::DropMember(key) => absent_is_fine(self.members.remove(key)).map_err(|source| TableError { map: "MEMBERS", source }),
        }
    }

    /// All that the maps say of Services.
    pub fn dump(&self) -> Result<Dump, TableError> {
        Ok(Dump {
            services: self.services.iter().collect::<Result<_, _>>().map_err(|source| TableError { map: "SERVICES", source })?,
            slots: self.slots.iter().collect::<Result<_, _>>().map_err(|source| TableError { map: "SLOTS", source })?,
            members: self.members.keys().collect::<Result<_, _>>().map_err(|source| TableError { map: "MEMBERS", source })?,
        })
    }
}

/// An address as the maps have it.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => from_v4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let bytes = v6.octets();
            std::array::from_fn(|word| u32::from_ne_bytes([bytes[word * 4], bytes[word * 4 + 1], bytes[word * 4 + 2], bytes[word * 4 + 3]]))
        }
    }
}

fn open(maps: &Path, name: &'static str, kind: fn(MapData) -> Map) -> Result<Map, TableError> {
    MapData::from_pin(maps.join(name)).map(kind).map_err(|source| TableError { map: name, source })
}

fn typed<K: Plain, V: Plain>(
    name: &'static str,
    open: impl Fn(&'static str) -> Result<Map, TableError>,
) -> Result<HashMap<MapData, K, V>, TableError> {
    open(name)?.try_into().map_err(|source| TableError { map: name, source })
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
