//! The dataplane's programs, as the kernel runs them. One is attached per direction of a link, four to a cgroup.
#![no_std]
#![no_main]

mod icmp;
mod maps;
mod packet;
mod refuse;
mod service;
mod socket;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier},
    programs::{SockAddrContext, TcContext},
};
use coracle_ebpf_common::*;

use crate::{
    maps::{FLOWS, NODE, PODS},
    packet::{ACK, DROP, NEXT, Packet, SYN},
    service::Answer,
};

/// From a pod (ingress of the host's end of its link): services there and back, then straight to the pod that is meant.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    let Some(packet) = packet::read(&ctx) else { return NEXT };
    // SAFETY: one word of an entry that is replaced whole.
    match unsafe { PODS.get(packet.tuple.source) } {
        Some(pod) if pod.ifindex == packet::ifindex(&ctx) => {}
        // Nobody speaks with another's address.
        _ => return DROP,
    }
    serve(&ctx, &packet, 0)
}

/// From outside the node (ingress of the uplink): node ports, host ports, external addresses.
#[classifier]
pub fn from_outside(ctx: TcContext) -> i32 {
    let Some(packet) = packet::read(&ctx) else { return NEXT };
    // SAFETY: only presence is asked for.
    if !packet.translatable || unsafe { PODS.get(packet.tuple.target) }.is_some() {
        return NEXT;
    }
    serve(&ctx, &packet, packet::ifindex(&ctx))
}

/// To a pod from the host's stack (egress of the host's end): the way back from backends that are no pods.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    reverse(&ctx)
}

/// Out of the node (egress of the uplink): the way back from backends on the node itself.
#[classifier]
pub fn to_outside(ctx: TcContext) -> i32 {
    reverse(&ctx)
}

/// connect() over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    socket::connect(&ctx)
}

/// sendmsg() of an unconnected IPv4 socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::connect(&ctx)
}

/// recvmsg() over IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::reveal(&ctx)
}

/// getpeername() over IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::reveal(&ctx)
}

/// The packet path. `exit` is the interface by which answers must leave; zero for the ordinary way.
#[inline(always)]
fn serve(ctx: &TcContext, packet: &Packet, exit: u32) -> i32 {
    if packet.translatable {
        // SAFETY: entries are replaced whole; the value is copied and plain.
        if let Some(flow) = unsafe { FLOWS.get(packet.tuple) } {
            let flow = *flow;
            if stands(packet, &flow) {
                return pass_on(ctx, packet, &flow);
            }
        }
    }
    if packet.tuple.protocol == icmp::PROTOCOL
        && let Some((target, exit)) = icmp::translate(ctx, packet)
    {
        return if exit != 0 { packet::leave(exit) } else { packet::deliver(ctx, &target) };
    }
    // SAFETY: only presence is asked for.
    if unsafe { PODS.get(packet.tuple.target) }.is_some() {
        return packet::deliver(ctx, &packet.tuple.target);
    }
    let tuple = &packet.tuple;
    match service::answer(&tuple.target, tuple.target_port, tuple.protocol, &tuple.source, false) {
        Answer::Other => NEXT,
        Answer::Refused => refuse::refuse(ctx, packet),
        Answer::Backend(service, backend) => {
            let flow = open(packet, service, &backend, exit);
            pass_on(ctx, packet, &flow)
        }
    }
}

/// Whether a known flow may go on: an established connection keeps its backend to the end, a new one and every datagram only while it is there.
#[inline(always)]
fn stands(packet: &Packet, flow: &Flow) -> bool {
    if flow.service == 0 || (packet.tuple.protocol == TCP && packet.tcp_flags & (SYN | ACK) != SYN) {
        return true;
    }
    service::is_member(flow.service, &flow.target, flow.target_port)
}

/// Writes down both directions of a new flow.
#[inline(always)]
fn open(packet: &Packet, service: u32, backend: &Backend, exit: u32) -> Flow {
    let asked = &packet.tuple;
    let mut flow = Flow {
        source: asked.source,
        target: backend.address,
        source_port: asked.source_port,
        target_port: backend.port,
        service,
        exit: 0,
        tunnel: 0,
    };
    if asked.source == backend.address
        && let Some(node) = NODE.get(0)
    {
        flow.source = node.hairpin;
    }
    let back = Tuple {
        source: flow.target,
        target: flow.source,
        source_port: flow.target_port,
        target_port: flow.source_port,
        protocol: asked.protocol,
        pad: [0; 3],
    };
    let answer = Flow {
        source: asked.target,
        target: asked.source,
        source_port: asked.target_port,
        target_port: asked.source_port,
        service: 0,
        exit,
        tunnel: 0,
    };
    let _ = FLOWS.insert(back, answer, 0);
    let _ = FLOWS.insert(packet.tuple, flow, 0);
    flow
}

#[inline(always)]
fn pass_on(ctx: &TcContext, packet: &Packet, flow: &Flow) -> i32 {
    if packet::translate(ctx, packet, flow).is_err() {
        return DROP;
    }
    if flow.exit != 0 {
        return packet::leave(flow.exit);
    }
    packet::deliver(ctx, &flow.target)
}

#[inline(always)]
fn reverse(ctx: &TcContext) -> i32 {
    let Some(packet) = packet::read(ctx) else { return NEXT };
    if packet.tuple.protocol == icmp::PROTOCOL {
        let _ = icmp::translate(ctx, &packet);
        return NEXT;
    }
    if !packet.translatable {
        return NEXT;
    }
    // SAFETY: entries are replaced whole; the value is copied and plain.
    let Some(flow) = (unsafe { FLOWS.get(packet.tuple) }) else { return NEXT };
    let flow = *flow;
    if flow.service == 0 && packet::translate(ctx, &packet, &flow).is_err() {
        return DROP;
    }
    NEXT
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the verifier rejects any program in which this is reachable.
    unsafe { core::hint::unreachable_unchecked() }
}

/// No helper is called that the kernel keeps for programs under its own licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
