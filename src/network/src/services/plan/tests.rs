//! Properties of plans, on a model of the maps: after every single step a look-up meets a whole Service.

use std::collections::{BTreeMap, BTreeSet};

use coracle_client::Key;
use coracle_ebpf_common::{TCP, from_v4};
use proptest::prelude::*;

use super::*;
use crate::services::ledger::{Ledger, Owner};

/// The three maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    services: BTreeMap<Frontend, Service>,
    slots: BTreeMap<Slot, Backend>,
    members: BTreeSet<Member>,
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::PutMember(member) => drop(self.members.insert(*member)),
            Op::PutSlot(slot, backend) => drop(self.slots.insert(*slot, *backend)),
            Op::PutService(frontend, service) => drop(self.services.insert(*frontend, *service)),
            Op::DropService(frontend) => assert!(self.services.remove(frontend).is_some(), "dropped what is not there"),
            Op::DropSlot(slot) => assert!(self.slots.remove(slot).is_some(), "dropped what is not there"),
            Op::DropMember(member) => assert!(self.members.remove(member), "dropped what is not there"),
        }
    }

    /// What a packet may meet: every slot below the count, with a backend that is a member.
    fn check(&self) {
        for (frontend, service) in &self.services {
            for index in 0..service.count {
                let backend =
                    self.slots.get(&Slot { service: service.id, index }).unwrap_or_else(|| panic!("hole {index} of {frontend:?}"));
                assert!(self.members.contains(&member(service.id, backend)), "a backend that is no member of {frontend:?}");
            }
        }
    }

    fn dump(&self) -> Dump {
        Dump {
            services: self.services.iter().map(|(k, v)| (*k, *v)).collect(),
            slots: self.slots.iter().map(|(k, v)| (*k, *v)).collect(),
            members: self.members.iter().copied().collect(),
        }
    }

    /// The maps say this and nothing else.
    fn holds(&self, wanted: &BTreeMap<Frontend, Desired>) {
        assert_eq!(self.services.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        let mut ids = BTreeSet::new();
        let (mut slots, mut members) = (0, 0);
        for (frontend, desired) in wanted {
            let service = self.services[frontend];
            assert!(service.id != 0 && ids.insert(service.id), "an id of its own");
            assert_eq!((service.count as usize, service.affinity_seconds), (desired.backends.len(), desired.affinity_seconds));
            let found: BTreeSet<_> = (0..service.count).map(|index| self.slots[&Slot { service: service.id, index }]).collect();
            assert_eq!(found, desired.backends);
            slots += desired.backends.len();
            members += desired.backends.len();
        }
        assert_eq!((self.slots.len(), self.members.len()), (slots, members), "nothing is left over");
    }
}

fn frontend(n: u8) -> Frontend {
    Frontend { address: from_v4(u32::from(n)), port: 80, protocol: TCP, pad: 0 }
}

fn desired() -> impl Strategy<Value = Desired> {
    (prop::collection::btree_set(0u8..8, 0..8), prop_oneof![Just(0u32), Just(60)]).prop_map(|(backends, affinity_seconds)| Desired {
        backends: backends.into_iter().map(|n| Backend { address: from_v4(u32::from(n)), port: 8080, flags: 0 }).collect(),
        affinity_seconds,
    })
}

/// An owner and the frontends that it wants from now on.
fn wish() -> impl Strategy<Value = (u8, BTreeMap<u8, Desired>)> {
    (0u8..3, prop::collection::btree_map(0u8..4, desired(), 0..3))
}

fn owner(n: u8) -> Owner {
    if n == 0 { Owner::Sandbox("pod".into()) } else { Owner::Service(Key::new("d", n.to_string())) }
}

/// The frontends that win: the least owner's.
fn effective(wishes: &BTreeMap<Owner, BTreeMap<Frontend, Desired>>) -> BTreeMap<Frontend, Desired> {
    wishes.values().rev().flat_map(|of| of.clone()).collect()
}

proptest! {
    #[test]
    fn every_step_is_whole_and_the_end_is_what_was_wanted(wishes in prop::collection::vec(wish(), 1..24)) {
        let (mut model, mut ledger, mut all) = (Model::default(), Ledger::default(), BTreeMap::new());
        for (n, wanted) in wishes {
            let wanted: BTreeMap<Frontend, Desired> = wanted.into_iter().map(|(n, desired)| (frontend(n), desired)).collect();
            for op in ledger.set(&owner(n), wanted.clone()) {
                model.apply(&op);
                model.check();
            }
            prop_assert!(ledger.set(&owner(n), wanted.clone()).is_empty(), "a second look changes nothing");
            all.insert(owner(n), wanted);
            model.holds(&effective(&all));
        }
    }

    /// Death after any step: what comes next adopts, mends, hears of all owners, and is where it would have been.
    #[test]
    fn a_plan_that_was_cut_off_is_mended(wishes in prop::collection::vec(wish(), 1..12), cut in any::<prop::sample::Index>(), next in wish()) {
        let (mut model, mut ledger, mut steps) = (Model::default(), Ledger::default(), Vec::new());
        for (n, wanted) in &wishes {
            steps.extend(ledger.set(&owner(*n), wanted.iter().map(|(n, desired)| (frontend(*n), desired.clone())).collect()));
        }
        for op in &steps[..cut.index(steps.len() + 1)] {
            model.apply(op);
        }
        let mut ledger = Ledger::default();
        for op in ledger.adopt(&model.dump()) {
            model.apply(&op);
            model.check();
        }
        let wanted: BTreeMap<Frontend, Desired> = next.1.into_iter().map(|(n, desired)| (frontend(n), desired)).collect();
        for op in ledger.set(&owner(next.0), wanted.clone()).into_iter().chain(ledger.prune()).collect::<Vec<_>>() {
            model.apply(&op);
            model.check();
        }
        model.holds(&wanted);
    }

    /// Who stays keeps its place, so that a change of one backend is a handful of writes however many there are.
    #[test]
    fn one_change_is_few_steps(count in 1usize..200, gone in any::<prop::sample::Index>()) {
        let backends: Vec<_> = (0..count).map(|n| Backend { address: from_v4(n as u32), port: 80, flags: 0 }).collect();
        let old = Installed { id: 1, affinity_seconds: 0, slots: backends.clone() };
        let mut wanted: BTreeSet<_> = backends.iter().copied().collect();
        wanted.remove(&backends[gone.index(count)]);
        let (ops, _) = plan(frontend(1), Some(&old), Some(&Desired { backends: wanted, affinity_seconds: 0 }), 9);
        prop_assert!(ops.len() <= 4, "{ops:?}");
    }
}
