//! The maps, pinned by name, so that a new version of the programs works on with what the old one knew.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use coracle_ebpf_common::*;

/// What the programs know of this node.
#[map]
pub static NODE: Array<Node> = Array::pinned(1, 0);
/// The node's own addresses.
#[map]
pub static NODE_ADDRESSES: HashMap<Address, u32> = HashMap::pinned(MAX_NODE_ADDRESSES, BPF_F_NO_PREALLOC);
/// The pods of this node.
#[map]
pub static PODS: HashMap<Address, Pod> = HashMap::pinned(MAX_PODS, BPF_F_NO_PREALLOC);
/// Their network namespaces: what tells a socket hook whose socket it sees.
#[map]
pub static POD_NETNS: HashMap<u64, Address> = HashMap::pinned(MAX_PODS, BPF_F_NO_PREALLOC);
/// Services by where they are asked for.
#[map]
pub static SERVICES: HashMap<Frontend, Service> = HashMap::pinned(MAX_FRONTENDS, BPF_F_NO_PREALLOC);
/// Their backends, by place.
#[map]
pub static SLOTS: HashMap<Slot, Backend> = HashMap::pinned(MAX_BACKENDS, BPF_F_NO_PREALLOC);
/// Their backends, by address.
#[map]
pub static MEMBERS: HashMap<Member, u32> = HashMap::pinned(MAX_BACKENDS, BPF_F_NO_PREALLOC);
/// Which client keeps to which backend.
#[map]
pub static AFFINITIES: LruHashMap<Client, Affinity> = LruHashMap::pinned(MAX_AFFINITIES, 0);
/// Translated flows, both ways.
#[map]
pub static FLOWS: LruHashMap<Tuple, Flow> = LruHashMap::pinned(MAX_FLOWS, 0);
/// What translated sockets asked for.
#[map]
pub static SOCKETS: LruHashMap<Peer, End> = LruHashMap::pinned(MAX_SOCKETS, 0);
/// Ports of datagrams in pieces.
#[map]
pub static FRAGMENTED: LruHashMap<Datagram, Ports> = LruHashMap::pinned(MAX_FRAGMENTED, 0);
