//! ICMP errors about translated packets: who sent the packet must find its own in the error.

use aya_ebpf::programs::TcContext;
use coracle_ebpf_common::*;

use crate::{
    maps::FLOWS,
    packet::{ETH, Ipv4, Packet},
};

/// Of ICMP in the IP header.
pub const PROTOCOL: u8 = 1;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
/// Length of the ICMP header, and of the IP header without options.
const HEADER: usize = 8;
const IP: usize = 20;

/// Translates an error back; returns whom it is for and by which interface it must leave (zero for the ordinary way). `None` leaves the packet alone:
/// it is no error, or its cause was not translated.
///
/// The error carries the head of its cause as the backend got it: from the client to the backend. The entry of the way back (backend to client) says what
/// the client knows instead. An inner address and the inner header's checksum change by opposite amounts, so the ICMP checksum sees the ports alone.
#[inline(always)]
pub fn translate(ctx: &TcContext, packet: &Packet) -> Option<(Address, u32)> {
    if packet.l4 != ETH + IP {
        return None;
    }
    const INNER: usize = ETH + IP + HEADER;
    let kind: u8 = ctx.load(ETH + IP).ok()?;
    if kind != UNREACHABLE && kind != TIME_EXCEEDED {
        return None;
    }
    let cause: Ipv4 = ctx.load(INNER).ok()?;
    if cause.version_length != 0x45 || (cause.protocol != TCP && cause.protocol != UDP) {
        return None;
    }
    let ports: Ports = ctx.load(INNER + IP).ok()?;
    let back = Tuple {
        source: from_v4(cause.target),
        target: from_v4(cause.source),
        source_port: ports.target,
        target_port: ports.source,
        protocol: cause.protocol,
        pad: [0; 3],
    };
    // SAFETY: entries are replaced whole; the value is copied and plain.
    let flow = *unsafe { FLOWS.get(back) }?;
    if flow.service != 0 {
        return None;
    }
    let inner = [(12, cause.source, flow.target[3]), (16, cause.target, flow.source[3])];
    for (offset, old, new) in inner {
        ctx.l3_csum_replace(INNER + 10, old.into(), new.into(), 4).ok()?;
        ctx.store(INNER + offset, &new, 0).ok()?;
    }
    for (offset, old, new) in [(0, ports.source, flow.target_port), (2, ports.target, flow.source_port)] {
        ctx.l4_csum_replace(ETH + IP + 2, old.into(), new.into(), 2).ok()?;
        ctx.store(INNER + IP + offset, &new, 0).ok()?;
    }
    // The error itself: from the Service (a router between keeps its own address), to the client.
    let (source, target) = (packet.tuple.source[3], packet.tuple.target[3]);
    let new_source = if source == cause.target { flow.source[3] } else { source };
    for (offset, old, new) in [(12, source, new_source), (16, target, flow.target[3])] {
        ctx.l3_csum_replace(ETH + 10, old.into(), new.into(), 4).ok()?;
        ctx.store(ETH + offset, &new, 0).ok()?;
    }
    Some((flow.target, flow.exit))
}
