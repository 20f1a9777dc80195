//! Nobody answers: say so at once, with a TCP reset or an ICMP port unreachable in the packet's own place.

use aya_ebpf::{helpers::generated::bpf_skb_change_tail, programs::TcContext};
use coracle_ebpf_common::*;

use crate::packet::{self, ACK, DROP, ETH, FIN, Ipv4, Packet, RST, SYN};

const IP: usize = 20;
const TTL: u8 = 64;
const ICMP: u8 = 1;
/// Destination unreachable, port unreachable.
const UNREACHABLE: [u8; 2] = [3, 3];

/// A TCP header without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source: u16,
    target: u16,
    sequence: u32,
    acknowledged: u32,
    length: u8,
    flags: u8,
    window: u16,
    check: u16,
    urgent: u16,
}

/// An ICMP error with the head of what it is about.
#[repr(C)]
#[derive(Clone, Copy)]
struct Unreachable {
    kind: [u8; 2],
    check: u16,
    unused: u32,
    about: [u16; 14],
}

/// Answers for a Service that has nobody.
#[inline(always)]
pub fn refuse(ctx: &TcContext, packet: &Packet) -> i32 {
    if !packet.whole || packet.l4 != ETH + IP || packet.tcp_flags & RST != 0 {
        return DROP;
    }
    let written = match packet.tuple.protocol {
        TCP => reset(ctx, packet),
        UDP => unreachable(ctx),
        _ => return DROP,
    };
    match written {
        Ok(()) => packet::turn_back(ctx),
        Err(_) => DROP,
    }
}

#[inline(always)]
fn reset(ctx: &TcContext, packet: &Packet) -> Result<(), i64> {
    let ip: Ipv4 = ctx.load(ETH)?;
    let tcp: Tcp = ctx.load(ETH + IP)?;
    let header = u32::from(tcp.length >> 4) * 4;
    let mut length = u32::from(u16::from_be(ip.total)).wrapping_sub(IP as u32).wrapping_sub(header);
    length += u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
    let (sequence, acknowledged, flags) = if packet.tcp_flags & ACK != 0 {
        (tcp.acknowledged, 0, RST)
    } else {
        (0, u32::from_be(tcp.sequence).wrapping_add(length).to_be(), RST | ACK)
    };
    let mut answer =
        Tcp { source: tcp.target, target: tcp.source, sequence, acknowledged, length: 5 << 4, flags, window: 0, check: 0, urgent: 0 };
    let ports = [answer.source, answer.target];
    let sum = words(ip.source) + words(ip.target) + u32::from(u16::from(TCP).to_be()) + u32::from(20_u16.to_be());
    let sum = sum + u32::from(ports[0]) + u32::from(ports[1]) + words(sequence) + words(acknowledged);
    answer.check = fold(sum + u32::from(u16::from_ne_bytes([5 << 4, flags])));
    resize(ctx, ETH + IP + 20)?;
    swap_macs(ctx)?;
    ctx.store(ETH, &ip_header(&ip, TCP, 20), 0)?;
    ctx.store(ETH + IP, &answer, 0)
}

#[inline(always)]
fn unreachable(ctx: &TcContext) -> Result<(), i64> {
    let ip: Ipv4 = ctx.load(ETH)?;
    let mut answer = Unreachable { kind: UNREACHABLE, check: 0, unused: 0, about: ctx.load(ETH)? };
    let mut sum = u32::from(u16::from_ne_bytes(UNREACHABLE));
    for word in answer.about {
        sum += u32::from(word);
    }
    answer.check = fold(sum);
    resize(ctx, ETH + IP + 36)?;
    swap_macs(ctx)?;
    ctx.store(ETH, &ip_header(&ip, ICMP, 36), 0)?;
    ctx.store(ETH + IP, &answer, 0)
}

/// The header of an answer to `asked`, from its target to its source.
#[inline(always)]
fn ip_header(asked: &Ipv4, protocol: u8, payload: u16) -> Ipv4 {
    let total = (IP as u16 + payload).to_be();
    let mut ip = Ipv4 {
        version_length: 0x45,
        tos: 0,
        total,
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: TTL,
        protocol,
        check: 0,
        source: asked.target,
        target: asked.source,
    };
    let sum = u32::from(u16::from_ne_bytes([0x45, 0])) + u32::from(total) + u32::from(ip.fragment);
    ip.check = fold(sum + u32::from(u16::from_ne_bytes([TTL, protocol])) + words(ip.source) + words(ip.target));
    ip
}

#[inline(always)]
fn resize(ctx: &TcContext, length: usize) -> Result<(), i64> {
    // SAFETY: a helper call.
    match unsafe { bpf_skb_change_tail(ctx.skb.skb, length as u32, 0) } {
        0 => Ok(()),
        error => Err(error),
    }
}

#[inline(always)]
fn swap_macs(ctx: &TcContext) -> Result<(), i64> {
    let macs: [[u8; 6]; 2] = ctx.load(0)?;
    ctx.store(0, &[macs[1], macs[0]], 0)
}

/// The sum of both halves: the Internet checksum does not mind the order of bytes.
#[inline(always)]
fn words(value: u32) -> u32 {
    (value & 0xffff) + (value >> 16)
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
