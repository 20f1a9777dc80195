//! What the kernel side and the user side of the dataplane both know: keys, values and bounds of the maps.
//!
//! Addresses are sixteen bytes in network order, IPv4 as `::ffff:a.b.c.d`, and ports are in network order: one layout carries both families.
//! A change of any struct or of a map's kind is a new [`LAYOUT`]: maps of another layout are never adopted.
#![no_std]

/// Version of everything in this file; part of the path that maps are pinned under.
pub const LAYOUT: u32 = 1;

/// Frontends of Services: cluster addresses, node ports, external addresses, host ports. Ten thousand Services of a few ports.
pub const MAX_FRONTENDS: u32 = 65_536;
/// Backends over all frontends (a backend counts once per frontend).
pub const MAX_BACKENDS: u32 = 262_144;
/// Pods of this node (Kubernetes' own bound is 110 by default; CIDRs of /22 and their like fit).
pub const MAX_PODS: u32 = 4_096;
/// Translated flows on the packet path, two entries each; the least recently used goes first. About 4.5 MB of kernel memory.
pub const MAX_FLOWS: u32 = 32_768;
/// Translated sockets; an entry lost costs `getpeername` the Service's address, nothing else. About 1.5 MB.
pub const MAX_SOCKETS: u32 = 16_384;
/// Clients that are bound to a backend by session affinity.
pub const MAX_AFFINITIES: u32 = 16_384;
/// Datagrams of which not all fragments have passed.
pub const MAX_FRAGMENTED: u32 = 1_024;
/// Addresses of the node itself.
pub const MAX_NODE_ADDRESSES: u32 = 256;

/// Sixteen bytes in network order, as four words as they lie in memory.
pub type Address = [u32; 4];

/// The words before an IPv4 address: `::ffff:0:0/96`.
pub const V4_PREFIX: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// An IPv4 address (network order) as all maps have it.
#[inline(always)]
pub const fn from_v4(v4: u32) -> Address {
    [V4_PREFIX[0], V4_PREFIX[1], V4_PREFIX[2], v4]
}

/// No address: a frontend that is open on every address of the node.
pub const ANY: Address = [0; 4];

/// IP protocol numbers that Services have here.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;

/// Where a Service is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Cluster, external or node address; [`ANY`] for a port on all node addresses.
    pub address: Address,
    /// Port, network order.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always zero.
    pub pad: u8,
}

/// A Service's port. Its backends are the slots `(id, 0..count)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Names the slots; never zero.
    pub id: u32,
    /// How many slots are valid; zero refuses.
    pub count: u32,
    /// How long a client stays with its backend; zero without session affinity.
    pub affinity_seconds: u32,
    /// None yet (traffic policy from outside, topology).
    pub flags: u32,
}

/// A place in a Service's list of backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// [`Service::id`].
    pub service: u32,
    /// Below [`Service::count`].
    pub index: u32,
}

/// Who answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Of a pod or a node.
    pub address: Address,
    /// Port, network order.
    pub port: u16,
    /// None yet.
    pub flags: u16,
}

/// That a backend belongs to a Service: what a standing flow or affinity is checked against.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// [`Service::id`].
    pub service: u32,
    /// Address of the backend.
    pub address: Address,
    /// Port, network order.
    pub port: u16,
    /// Always zero.
    pub pad: u16,
}

/// A client of a Service with session affinity.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Of the pod, or zero for the node itself.
    pub address: Address,
    /// [`Service::id`].
    pub service: u32,
}

/// The backend that a client is bound to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Of the backend.
    pub address: Address,
    /// Port, network order.
    pub port: u16,
    /// Always zero.
    pub pad: [u16; 3],
    /// When it was last asked for, on the monotonic clock.
    pub seen_ns: u64,
}

/// A packet's flow as it arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// From.
    pub source: Address,
    /// To.
    pub target: Address,
    /// From, network order.
    pub source_port: u16,
    /// To, network order.
    pub target_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always zero.
    pub pad: [u8; 3],
}

/// How it goes on: the whole tuple, so that translation of either end (and of both: hairpin) is one entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// From.
    pub source: Address,
    /// To.
    pub target: Address,
    /// From, network order.
    pub source_port: u16,
    /// To, network order.
    pub target_port: u16,
    /// [`Service::id`] on the way to the backend, zero on the way back.
    pub service: u32,
    /// Interface by which the way back leaves the node; zero for the ordinary way.
    pub exit: u32,
    /// Always zero (room for the tunnel's key).
    pub tunnel: u32,
}

/// A pod of this node. Policy will find its identity here, at the one look-up every packet makes anyway.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The host's end of its link.
    pub ifindex: u32,
    /// What policies know it by; zero without any.
    pub identity: u32,
    /// The pod's end.
    pub mac: [u8; 6],
    /// The host's end.
    pub host_mac: [u8; 6],
    /// None yet (policed from, policed to).
    pub flags: u32,
}

/// A translated socket, as its owner asks about it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The socket's.
    pub cookie: u64,
    /// The backend's.
    pub address: Address,
    /// The backend's, network order.
    pub port: u16,
    /// Always zero.
    pub pad: [u16; 3],
}

/// An end, without a protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: Address,
    /// Its port, network order.
    pub port: u16,
    /// Always zero.
    pub pad: u16,
}

/// A datagram in pieces.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// From.
    pub source: Address,
    /// To.
    pub target: Address,
    /// The sender's number.
    pub id: u32,
    /// Its protocol.
    pub protocol: u32,
}

/// The ports that only the first piece has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// From, network order.
    pub source: u16,
    /// To, network order.
    pub target: u16,
}

/// What the programs must know of this node; the one entry of its map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Cookie of the node's own network namespace.
    pub netns: u64,
    /// Addresses of Services: what lies in here and is no Service is refused.
    pub services: Address,
    /// Its mask.
    pub services_mask: Address,
    /// Stands for a pod that asks itself through a Service.
    pub hairpin: Address,
}

#[cfg(feature = "user")]
mod user {
    macro_rules! pod {
        ($($name:ident),*) => { $(
            // SAFETY: repr(C), plain integers, every byte named (padding is a field), valid for any bits.
            unsafe impl aya::Pod for super::$name {}
        )* };
    }
    pod!(Frontend, Service, Slot, Backend, Member, Client, Affinity, Tuple, Flow, Pod, Peer, End, Datagram, Ports, Node);
}
