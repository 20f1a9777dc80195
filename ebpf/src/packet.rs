//! Packets: read, translated, handed on.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_REDIRECT, TC_ACT_SHOT},
    helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
    programs::TcContext,
};
use coracle_ebpf_common::*;

use crate::maps::{FRAGMENTED, PODS};

/// Let the next program, and then the stack, have the packet.
pub const NEXT: i32 = -1;
/// End of the packet.
pub const DROP: i32 = TC_ACT_SHOT as i32;
const REDIRECT: i32 = TC_ACT_REDIRECT as i32;

/// Length of the Ethernet header.
pub const ETH: usize = 14;
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Flags of a TCP segment.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// An IPv4 header without options, as it is on the wire.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_length: u8,
    pub tos: u8,
    pub total: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub check: u16,
    pub source: u32,
    pub target: u32,
}

/// What was read of a packet.
pub struct Packet {
    pub tuple: Tuple,
    /// Offset of the transport header.
    pub l4: usize,
    /// Whether there is a transport header (it is in the first fragment only).
    pub whole: bool,
    /// Whether the protocol is one that Services have.
    pub translatable: bool,
    /// TCP flags; zero for others.
    pub tcp_flags: u8,
}

#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the program's run; the verifier checks the access.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// `None` is a packet of another family than IPv4, or a torn one.
#[inline(always)]
pub fn read(ctx: &TcContext) -> Option<Packet> {
    // SAFETY: as in `ifindex`.
    if unsafe { (*ctx.skb.skb).protocol } != ETH_P_IP {
        return None;
    }
    let ip: Ipv4 = ctx.load(ETH).ok()?;
    let l4 = ETH + usize::from(ip.version_length & 0xf) * 4;
    let mut packet = Packet {
        tuple: Tuple {
            source: from_v4(ip.source),
            target: from_v4(ip.target),
            source_port: 0,
            target_port: 0,
            protocol: ip.protocol,
            pad: [0; 3],
        },
        l4,
        whole: true,
        translatable: ip.protocol == TCP || ip.protocol == UDP,
        tcp_flags: 0,
    };
    if !packet.translatable {
        return Some(packet);
    }
    let fragment = u16::from_be(ip.fragment);
    if fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0 {
        let ports: Ports = ctx.load(l4).ok()?;
        packet.tuple.source_port = ports.source;
        packet.tuple.target_port = ports.target;
    } else {
        let datagram =
            Datagram { source: packet.tuple.source, target: packet.tuple.target, id: u32::from(ip.id), protocol: u32::from(ip.protocol) };
        let ports = if fragment & FRAGMENT_OFFSET == 0 {
            let ports: Ports = ctx.load(l4).ok()?;
            let _ = FRAGMENTED.insert(datagram, ports, 0);
            ports
        } else {
            packet.whole = false;
            // SAFETY: the entry may change under us; the value is copied and plain.
            match unsafe { FRAGMENTED.get(datagram) } {
                Some(ports) => *ports,
                None => Ports { source: 0, target: 0 },
            }
        };
        packet.tuple.source_port = ports.source;
        packet.tuple.target_port = ports.target;
    }
    if ip.protocol == TCP && packet.whole {
        packet.tcp_flags = ctx.load(l4 + 13).ok()?;
    }
    Some(packet)
}

/// Rewrites both ends to those of the flow, with the checksums.
#[inline(always)]
pub fn translate(ctx: &TcContext, packet: &Packet, flow: &Flow) -> Result<(), i64> {
    let (old_source, old_target) = (packet.tuple.source[3], packet.tuple.target[3]);
    let (new_source, new_target) = (flow.source[3], flow.target[3]);
    if packet.whole {
        let (check, mangled) = match packet.tuple.protocol {
            TCP => (packet.l4 + 16, 0),
            _ => (packet.l4 + 6, BPF_F_MARK_MANGLED_0 as u64),
        };
        let pseudo = mangled | BPF_F_PSEUDO_HDR as u64 | 4;
        if old_source != new_source {
            ctx.l4_csum_replace(check, old_source.into(), new_source.into(), pseudo)?;
        }
        if old_target != new_target {
            ctx.l4_csum_replace(check, old_target.into(), new_target.into(), pseudo)?;
        }
        if packet.tuple.source_port != flow.source_port {
            ctx.l4_csum_replace(check, packet.tuple.source_port.into(), flow.source_port.into(), mangled | 2)?;
            ctx.store(packet.l4, &flow.source_port, 0)?;
        }
        if packet.tuple.target_port != flow.target_port {
            ctx.l4_csum_replace(check, packet.tuple.target_port.into(), flow.target_port.into(), mangled | 2)?;
            ctx.store(packet.l4 + 2, &flow.target_port, 0)?;
        }
    }
    if old_source != new_source {
        ctx.l3_csum_replace(ETH + 10, old_source.into(), new_source.into(), 4)?;
        ctx.store(ETH + 12, &new_source, 0)?;
    }
    if old_target != new_target {
        ctx.l3_csum_replace(ETH + 10, old_target.into(), new_target.into(), 4)?;
        ctx.store(ETH + 16, &new_target, 0)?;
    }
    Ok(())
}

/// To the pod at `target` without passing the host's stack, or up the stack when no pod of this node has the address.
#[inline(always)]
pub fn deliver(ctx: &TcContext, target: &Address) -> i32 {
    // SAFETY: entries are replaced whole; fields are read at once.
    let Some(pod) = (unsafe { PODS.get(target) }) else { return NEXT };
    let mut macs = [0u8; 12];
    macs[..6].copy_from_slice(&pod.mac);
    macs[6..].copy_from_slice(&pod.host_mac);
    if ctx.store(0, &macs, 0).is_err() {
        return DROP;
    }
    // SAFETY: a helper call.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) as i32 }
}

/// Out of the node by a given interface, the neighbour found by the routes.
#[inline(always)]
pub fn leave(exit: u32) -> i32 {
    // SAFETY: a helper call.
    unsafe { bpf_redirect_neigh(exit, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Back out of the interface that it came in by.
#[inline(always)]
pub fn turn_back(ctx: &TcContext) -> i32 {
    // SAFETY: a helper call.
    match unsafe { bpf_redirect(ifindex(ctx), 0) } as i32 {
        REDIRECT => REDIRECT,
        _ => DROP,
    }
}
