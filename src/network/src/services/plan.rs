//! From what the maps hold to what they should: steps in an order in which every packet between two of them meets a whole Service. Pure.
//!
//! A new backend is a member before it is in a slot, and in a slot before the count covers it; an old one leaves the count before its slot goes,
//! and membership last. So a look-up never finds a slot missing below the count it read just now.

use std::collections::{BTreeMap, BTreeSet};

use coracle_ebpf_common::{Backend, Frontend, Member, Service, Slot};

use super::desired::Desired;

/// A frontend as the maps hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Names its slots.
    pub id: u32,
    /// As in [`Service`].
    pub affinity_seconds: u32,
    /// Slot by slot.
    pub slots: Vec<Backend>,
}

/// One write to a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// This backend answers for the Service.
    PutMember(Member),
    /// It stands in this place.
    PutSlot(Slot, Backend),
    /// So many places are valid.
    PutService(Frontend, Service),
    /// The frontend is no more.
    DropService(Frontend),
    /// The place is no more.
    DropSlot(Slot),
    /// The backend answers no more.
    DropMember(Member),
}

/// All that the maps hold.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Frontends.
    pub services: Vec<(Frontend, Service)>,
    /// Backends by place.
    pub slots: Vec<(Slot, Backend)>,
    /// Backends by address.
    pub members: Vec<Member>,
}

/// The steps of one frontend, and what is installed after them. `fresh_id` is used when there is none yet.
pub fn plan(frontend: Frontend, installed: Option<&Installed>, desired: Option<&Desired>, fresh_id: u32) -> (Vec<Op>, Option<Installed>) {
    let Some(desired) = desired else { return (installed.map(|old| removal(frontend, old)).unwrap_or_default(), None) };
    let fresh = Installed { id: fresh_id, affinity_seconds: 0, slots: Vec::new() };
    let old = installed.unwrap_or(&fresh);
    let new = Installed { id: old.id, affinity_seconds: desired.affinity_seconds, slots: arrange(&old.slots, &desired.backends) };
    let mut ops = Vec::new();
    let known: BTreeSet<_> = old.slots.iter().collect();
    ops.extend(desired.backends.iter().filter(|backend| !known.contains(backend)).map(|backend| Op::PutMember(member(new.id, backend))));
    for (index, backend) in new.slots.iter().enumerate() {
        if old.slots.get(index) != Some(backend) {
            ops.push(Op::PutSlot(slot(new.id, index), *backend));
        }
    }
    if installed.is_none() || new.slots.len() != old.slots.len() || new.affinity_seconds != old.affinity_seconds {
        let count = new.slots.len() as u32;
        ops.push(Op::PutService(frontend, Service { id: new.id, count, affinity_seconds: new.affinity_seconds, flags: 0 }));
    }
    ops.extend((new.slots.len()..old.slots.len()).map(|index| Op::DropSlot(slot(new.id, index))));
    let gone = known.into_iter().filter(|backend| !desired.backends.contains(backend));
    ops.extend(gone.map(|backend| Op::DropMember(member(new.id, backend))));
    (ops, Some(new))
}

/// What an earlier process left in the maps, and the steps that mend what its death cut in two.
pub fn adopt(dump: &Dump) -> (BTreeMap<Frontend, Installed>, Vec<Op>) {
    let mut ops = Vec::new();
    let mut slots: BTreeMap<Slot, Backend> = dump.slots.iter().copied().collect();
    let mut members: BTreeSet<Member> = dump.members.iter().copied().collect();
    let mut installed = BTreeMap::new();
    for (frontend, service) in &dump.services {
        let places = (0..service.count).map_while(|index| slots.remove(&Slot { service: service.id, index }));
        let old = Installed { id: service.id, affinity_seconds: service.affinity_seconds, slots: places.collect() };
        for backend in &old.slots {
            if !members.remove(&member(old.id, backend)) && !ops.contains(&Op::PutMember(member(old.id, backend))) {
                ops.push(Op::PutMember(member(old.id, backend)));
            }
        }
        if old.slots.len() as u32 != service.count {
            ops.push(Op::PutService(*frontend, Service { count: old.slots.len() as u32, ..*service }));
        }
        installed.insert(*frontend, old);
    }
    ops.extend(slots.into_keys().map(Op::DropSlot));
    ops.extend(members.into_iter().map(Op::DropMember));
    (installed, ops)
}

fn removal(frontend: Frontend, old: &Installed) -> Vec<Op> {
    let mut ops = vec![Op::DropService(frontend)];
    ops.extend((0..old.slots.len()).map(|index| Op::DropSlot(slot(old.id, index))));
    ops.extend(old.slots.iter().collect::<BTreeSet<_>>().into_iter().map(|backend| Op::DropMember(member(old.id, backend))));
    ops
}

/// The new places: who stays keeps its own, a new one takes that of one who goes, holes at the end are closed from behind.
fn arrange(old: &[Backend], wanted: &BTreeSet<Backend>) -> Vec<Backend> {
    let mut missing = wanted.clone();
    let mut places: Vec<Option<Backend>> = old.iter().map(|backend| missing.take(backend)).collect();
    let mut missing = missing.into_iter();
    for place in places.iter_mut().filter(|place| place.is_none()) {
        *place = missing.next();
    }
    places.extend(missing.map(Some));
    let mut slots = Vec::with_capacity(wanted.len());
    let mut at = 0;
    while at < places.len() {
        match places[at] {
            Some(backend) => {
                slots.push(backend);
                at += 1;
            }
            None => {
                places.swap_remove(at);
            }
        }
    }
    slots
}

fn slot(service: u32, index: usize) -> Slot {
    Slot { service, index: index as u32 }
}

fn member(service: u32, backend: &Backend) -> Member {
    Member { service, address: backend.address, port: backend.port, pad: 0 }
}

#[cfg(test)]
mod tests;
