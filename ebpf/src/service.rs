//! Services: which one is asked for, and who answers.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use coracle_ebpf_common::*;

use crate::maps::{AFFINITIES, MEMBERS, NODE, NODE_ADDRESSES, SERVICES, SLOTS};

const NANOSECONDS: u64 = 1_000_000_000;

/// What an address and port stand for.
pub enum Answer {
    /// No Service: the packet or socket is not our business.
    Other,
    /// A Service (or its address range) where nobody answers.
    Refused,
    /// A Service's backend.
    Backend(u32, Backend),
}

/// Looks the target up and picks a backend. `client` is who keeps an affinity; `loopback` lets 127.0.0.0/8 stand for the node's own address.
#[inline(always)]
pub fn answer(target: &Address, port: u16, protocol: u8, client: &Address, loopback: bool) -> Answer {
    let Some(service) = find(target, port, protocol, loopback) else {
        return if in_service_range(target) { Answer::Refused } else { Answer::Other };
    };
    match pick(&service, client) {
        Some(backend) => Answer::Backend(service.id, backend),
        None => Answer::Refused,
    }
}

/// Whether the backend still answers for the Service.
#[inline(always)]
pub fn is_member(service: u32, address: &Address, port: u16) -> bool {
    let member = Member { service, address: *address, port, pad: 0 };
    // SAFETY: only presence is asked for.
    unsafe { MEMBERS.get(member) }.is_some()
}

#[inline(always)]
fn find(target: &Address, port: u16, protocol: u8, loopback: bool) -> Option<Service> {
    let mut frontend = Frontend { address: *target, port, protocol, pad: 0 };
    // SAFETY: entries are replaced whole; the value is copied and plain.
    if let Some(service) = unsafe { SERVICES.get(frontend) } {
        return Some(*service);
    }
    // SAFETY: only presence is asked for.
    if !(loopback && is_loopback(target)) && unsafe { NODE_ADDRESSES.get(target) }.is_none() {
        return None;
    }
    frontend.address = ANY;
    // SAFETY: as above.
    unsafe { SERVICES.get(frontend) }.copied()
}

#[inline(always)]
fn pick(service: &Service, client: &Address) -> Option<Backend> {
    if service.count == 0 {
        return None;
    }
    if service.affinity_seconds == 0 {
        return any(service);
    }
    let key = Client { address: *client, service: service.id };
    // SAFETY: a helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a torn read is caught by the check of membership.
    if let Some(kept) = unsafe { AFFINITIES.get(key) } {
        let kept = *kept;
        let fresh = now.wrapping_sub(kept.seen_ns) < u64::from(service.affinity_seconds) * NANOSECONDS;
        if fresh && is_member(service.id, &kept.address, kept.port) {
            let _ = AFFINITIES.insert(key, Affinity { seen_ns: now, ..kept }, 0);
            return Some(Backend { address: kept.address, port: kept.port, flags: 0 });
        }
    }
    let backend = any(service)?;
    let _ = AFFINITIES.insert(key, Affinity { address: backend.address, port: backend.port, pad: [0; 3], seen_ns: now }, 0);
    Some(backend)
}

#[inline(always)]
fn any(service: &Service) -> Option<Backend> {
    // SAFETY: a helper call.
    let index = unsafe { bpf_get_prandom_u32() } % service.count;
    // SAFETY: entries are replaced whole; the value is copied and plain.
    unsafe {
        match SLOTS.get(Slot { service: service.id, index }) {
            Some(backend) => Some(*backend),
            // The count shrank since we read it; the first place goes last.
            None => SLOTS.get(Slot { service: service.id, index: 0 }).copied(),
        }
    }
}

#[inline(always)]
fn in_service_range(target: &Address) -> bool {
    let Some(node) = NODE.get(0) else { return false };
    target[0] & node.services_mask[0] == node.services[0]
        && target[1] & node.services_mask[1] == node.services[1]
        && target[2] & node.services_mask[2] == node.services[2]
        && target[3] & node.services_mask[3] == node.services[3]
}

#[inline(always)]
fn is_loopback(target: &Address) -> bool {
    target[2] == V4_PREFIX[2] && target[3] & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
}
